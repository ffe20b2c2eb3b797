# SPDX-License-Identifier: Apache-2.0
r"""What rolled negatives add to impressions on MovieLens 100K, and cost.

Mean over train.seed 0, 1, 2 (standard deviation of NDCG@20), checkpoints by
validation; ms per step of 2,048 rows on two CPU cores:

             new films: recall@100  NDCG@20   known: recall@100  NDCG@20      ms
impressions only      0.453   0.129 (0.017)       0.403   0.096 (0.005)   30.3
rolled 1              0.561   0.176 (0.008)       0.575   0.151 (0.010)   31.1
rolled 4              0.589   0.189 (0.009)       0.611   0.165 (0.008)   32.9
rolled 16             0.601   0.189 (0.005)       0.621   0.171 (0.014)   34.0
rolled 64             0.601   0.192 (0.006)       0.606   0.171 (0.013)   35.4
rolled 256            0.603   0.194 (0.002)       0.605   0.169 (0.013)   40.5
whole batch           0.640   0.221 (0.013)       0.765   0.249 (0.006)   61.1
content ridge         0.561   0.192               0.374   0.069
popularity            0.298   0.048               0.636   0.161

Rolled negatives help, and most of it comes with four of them. The softmax over
the whole batch is better on both, for twice the time; it differs in more than
the number of negatives: its logits lose the log frequency of each item
(objective.log_q), and no support vectors are chosen. AUC of the views hardly
moves: 0.691 to 0.668 on new films, 0.753 to 0.773 on known ones.

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
