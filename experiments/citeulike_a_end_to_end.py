# SPDX-License-Identifier: Apache-2.0
r"""Cold papers on CiteULike-a end to end: likes are the labels, no teacher.

A user is the mean content of what she liked, without the paper that is trained
on. Both towers start as the identity, which is content kNN on 1,000 columns,
and learn by a softmax over the papers of the batch. Beside them the sparse
part, content ridge; 'tower' is the towers alone.

NDCG@20 0.3652, recall@20 0.4170, recall@100 0.6015 over the 3,396 cold papers
(mean of train.seed 0, 1, 2; standard deviations 0.0003, 0.0006, 0.0011); the
towers alone 0.3294, 0.3853 and 0.5813; content ridge 0.3595, 0.4081 and 0.5819.

python run.py --config=experiments/citeulike_a_end_to_end.py --data_dir=DIR
"""

from dropoutnet_jax import config


def get_config() -> config.Config:
  return config.Config(
      name='citeulike_a_end_to_end',
      data=config.DataConfig(
          name='citeulike-a', split='published-cold', validation='return'
      ),
      features=config.FeaturesConfig(
          item=[
              config.Feature(column='tags', idf='idf', rank=1000, sparse=False),
              config.Feature(column='tags', idf='root'),
          ],
          preference='history',
      ),
      # A paper is always new: no preference of it is known.
      dropout=config.DropoutConfig(user_rate=0.0, item_rate=1.0),
      # Temperature, rate, length and weight were chosen on held-out training
      # papers (data.validation='keep_out').
      objective=config.ObjectiveConfig(
          teacher=0.0,
          in_batch_softmax=1.0,
          pairing='interactions',
          temperature=0.05,
          learn_scale=False,
      ),
      model=config.ModelConfig(
          tower='modern',
          hidden=(),
          rank=1000,
          normalize=True,
          residual_preference=True,
          preference_scaling='unit',
          sparse=config.SparseConfig(
              enabled=True,
              regularization=1.5,
              history_size=300,
              tower_weight=0.35,
          ),
      ),
      train=config.TrainConfig(
          batch_size=1024,
          num_steps=600,
          learning_rate=1e-3,
          checkpoint_every=200,
      ),
      evaluation=config.EvaluationConfig(
          ridge_lambdas=(1.5, 3.0, 10.0),
          baselines=('random', 'popularity', 'content_knn', 'content_ridge'),
      ),
  )
