# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-t end to end: words of abstracts, no teacher.

Without the validation papers (--config.data.validation=keep_out, seed 0, best
step 400): NDCG@20 0.205, recall@20 0.317, recall@100 0.548 over 5,195 cold
papers; the towers alone 0.191, 0.301, 0.526; content kNN 0.184, 0.286, 0.491.
The fit with them has not been measured.

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
