# SPDX-License-Identifier: Apache-2.0
r"""Films on MovieLens 100K from views: ratings below 4 are no reaction.

No teacher: the labels are learnt from by three losses at once. Preferences are
the mean content of what a user liked and of who liked a film, and how often
each was shown and liked.

Mean over train.seed 0, 1, 2. New films: AUC of the views 0.682, within users
0.606; NDCG@20 0.212 (standard deviation 0.006; content ridge 0.193). Known
films: AUC 0.764 and 0.732 (popularity 0.704 and 0.722), NDCG@20 0.173 (0.006;
popularity 0.161). Without the counts (no features.statistics, same seeds) AUC
is 0.661 (0.019) and 0.754 (0.017), within users 0.604 and 0.736, NDCG@20 0.206
(0.007) and 0.178 (0.005): what they add to AUC is within two deviations.

python run.py --config=experiments/movielens_impressions.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_NEW_FILMS = os.path.join(os.path.dirname(__file__), 'movielens_cold_item.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_NEW_FILMS)['get_config']()
  cfg.name = 'movielens_impressions'
  cfg.features.preference = 'history'
  cfg.features.statistics = (0.0,)
  cfg.teacher = config.TeacherConfig()  # of two baselines
  cfg.dropout = config.DropoutConfig(user_rate=0.2, item_rate=0.5)
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0,
      pointwise=1.0,
      pairwise=1.0,
      softmax=1.0,
      pairing='interactions',
      temperature=1.0,
  )
  cfg.train = config.TrainConfig(
      batch_size=2048, num_steps=1000, eval_every=100, patience=4
  )
  return cfg
