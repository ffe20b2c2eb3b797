# SPDX-License-Identifier: Apache-2.0
"""Optimisers and learning-rate schedules by name (Optax).

A new one is an entry in its table here and its name in `config_train`. Which
parameters an optimiser changes is said by their names, '/'-joined paths.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.training import row_adagrad
from dropoutnet_jax.training import state as state_lib

_SHOWN = 40  # names of parameters in a message
# Groups of parameters that are trained in one way.
_FROZEN, _EMBEDDING, _OTHER = 'frozen', 'embedding', 'other'
_OBJECTIVE = objective_params.NAME
_TABLES = 'embeddings/'


def _constant(settings: config.TrainConfig, length: int) -> optax.Schedule:
  del length
  return optax.constant_schedule(settings.learning_rate)


def _linear(settings: config.TrainConfig, length: int) -> optax.Schedule:
  rate = settings.learning_rate
  return optax.linear_schedule(rate, rate * settings.end_share, length)


def _cosine(settings: config.TrainConfig, length: int) -> optax.Schedule:
  return optax.cosine_decay_schedule(
      settings.learning_rate, length, alpha=settings.end_share
  )


def _polynomial(settings: config.TrainConfig, length: int) -> optax.Schedule:
  rate = settings.learning_rate
  return optax.polynomial_schedule(
      rate, rate * settings.end_share, settings.power, length
  )


def _exponential(settings: config.TrainConfig, length: int) -> optax.Schedule:
  """Decays all the time; 'piecewise' in steps."""
  del length
  return optax.exponential_decay(
      settings.learning_rate,
      settings.decay_every,
      settings.decay_rate,
      staircase=settings.schedule == 'piecewise',
  )


def _piecewise(settings: config.TrainConfig, length: int) -> optax.Schedule:
  """A constant rate between boundaries, which count from the first update."""
  if not settings.boundaries:
    return _exponential(settings, length)
  multiples = settings.multiples or [
      settings.decay_rate ** (n + 1) for n in range(len(settings.boundaries))
  ]
  pieces = [
      optax.constant_schedule(settings.learning_rate * multiple)
      for multiple in (1.0, *multiples)
  ]
  begin = [b - settings.warmup_steps for b in settings.boundaries]
  return optax.join_schedules(pieces, begin)


# (settings, updates after the warm-up) -> learning rate by update after it.
SCHEDULES: dict[str, Callable[[config.TrainConfig, int], optax.Schedule]] = {
    'constant': _constant,
    'linear': _linear,
    'cosine': _cosine,
    'exponential': _exponential,
    'piecewise': _piecewise,
    'polynomial': _polynomial,
}


def _decayed(params: Any) -> Any:
  """Whether weight decay is of each leaf: of all but tables of embeddings.

  It would shrink the rows that a step does not look up, and the rarest most.
  """
  names = state_lib.by_name(params)
  decayed = [not name.startswith(_TABLES) for name in names]
  return jax.tree.unflatten(jax.tree.structure(params), decayed)


def _adam(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.adam(
      rate,
      s.momentum,
      s.beta2 or 0.999,
      s.epsilon or 1e-8,
      nesterov=s.nesterov,
  )


def _adamw(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.adamw(
      rate,
      s.momentum,
      s.beta2 or 0.999,
      s.epsilon or 1e-8,
      weight_decay=s.weight_decay,
      mask=_decayed,
      nesterov=s.nesterov,
  )


def _adagrad(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.adagrad(rate, s.accumulator, s.epsilon or 1e-7)


def _lamb(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.lamb(
      rate,
      s.momentum,
      s.beta2 or 0.999,
      s.epsilon or 1e-6,
      weight_decay=s.weight_decay,
      mask=_decayed,
  )


def _lion(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.lion(
      rate,
      s.momentum,
      s.beta2 or 0.99,
      weight_decay=s.weight_decay,
      mask=_decayed,
  )


def _rmsprop(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.rmsprop(
      rate,
      s.beta2 or 0.9,
      s.epsilon or 1e-8,
      momentum=s.momentum or None,  # None keeps no trace
      nesterov=s.nesterov,
  )


def _sgd(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return optax.sgd(rate, momentum=s.momentum or None, nesterov=s.nesterov)


# (schedule, settings) -> transformation; config.OPTIMIZERS has the same names.
OPTIMIZERS: dict[
    str,
    Callable[
        [optax.Schedule, config.TrainConfig], optax.GradientTransformation
    ],
] = {
    'adam': _adam,
    'adamw': _adamw,
    'adagrad': _adagrad,
    'lamb': _lamb,
    'lion': _lion,
    'rmsprop': _rmsprop,
    'sgd': _sgd,
}


def _row_adagrad(
    rate: optax.Schedule, s: config.TrainConfig
) -> optax.GradientTransformation:
  return row_adagrad.row_adagrad(rate, s.accumulator, s.epsilon or 1e-7)


# For tables of embeddings alone, whose rows they see where a step touches them;
# config.ROW_OPTIMIZERS has the same names.
ROW_OPTIMIZERS: dict[
    str,
    Callable[
        [optax.Schedule, config.TrainConfig], optax.GradientTransformation
    ],
] = {'lazy_adam': _adam, 'row_adagrad': _row_adagrad}


def touched_tables(
    settings: config.TrainConfig, names: Iterable[str]
) -> list[str]:
  """Tables of embeddings of which steps see the rows that they touch alone.

  Args:
    settings: of the optimisers.
    names: of all parameters.
  """
  if not settings.touches_rows:
    return []
  pattern = settings.embedding_parameters
  return [
      name.removeprefix(_TABLES)
      for name in names
      if name.startswith(_TABLES) and re.fullmatch(pattern, name)
  ]


def make_schedule(settings: config.TrainConfig) -> optax.Schedule:
  """Learning rate as a function of the update, after a linear warm-up."""
  warmup = settings.warmup_steps
  length = max(settings.num_updates - warmup, 1)
  after = SCHEDULES[settings.schedule](settings, length)
  if settings.schedule in ('exponential', 'piecewise') and settings.end_share:
    after = _at_least(after, settings.learning_rate * settings.end_share)
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, settings.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def _at_least(schedule: optax.Schedule, least: float) -> optax.Schedule:
  return lambda update: jnp.maximum(schedule(update), least)


def make_optimizer(
    settings: config.TrainConfig,
) -> optax.GradientTransformation:
  """The configured optimiser; gradients are averaged, then clipped.

  Frozen parameters have no part in the norm that clips, no statistics and no
  weight decay; those of the objective and tables of embeddings have no weight
  decay. Everything that accumulates is in the state of the optimiser, so that a
  run can be cut between any two steps.

  Returns:
    A transformation whose `init` raises UserError where a pattern of
    parameter names matches none of them, or nothing would be trained.
  """
  groups = _Groups(settings)
  chain = [_by_group(settings, groups)]
  if settings.gradient_clip:
    chain.insert(0, optax.clip_by_global_norm(settings.gradient_clip))
    if settings.freeze:
      chain.insert(0, optax.masked(optax.set_to_zero(), groups.frozen))
  optimizer: optax.GradientTransformation = optax.chain(*chain)
  if settings.accumulate > 1:
    steps = optax.MultiSteps(optimizer, settings.accumulate)
    optimizer = steps.gradient_transformation()
  return optimizer


def _by_group(
    settings: config.TrainConfig, groups: '_Groups'
) -> optax.GradientTransformation:
  """One optimiser for all parameters, or one for each group of them."""
  every = OPTIMIZERS | ROW_OPTIMIZERS
  of = lambda s: every[s.optimizer](make_schedule(s), s)
  if not (settings.freeze or settings.splits_embeddings or groups.objective):
    return of(settings)
  transforms: dict[Any, optax.GradientTransformation] = {_OTHER: of(settings)}
  if settings.freeze:
    transforms[_FROZEN] = optax.set_to_zero()
  if groups.objective:
    # Towards 0 is no simpler scale, and a number has no norm to be trusted.
    name = 'adam' if settings.optimizer == 'lamb' else settings.optimizer
    plain = dataclasses.replace(settings, optimizer=name, weight_decay=0.0)
    transforms[_OBJECTIVE] = of(plain)
  if settings.splits_embeddings:
    own = dataclasses.replace(
        settings,
        optimizer=settings.embedding_optimizer or settings.optimizer,
        learning_rate=(
            settings.embedding_learning_rate or settings.learning_rate
        ),
    )
    transforms[_EMBEDDING] = of(own)
  return optax.partition(transforms, groups)


class _Groups:
  """Maps parameters, or anything of their structure, to names of groups."""

  def __init__(self, settings: config.TrainConfig):
    self._freeze = settings.freeze
    self._embedding = (
        settings.embedding_parameters if settings.splits_embeddings else None
    )
    self._of_rows = (
        settings.embedding_optimizer if settings.touches_rows else ''
    )
    # Whether parameters of the objective are trained in a way of their own.
    self.objective = settings.weight_decay > 0 or settings.optimizer == 'lamb'

  def __call__(self, params: Any) -> Any:
    """Group of each leaf; raises UserError as `make_optimizer` says."""
    names = state_lib.by_name(params)
    found = dict.fromkeys(names, _OTHER)
    if self._embedding is not None:
      matching = _matching(self._embedding, names, 'embedding_parameters')
      self._check_tables(matching)
      found |= dict.fromkeys(matching, _EMBEDDING)
    if self.objective:
      mine = [name for name in names if name.startswith(f'{_OBJECTIVE}/')]
      found |= dict.fromkeys(mine, _OBJECTIVE)
    for number, pattern in enumerate(self._freeze):
      matching = _matching(pattern, names, f'freeze[{number}]')
      found |= dict.fromkeys(matching, _FROZEN)
    if set(found.values()) == {_FROZEN}:
      raise errors.UserError(
          'config.train.freeze names all parameters, so that nothing is left '
          f'to train. {_list_of(names)}'
      )
    return jax.tree.unflatten(jax.tree.structure(params), found.values())

  def _check_tables(self, names: list[str]) -> None:
    others = [name for name in names if not name.startswith(_TABLES)]
    if self._of_rows and others:
      raise errors.UserError(
          f'config.train.embedding_optimizer is {self._of_rows!r}, which moves '
          'rows of tables of embeddings, but config.train.embedding_parameters '
          f'is {self._embedding!r}, which also names '
          f'{errors.listed(others, _SHOWN)}. Let it name embeddings/... alone, '
          f'or choose one of {", ".join(OPTIMIZERS)}.'
      )

  def frozen(self, params: Any) -> Any:
    """Whether each leaf stays as it is."""
    return jax.tree.map(lambda group: group == _FROZEN, self(params))


def _matching(pattern: str, names: Mapping[str, Any], field: str) -> list[str]:
  found = [name for name in names if re.fullmatch(pattern, name)]
  if not found:
    raise errors.UserError(
        f'config.train.{field} is {pattern!r}, which is the whole name of no '
        f'parameter. {_list_of(names)}'
    )
  return found


def _list_of(names: Mapping[str, Any]) -> str:
  return f'There are {errors.listed(list(names), _SHOWN)}.'
