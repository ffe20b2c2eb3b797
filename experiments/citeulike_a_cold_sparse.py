# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-a with the sparse part: content ridge + towers.

python run.py --config=experiments/citeulike_a_cold_sparse.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_COLD = os.path.join(os.path.dirname(__file__), 'citeulike_a_cold.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_COLD)['get_config']()
  cfg.name = 'citeulike_a_cold_sparse'
  cfg.model.sparse = config.SparseConfig(enabled=True)
  return cfg
