# SPDX-License-Identifier: Apache-2.0
r"""Warm papers on CiteULike-a by the model that is best on cold ones.

`citeulike_a_full` as it is: what EASE says of a known paper is a column of its
own in the sparse part, and the teacher's factors are dense ones, beside content
ridge and the towers.

NDCG@20 0.3163, recall@20 0.3864, recall@100 0.6282 over all 16,980 papers,
training papers masked (mean of train.seed 0, 1, 2; standard deviations 0.0003,
0.0007, 0.0009); EASE 0.3100, 0.3784 and 0.5885, the teacher 0.2673, 0.3452 and
0.5921. Without the teacher's columns it was 0.3118,
0.3819 and 0.6167 (means of three seeds).

python run.py --config=experiments/citeulike_a_full_warm.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_FULL = os.path.join(os.path.dirname(__file__), 'citeulike_a_full.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_FULL)['get_config']()
  cfg.name = 'citeulike_a_full_warm'
  cfg.data.split = 'published-warm'
  cfg.evaluation.baselines = ('popularity', 'content_ridge', 'teacher', 'ease')
  cfg.evaluation.ridge_lambdas = (3.0,)
  return cfg
