# SPDX-License-Identifier: Apache-2.0
"""Settings of how is learnt: optimiser, rate, length, start, what is kept.

Part of `config.py`, which gives them their names; see there.
"""

from collections.abc import Iterable
import dataclasses
import itertools
import re

from dropoutnet_jax import checks

OPTIMIZERS = ('adam', 'adamw', 'adagrad', 'lamb', 'lion', 'rmsprop', 'sgd')
# Of tables of embeddings alone: they move the rows that a step looks up.
ROW_OPTIMIZERS = ('lazy_adam', 'row_adagrad')
SCHEDULES = (
    'constant',
    'linear',
    'cosine',
    'exponential',
    'piecewise',
    'polynomial',
)
_WITH_DECAY = ('adamw', 'lamb', 'lion')
_WITH_NESTEROV = ('adam', 'adamw', 'lazy_adam', 'rmsprop', 'sgd')


@dataclasses.dataclass
class TrainConfig:
  """Optimiser, length, and what is written how often (in steps).

  An update is made of the mean gradient of `accumulate` steps. Schedules count
  updates; all else, and the averages of `ema`, counts steps.
  """

  batch_size: int = 1_000_000  # pairs per step, over all devices together
  accumulate: int = 1  # steps per update
  num_steps: int = 1000
  seed: int = 0
  optimizer: str = 'adam'  # one of OPTIMIZERS
  # Decay of the mean gradient: sgd, rmsprop; beta 1 of adam, adamw, lamb, lion.
  momentum: float = 0.9
  nesterov: bool = False  # sgd, rmsprop, adam, adamw
  # Decay of the mean square; 0 is the usual: 0.999, of lion 0.99 (for its
  # momentum), of rmsprop 0.9.
  beta2: float = 0.0
  # Keeps divisors above 0; 0 is the usual: 1e-8, of lamb 1e-6, of adagrad 1e-7.
  epsilon: float = 0.0
  accumulator: float = 0.1  # adagrad: where its sums of squares start
  # adamw, lamb, lion; never of tables of embeddings, whose rows would shrink in
  # every step that does not look them up: objective.embedding_regularization.
  weight_decay: float = 0.0
  learning_rate: float = 1e-3  # peak, after warm-up
  schedule: str = 'cosine'  # one of SCHEDULES
  warmup_steps: int = 0  # updates in which the rate rises from 0
  decay_every: int = 0  # exponential, piecewise: updates between decays
  decay_rate: float = 0.1
  # piecewise: updates since the start at which the rate changes, instead of
  # decay_every; and the multiples of learning_rate from there on. Without
  # multiples each of them decays by decay_rate.
  boundaries: tuple[int, ...] = ()
  multiples: tuple[float, ...] = ()
  power: float = 2.0  # polynomial: (share of updates left) ** power
  # Of learning_rate: at the end (linear, cosine, polynomial) or at the least
  # (exponential, piecewise).
  end_share: float = 0.0
  # Another optimiser, '' for the same, and peak rate, 0 for the same, for the
  # tables of embeddings: parameters whose whole name ('embeddings/genre')
  # matches the regular expression. Rows that a batch does not look up have a
  # gradient of 0: sgd without momentum and adagrad leave them, others go on to
  # move them for a while. ROW_OPTIMIZERS do not see them at all, so that a step
  # costs what it looks up and not the size of the table: 'lazy_adam' is adam
  # whose moments of a row decay in the steps that look it up, and whose bias
  # correction counts all updates; 'row_adagrad' keeps one number for each row.
  embedding_optimizer: str = ''
  embedding_learning_rate: float = 0.0
  embedding_parameters: str = 'embeddings/.*'
  # Regular expressions of whole names of parameters that stay as they start,
  # without weight decay too: 'item_tower/.*'. Statistics of batch norm are no
  # parameters and follow the data.
  freeze: tuple[str, ...] = ()
  # Folder of another run whose parameters a fresh run starts from, as far as
  # names and shapes are the same (training/warm_start.py).
  warm_start: str = ''
  gradient_clip: float = 0.0  # global norm of what is trained; 0 is off
  ema: float = 0.0  # decay of the averages, less at first; 0 is off
  steps_per_dispatch: int = 50  # steps in one call of the device
  log_every: int = 50
  eval_every: int = 0  # validation; 0 is at the end only
  checkpoint_every: int = 500
  keep_checkpoints: int = 2  # the newest; the best is kept beside them
  # Validation metric, such as 'cold_item/ndcg@20', or 'warm/auc' of labelled
  # rows; '' is the mean NDCG.
  select_by: str = ''
  patience: int = 0  # evaluations without a better one before stopping; 0: off

  @property
  def num_updates(self) -> int:
    """How often the parameters change."""
    return self.num_steps // self.accumulate

  @property
  def splits_embeddings(self) -> bool:
    """Whether tables of embeddings are trained in a way of their own."""
    return bool(self.embedding_optimizer or self.embedding_learning_rate)

  @property
  def touches_rows(self) -> bool:
    """Whether steps see of tables of embeddings the rows they touch alone."""
    return self.embedding_optimizer in ROW_OPTIMIZERS

  def validate(self) -> None:
    for field in (
        'batch_size',
        'accumulate',
        'num_steps',
        'steps_per_dispatch',
        'log_every',
        'checkpoint_every',
        'keep_checkpoints',
    ):
      checks.check_at_least(f'train.{field}', getattr(self, field), 1)
    for field in ('eval_every', 'patience', 'gradient_clip'):
      checks.check_at_least(f'train.{field}', getattr(self, field), 0)
    checks.check_seed('train.seed', self.seed)
    _check_below_one('ema', self.ema)
    checks.check(
        self.num_steps % self.accumulate == 0,
        'train.num_steps',
        self.num_steps,
        f'a multiple of train.accumulate, {self.accumulate}: the last steps '
        'would change nothing',
    )
    checks.check(
        self.eval_every > 0 or not self.patience,
        'train.eval_every',
        self.eval_every,
        'at least 1 where train.patience counts evaluations',
    )
    self._check_optimizer()
    self._check_schedule()
    _check_patterns('embedding_parameters', [self.embedding_parameters])
    _check_patterns('freeze', self.freeze)

  def _check_optimizer(self) -> None:
    checks.check_choice('train.optimizer', self.optimizer, OPTIMIZERS)
    if self.embedding_optimizer:
      checks.check_choice(
          'train.embedding_optimizer',
          self.embedding_optimizer,
          OPTIMIZERS + ROW_OPTIMIZERS,
      )
    if self.touches_rows:
      for field, value in (('ema', 0.0), ('accumulate', 1)):
        checks.check(
            getattr(self, field) == value,
            f'train.{field}',
            getattr(self, field),
            f'{value} where train.embedding_optimizer is '
            f'{self.embedding_optimizer!r}: it would be of all rows of a '
            'table, in every step',
        )
    rate = self.learning_rate
    checks.check(rate > 0, 'train.learning_rate', rate, 'positive')
    for field in (
        'embedding_learning_rate',
        'weight_decay',
        'epsilon',
        'accumulator',
    ):
      checks.check_at_least(f'train.{field}', getattr(self, field), 0)
    _check_below_one('momentum', self.momentum)
    _check_below_one('beta2', self.beta2)
    used = {self.optimizer, self.embedding_optimizer} - {''}
    names = ' and '.join(sorted(used))
    decayed, only = used, ''
    if self.embedding_parameters.startswith('embeddings/'):
      decayed = {self.optimizer}
      only = ', which tables of embeddings are spared' * (used != decayed)
    checks.check(
        not self.weight_decay or bool(decayed & set(_WITH_DECAY)),
        'train.weight_decay',
        self.weight_decay,
        f'0 with {names}; {", ".join(_WITH_DECAY)} have it{only}',
    )
    checks.check(
        not self.nesterov or bool(used & set(_WITH_NESTEROV)),
        'train.nesterov',
        self.nesterov,
        f'False with {names}; {", ".join(_WITH_NESTEROV)} have it',
    )
    checks.check(
        not self.nesterov or self.momentum > 0,
        'train.momentum',
        self.momentum,
        'positive where train.nesterov is on',
    )

  def _check_schedule(self) -> None:
    checks.check_choice('train.schedule', self.schedule, SCHEDULES)
    for field in ('warmup_steps', 'decay_every'):
      checks.check_at_least(f'train.{field}', getattr(self, field), 0)
    rate = self.decay_rate
    checks.check(0 < rate <= 1, 'train.decay_rate', rate, 'in (0, 1]')
    checks.check_rate('train.end_share', self.end_share)
    checks.check(self.power > 0, 'train.power', self.power, 'positive')
    piecewise = self.schedule == 'piecewise'
    for field in ('boundaries', 'multiples'):
      value = getattr(self, field)
      rule = f'empty where train.schedule is {self.schedule!r}'
      checks.check(piecewise or not value, f'train.{field}', value, rule)
    if not self.boundaries:
      if piecewise or self.schedule == 'exponential':
        checks.check_at_least('train.decay_every', self.decay_every, 1)
    else:
      checks.check(
          self.decay_every == 0,
          'train.decay_every',
          self.decay_every,
          '0 where train.boundaries say when the rate changes',
      )
    ascending = itertools.pairwise((self.warmup_steps, *self.boundaries))
    checks.check(
        all(one < next_ for one, next_ in ascending),
        'train.boundaries',
        self.boundaries,
        f'ascending, the first above train.warmup_steps, {self.warmup_steps}',
    )
    checks.check(
        len(self.multiples) in (0, len(self.boundaries)),
        'train.multiples',
        self.multiples,
        f'empty or one for each of the {len(self.boundaries)} train.boundaries',
    )
    for value in self.multiples:
      checks.check_at_least('train.multiples', value, 0)


def _check_below_one(field: str, value: float) -> None:
  checks.check_rate(f'train.{field}', value)
  checks.check(value < 1, f'train.{field}', value, 'below 1')


def _check_patterns(field: str, patterns: Iterable[str]) -> None:
  for pattern in patterns:
    why = '' if pattern else 'it is empty'
    try:
      re.compile(pattern)
    except re.error as error:
      why = str(error)
    rule = f'a regular expression ({why})'
    checks.check(not why, f'train.{field}', pattern, rule)
