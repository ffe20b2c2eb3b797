# SPDX-License-Identifier: Apache-2.0
r"""Each loss on labels alone, and all together, on MovieLens 100K.

Mean over train.seed 0, 1, 2 (standard deviation), checkpoints by validation:

                  new films: AUC  GAUC  NDCG@20        known: AUC  GAUC  NDCG@20
pointwise               0.694  0.608  0.111 (0.013)  0.773  0.732  0.092 (0.009)
pairwise                0.685  0.611  0.132 (0.013)  0.755  0.732  0.103 (0.005)
softmax, 32 rolled      0.570  0.583  0.205 (0.005)  0.639  0.683  0.171 (0.008)
together                0.678  0.598  0.194 (0.004)  0.758  0.733  0.172 (0.012)
content ridge / popularity         0.192 / 0.048                 0.069 / 0.161

Views tell who likes what she sees, rolled negatives what she goes to see: the
losses on views order the views, the softmax ranks the catalogue. Together they
do both, nearly as well as the better one of each column. What is missing on new
films is 0.010 of NDCG@20, two deviations, and 0.016 of AUC, several; by the
likeliest reading because the same towers then serve two ends.

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
