# SPDX-License-Identifier: Apache-2.0
"""Optimisers and learning-rate schedules by name (Optax)."""

import optax

from dropoutnet_jax import config


def make_schedule(settings: config.TrainConfig) -> optax.Schedule:
  """Learning rate as a function of the step, after a linear warm-up."""
  peak, warmup = settings.learning_rate, settings.warmup_steps
  length = max(settings.num_steps - warmup, 1)
  if settings.schedule == 'constant':
    after = optax.constant_schedule(peak)
  elif settings.schedule == 'cosine':
    after = optax.cosine_decay_schedule(peak, length)
  else:  # 'exponential' decays all the time, 'piecewise' in steps
    after = optax.exponential_decay(
        peak,
        settings.decay_every,
        settings.decay_rate,
        staircase=settings.schedule == 'piecewise',
    )
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, peak, warmup)
  return optax.join_schedules([rise, after], [warmup])


def make_optimizer(
    settings: config.TrainConfig,
) -> optax.GradientTransformation:
  """The configured optimiser, gradients clipped first."""
  schedule = make_schedule(settings)
  make = {
      'adam': lambda: optax.adam(schedule),
      'adamw': lambda: optax.adamw(
          schedule, weight_decay=settings.weight_decay
      ),
      'sgd': lambda: optax.sgd(schedule, momentum=0.9),
  }
  chain = [make[settings.optimizer]()]
  if settings.gradient_clip:
    chain.insert(0, optax.clip_by_global_norm(settings.gradient_clip))
  return optax.chain(*chain)
