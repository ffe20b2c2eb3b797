# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-t: 20 % of the papers, words of the abstracts.

NDCG@20, recall@100 over 5,195 cold papers (seed 0): content ridge 0.214, 0.548,
content kNN 0.197, 0.523, ridge from content to the teacher's factors 0.153,
0.521, towers alone 0.150, 0.520: on texts the towers gain nothing over ridge.

python run.py --config=experiments/citeulike_t_cold.py --data_dir=DIR
"""

from dropoutnet_jax import config


def get_config() -> config.Config:
  return config.Config(
      name='citeulike_t_cold',
      data=config.DataConfig(
          name='citeulike-t',
          split='random',
          cold_item_share=0.2,
          warm_share=0.0,
          validation='return',
      ),
      features=config.FeaturesConfig(
          item=[
              config.Feature(
                  column='words',
                  counts='log',
                  idf='idf',
                  rank=600,
                  sparse=False,
              ),
              config.Feature(column='words', counts='log', idf='idf'),
          ]
      ),
      dropout=config.DropoutConfig(item_rate=0.9),
      objective=config.ObjectiveConfig(positive_weight=10.0),
      model=config.ModelConfig(tower='paper', hidden=(400,), rank=200),
      train=config.TrainConfig(
          num_steps=400,
          optimizer='adamw',
          weight_decay=2.0,
          checkpoint_every=100,
      ),
      evaluation=config.EvaluationConfig(
          ridge_lambdas=(3.0, 10.0, 30.0), ridge_smoothings=(0.0, 3.0, 10.0)
      ),
  )
