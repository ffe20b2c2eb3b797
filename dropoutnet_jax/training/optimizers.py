# SPDX-License-Identifier: Apache-2.0
"""Optimisers and learning-rate schedules by name (Optax).

A new one is an entry in its table here and its name in `config`.
"""

from collections.abc import Callable

import optax

from dropoutnet_jax import config


def _constant(settings: config.TrainConfig, length: int) -> optax.Schedule:
  del length
  return optax.constant_schedule(settings.learning_rate)


def _linear(settings: config.TrainConfig, length: int) -> optax.Schedule:
  return optax.linear_schedule(settings.learning_rate, 0.0, length)


def _cosine(settings: config.TrainConfig, length: int) -> optax.Schedule:
  return optax.cosine_decay_schedule(settings.learning_rate, length)


def _exponential(settings: config.TrainConfig, length: int) -> optax.Schedule:
  """Decays all the time; 'piecewise' in steps."""
  del length
  return optax.exponential_decay(
      settings.learning_rate,
      settings.decay_every,
      settings.decay_rate,
      staircase=settings.schedule == 'piecewise',
  )


# (settings, steps after the warm-up) -> learning rate by step after it.
SCHEDULES: dict[str, Callable[[config.TrainConfig, int], optax.Schedule]] = {
    'constant': _constant,
    'linear': _linear,
    'cosine': _cosine,
    'exponential': _exponential,
    'piecewise': _exponential,
}

# (schedule, settings) -> transformation; config.OPTIMIZERS has the same names.
OPTIMIZERS: dict[
    str,
    Callable[
        [optax.Schedule, config.TrainConfig], optax.GradientTransformation
    ],
] = {
    'adam': lambda rate, _: optax.adam(rate),
    'adamw': lambda rate, s: optax.adamw(rate, weight_decay=s.weight_decay),
    'adagrad': lambda rate, _: optax.adagrad(rate),
    'lamb': lambda rate, s: optax.lamb(rate, weight_decay=s.weight_decay),
    'sgd': lambda rate, _: optax.sgd(rate, momentum=0.9),
}


def make_schedule(settings: config.TrainConfig) -> optax.Schedule:
  """Learning rate as a function of the step, after a linear warm-up."""
  warmup = settings.warmup_steps
  length = max(settings.num_steps - warmup, 1)
  after = SCHEDULES[settings.schedule](settings, length)
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, settings.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def make_optimizer(
    settings: config.TrainConfig,
) -> optax.GradientTransformation:
  """The configured optimiser, gradients clipped first."""
  schedule = make_schedule(settings)
  chain = [OPTIMIZERS[settings.optimizer](schedule, settings)]
  if settings.gradient_clip:
    chain.insert(0, optax.clip_by_global_norm(settings.gradient_clip))
  return optax.chain(*chain)
