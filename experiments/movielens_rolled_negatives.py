# SPDX-License-Identifier: Apache-2.0
r"""What rolled negatives add to impressions on MovieLens 100K, and cost.

Mean over train.seed 0, 1, 2 (standard deviation of NDCG@20), checkpoints by
validation; ms per step of 2,048 rows on two CPU cores:

             new films: recall@100  NDCG@20   known: recall@100  NDCG@20      ms
impressions only      0.448   0.122 (0.011)       0.420   0.108 (0.005)   30.3
rolled 1              0.583   0.190 (0.010)       0.583   0.155 (0.004)   31.1
rolled 4              0.604   0.194 (0.009)       0.607   0.163 (0.005)   32.9
rolled 16             0.619   0.214 (0.004)       0.641   0.171 (0.008)   34.0
rolled 64             0.621   0.215 (0.005)       0.643   0.169 (0.004)   35.4
rolled 256            0.618   0.213 (0.006)       0.638   0.173 (0.007)   40.5
whole batch           0.640   0.230 (0.009)       0.729   0.228 (0.018)   61.1
content ridge         0.554   0.193               0.377   0.071
popularity            0.298   0.048               0.636   0.161

Rolled negatives help, up to sixteen of them. The softmax over the whole batch
is better still, for twice the time; it differs in more than the number of
negatives: its logits lose the log frequency of each item (objective.log_q), and
no support vectors are chosen. The AUC of the views moves little: from 0.689 to
0.681 on new films with rolled negatives (0.653 with the whole batch), from
0.770 to 0.766 (0.755) on known ones.

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
