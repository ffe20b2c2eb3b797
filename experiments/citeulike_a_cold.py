# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-a, the paper's split, tags as content.

NDCG@20 0.289, recall@100 0.588 (0.001) over the 3,396 cold papers, mean and
standard deviation of train.seed 0, 1, 2; ridge from content to the teacher's
factors 0.289 and 0.586, content kNN 0.318 and 0.563, content ridge 0.360 and
0.582. 103 s in all, 27 s of them training, on two CPU cores.

python run.py --config=experiments/citeulike_a_cold.py --data_dir=DIR
"""

from dropoutnet_jax import config


def get_config() -> config.Config:
  return config.Config(
      name='citeulike_a_cold',
      data=config.DataConfig(
          name='citeulike-a', split='published-cold', validation='return'
      ),
      features=config.FeaturesConfig(
          item=[
              # Dense, for the towers; the ridge wants another weighting.
              config.Feature(column='tags', idf='idf', rank=1000, sparse=False),
              config.Feature(column='tags', idf='root'),
          ]
      ),
      dropout=config.DropoutConfig(item_rate=0.9),
      objective=config.ObjectiveConfig(positive_weight=3.0),
      model=config.ModelConfig(tower='paper', hidden=(400,), rank=200),
      train=config.TrainConfig(
          num_steps=500,
          optimizer='adamw',
          weight_decay=5.0,
          checkpoint_every=100,
      ),
      evaluation=config.EvaluationConfig(ridge_lambdas=(1.5, 3.0, 10.0)),
  )
