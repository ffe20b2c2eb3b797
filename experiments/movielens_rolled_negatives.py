# SPDX-License-Identifier: Apache-2.0
r"""What rolled negatives add to impressions on MovieLens 100K, and cost.

Has not been measured yet.

python run.py --config=experiments/movielens_rolled_negatives.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_IMPRESSIONS = os.path.join(
    os.path.dirname(__file__), 'movielens_impressions.py'
)


def get_config() -> config.Config:
  cfg = runpy.run_path(_IMPRESSIONS)['get_config']()
  cfg.name = 'movielens_rolled_negatives'
  cfg.evaluation.baselines = ('popularity', 'content_ridge')
  cfg.evaluation.warm_up_counts = ()
  rolled = [
      config.Variant(f'rolled {number}', (f'objective.num_negatives={number}',))
      for number in (1, 4, 16, 64, 256)
  ]
  cfg.comparison = config.ComparisonConfig(
      [
          config.Variant('impressions only', ('objective.softmax=0',)),
          *rolled,
          config.Variant(
              'whole batch',
              ('objective.softmax=0', 'objective.in_batch_softmax=1'),
          ),
      ],
      seeds=(0, 1, 2),
  )
  return cfg
