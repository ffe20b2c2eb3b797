# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-t end to end: words of abstracts, no teacher.

NDCG@20 0.2250, recall@20 0.3479, recall@100 0.5879 over 5,195 cold papers (mean
of train.seed 0, 1, 2; standard deviations 0.0003, 0.0007, 0.0030); the towers
alone 0.2080, 0.3278, 0.5684; content ridge 0.2142, 0.3265, 0.5480; content kNN
0.1973, 0.3077, 0.5231. Settings are those of CiteULike-a but for lambda, which
was chosen on held-out training papers.

python run.py --config=experiments/citeulike_t_end_to_end.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_TAGS = os.path.join(os.path.dirname(__file__), 'citeulike_a_end_to_end.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_TAGS)['get_config']()
  cfg.name = 'citeulike_t_end_to_end'
  cfg.data = config.DataConfig(
      name='citeulike-t',
      split='random',
      cold_item_share=0.2,
      warm_share=0.0,
      validation='return',
  )
  feature = config.Feature
  cfg.features.item = [
      feature(column='words', counts='log', idf='idf', rank=1000, sparse=False),
      feature(column='words', counts='log', idf='idf'),
  ]
  cfg.model.sparse.regularization = 10.0
  cfg.evaluation.ridge_lambdas = (10.0,)
  cfg.evaluation.ridge_smoothings = (0.0, 3.0, 10.0)
  return cfg
