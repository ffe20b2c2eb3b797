# SPDX-License-Identifier: Apache-2.0
r"""Each loss on labels alone, and all together, on MovieLens 100K.

Mean over train.seed 0, 1, 2 (standard deviation), checkpoints by validation:

                  new films: AUC  GAUC  NDCG@20        known: AUC  GAUC  NDCG@20
pointwise               0.691  0.610  0.115 (0.004)  0.776  0.735  0.100 (0.006)
pairwise                0.684  0.615  0.135 (0.011)  0.760  0.739  0.104 (0.011)
softmax, 32 rolled      0.571  0.588  0.214 (0.009)  0.639  0.688  0.169 (0.017)
together                0.682  0.606  0.212 (0.006)  0.764  0.732  0.173 (0.006)
content ridge / popularity         0.193 / 0.048                 0.071 / 0.161

Views tell who likes what she sees, rolled negatives what she goes to see: the
losses on views order the views, the softmax ranks the catalogue. Together they
do both: NDCG@20 as the softmax alone, within noise, and AUC about 0.01 below
the best loss on views, which is two deviations; by the likeliest reading
because the same towers then serve two ends.

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
