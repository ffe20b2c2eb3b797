# SPDX-License-Identifier: Apache-2.0
r"""Known and new users and films on MovieLens 100K, all from one model.

A fifth of the users and a fifth of the films are new. NDCG@20 on the test sets,
means over data.seed 0, 1, 2 (standard deviations; splits differ more than
methods do), settings by the validation sets:

  known users and films  0.253 (0.007)  ALS 0.223, popularity 0.169, EASE 0.285
  new films              0.230 (0.026)  ridge to factors 0.179, content ridge
                                        0.155
  new users              0.352 (0.019)  ridge to factors 0.347, popularity 0.342
  both new               0.168 (0.042)  content ridge 0.183, ridge to factors
                                        0.136

New users: one list for all of them, ordered by what these very users like
('ideal_popularity'), has 0.348; beyond popularity there is only what age,
gender, occupation and zip code say. Where both are new, content ridge is ahead
on the test sets and not on the validation sets (0.130 against 0.133).

A hybrid of feature embeddings with WARP, as LightFM is, on the same splits
(run.py bench --suite=hybrid): 0.166, 0.094, 0.330 and 0.091.

With 0, 1, 2, 5, 10 and 20 likes of new users shown, NDCG@20 is 0.283, 0.295,
0.313, 0.340, 0.356 and 0.362; of new films 0.215, 0.214, 0.212, 0.210, 0.227
and 0.266. Where users and films are drawn again (`more` in results.json), one
of the fifteen steps of films is worth less than the one before beyond noise,
and at the edge of it: from two likes to five with data.seed 0, -0.026 (-0.062
to -0.001). Of 300 new films a single one that all want decides such a mean. On
the validation sets films have 0.188, 0.196, 0.200, 0.213, 0.221 and 0.244, and
no number of likes of either side is worth less than a smaller one by more than
0.001 in any split.

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
  # Chosen on the validation sets, means of the four quadrants.
  cfg.model.sparse = config.SparseConfig(
      enabled=True,
      regularization=10.0,
      correction_rank=300,
      length_power=0.15,
      history_weight=1.0,
      expected_weight=3.0,
      tower_weight=1 / 6,
  )
  cfg.train.learning_rate = 3e-4
  cfg.train.ema = 0.99
  cfg.train.eval_every = 50
  cfg.evaluation.baselines = (
      *cfg.evaluation.baselines,
      'ease',
      'ideal_popularity',
  )
  return cfg
