# SPDX-License-Identifier: Apache-2.0
r"""Cold papers as published: preprocessing, pairs, network and optimiser.

Standardised columns clipped at 5; targets over all papers, the cold ones among
them; the top 2,500 and 2,500 random ones per user; half of both sides dropped,
users without content as well; batches of 100, momentum 0.9, learning rate
0.005, a tenth of it every 25,000 x 100 steps. NDCG@20 0.218 (0.001), recall@20
0.280 (0.002) and recall@100 0.489 (0.001) over the 3,396 cold papers after 7
million pairs (mean of train.seed 0, 1, 2; standard deviations), where
citeulike_a_cold has 0.289, 0.360 and 0.588, and content ridge on these very
features 0.358, 0.407 and 0.582.

python run.py --config=experiments/citeulike_a_cold_published.py --data_dir=DIR
"""

from dropoutnet_jax import config
from dropoutnet_jax import profiles


def get_config() -> config.Config:
  cfg = config.Config(name='citeulike_a_cold_published')
  profiles.apply(cfg, 'layer6')
  cfg.data = config.DataConfig(
      name='citeulike-a', split='published-cold', validation='return'
  )
  cfg.features.item = [config.Feature(column='tags', idf='idf', rank=300)]
  cfg.model.hidden, cfg.model.rank = (200,), 200
  cfg.train.num_steps = 70_000
  cfg.train.steps_per_dispatch = 500
  cfg.train.log_every, cfg.train.checkpoint_every = 1000, 10_000
  cfg.evaluation.ridge_lambdas = (1.5, 3.0, 10.0)
  return cfg
