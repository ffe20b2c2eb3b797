# SPDX-License-Identifier: Apache-2.0
"""What both sides of a comparison train on in tests."""

from dropoutnet_jax import config

HIDDEN, RANK = (7,), 5


def get_config() -> config.Config:
  feature = config.Feature
  return config.Config(
      data=config.DataConfig(
          synthetic=config.SyntheticConfig(
              num_users=60, num_items=80, likes_per_user=12.0
          )
      ),
      features=config.FeaturesConfig(item=[feature(column='tags', rank=8)]),
      teacher=config.TeacherConfig(rank=4, num_iterations=2),
      dropout=config.DropoutConfig(item_rate=0.7),
      model=config.ModelConfig(tower='paper', hidden=HIDDEN, rank=RANK),
      train=config.TrainConfig(
          batch_size=900, num_steps=20, steps_per_dispatch=4
      ),
      objective=config.ObjectiveConfig(top_items=10, random_items=10),
  )
