# SPDX-License-Identifier: Apache-2.0
r"""Known and new users and films on MovieLens 100K, all from one model.

A fifth of the users and a fifth of the films are new. FIGURES

python run.py --config=experiments/movielens_quadrants.py --data_dir=DIR \
  --config.sweep.field=data.seed '--config.sweep.values=(0,1,2)'
"""

import os
import runpy

from dropoutnet_jax import config

_FILMS = os.path.join(os.path.dirname(__file__), 'movielens_end_to_end.py')
_USERS = os.path.join(os.path.dirname(__file__), 'movielens_cold_user.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_FILMS)['get_config']()
  cfg.name = 'movielens_quadrants'
  cfg.data.cold_user_share = 0.2
  cfg.data.cold_item_share = 0.2
  cfg.features.user = runpy.run_path(_USERS)['get_config']().features.user
  cfg.teacher = config.TeacherConfig(rank=32, confidence=5.0)  # of baselines
  cfg.dropout = config.DropoutConfig(user_rate=0.3, item_rate=0.5)
  cfg.train.learning_rate = 3e-4
  cfg.train.ema = 0.99
  cfg.train.eval_every = 50
  cfg.evaluation.baselines = (
      *cfg.evaluation.baselines,
      'ease',
      'ideal_popularity',
  )
  return cfg
