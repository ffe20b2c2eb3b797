# SPDX-License-Identifier: Apache-2.0
r"""Warm papers on CiteULike-a by the model that is best on cold ones.

`citeulike_a_full` as it is: what EASE says of a known paper is a column of its
own in the sparse part, beside content ridge and the towers.

RESULT

python run.py --config=experiments/citeulike_a_full_warm.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_FULL = os.path.join(os.path.dirname(__file__), 'citeulike_a_full.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_FULL)['get_config']()
  cfg.name = 'citeulike_a_full_warm'
  cfg.data.split = 'published-warm'
  cfg.evaluation.baselines = ('popularity', 'content_ridge', 'teacher', 'ease')
  cfg.evaluation.ridge_lambdas = (3.0,)
  return cfg
