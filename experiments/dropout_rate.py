# SPDX-License-Identifier: Apache-2.0
r"""Warm and cold recall against the dropout rate: the paper's figure.

One split of CiteULike-a with cold papers and held-out warm pairs, so that both
curves are of the same models. Writes runs/dropout_rate/sweep.png. Recall@100 of
warm pairs and of cold papers (seed 0): rate 0 0.648 and 0.403, 0.25 0.643 and
0.568, 0.5 0.638 and 0.574, 0.75 0.613 and 0.577, 0.9 0.589 and 0.575, 1 0.458
and 0.575; the teacher 0.640 and chance.

python run.py --config=experiments/dropout_rate.py --data_dir=DIR
"""

import os
import runpy

from dropoutnet_jax import config

_COLD = os.path.join(os.path.dirname(__file__), 'citeulike_a_cold.py')


def get_config() -> config.Config:
  cfg = runpy.run_path(_COLD)['get_config']()
  cfg.name = 'dropout_rate'
  cfg.data = config.DataConfig(
      name='citeulike-a',
      split='random',
      cold_item_share=0.2,
      warm_share=0.1,
      validation='return',
  )
  cfg.train.num_steps = 200
  cfg.evaluation = config.EvaluationConfig(
      baselines=('content_knn', 'teacher'),
      warm_up_counts=cfg.evaluation.warm_up_counts,
  )
  cfg.sweep = config.SweepConfig(
      field='dropout.item_rate',
      values=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
  )
  return cfg
