# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-t: 20 % of the papers, words of the abstracts.

On held-out training papers (data.validation='keep_out', seed 0): NDCG@20 0.146,
recall@100 0.500; ridge from content to the teacher's factors 0.147 and 0.506.

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
