# SPDX-License-Identifier: Apache-2.0
r"""Each loss on labels alone, and all together, on MovieLens 100K.

python run.py --config=experiments/movielens_losses.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_IMPRESSIONS = os.path.join(
    os.path.dirname(__file__), 'movielens_impressions.py'
)
_TERMS = ('pointwise', 'pairwise', 'softmax')


def get_config() -> config.Config:
  cfg = runpy.run_path(_IMPRESSIONS)['get_config']()
  cfg.name = 'movielens_losses'
  cfg.evaluation.baselines = ('popularity', 'content_ridge')
  cfg.evaluation.warm_up_counts = ()
  alone = [
      config.Variant(
          name,
          tuple(f'objective.{term}={int(term == name)}' for term in _TERMS),
      )
      for name in _TERMS
  ]
  cfg.comparison = config.ComparisonConfig(
      [*alone, config.Variant('together')], seeds=(0, 1, 2)
  )
  return cfg
