# SPDX-License-Identifier: Apache-2.0
r"""Warm papers on CiteULike-a: does input dropout cost what is known?

Recall@100 over all 16,980 papers, training papers masked (mean and standard
deviation of train.seed 0, 1, 2): model 0.590 (0.002), teacher 0.592 (0.001).

python run.py --config=experiments/citeulike_a_warm.py --data_dir=DIR
"""

from dropoutnet_jax import config


def get_config() -> config.Config:
  return config.Config(
      name='citeulike_a_warm',
      data=config.DataConfig(
          name='citeulike-a', split='published-warm', validation='return'
      ),
      features=config.FeaturesConfig(
          item=[
              config.Feature(column='tags', idf='idf', rank=600, sparse=False),
              config.Feature(column='tags', idf='root'),
          ]
      ),
      dropout=config.DropoutConfig(item_rate=0.5),
      model=config.ModelConfig(tower='paper', hidden=(500,), rank=200),
      train=config.TrainConfig(num_steps=600, checkpoint_every=100),
      evaluation=config.EvaluationConfig(
          baselines=(
              'random',
              'popularity',
              'content_knn',
              'content_ridge',
              'linear_content',
              'teacher',
          ),
          ridge_lambdas=(1.5, 3.0, 10.0),
      ),
  )
