# SPDX-License-Identifier: Apache-2.0
"""`run.py` where conjugate gradients have one step, and get nowhere.

stuck_ridge.py ARGUMENTS OF run.py
"""

import runpy

from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import split_ridge
from tests import tiny_run
from tests.training import two_runs


def main() -> None:
  content_ridge.Solver = two_runs.SOLVER  # type: ignore[misc, assignment]
  split_ridge._MOST_STEPS = 1
  runpy.run_path(str(tiny_run.ROOT / 'run.py'), run_name='__main__')


if __name__ == '__main__':
  main()
