# SPDX-License-Identifier: Apache-2.0
"""A study: which trial comes next, what became of each; kept by Optuna.

The only file that knows Optuna. Its journal lies in the folder of the study,
and every line of it is on the disk before anything builds on it. A trial that
is running holds a lock which the system releases with its process: one whose
lock is free was killed, and whoever comes next goes on with it.

What a trial is to try comes of the seed, its number and what the journal holds
then. A study of one process that was killed is therefore the study that was
not, trial by trial.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os
import time
from typing import Any, TextIO
import warnings

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax import space
from dropoutnet_jax.tuning import locks
from dropoutnet_jax.tuning import spaces

FILE = 'study.log'
_LOCK = '.lock'
_NAME = 'study'
_WORKED = 'worked'  # of a trial: [begin, end] of each start, in seconds
_TREES = 32  # of fANOVA
_FEWEST = 4  # whole trials that importances are told of


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a study may take in all, over all of its starts and processes.

  Attributes:
    trials: begun, or None.
    minutes: after which no trial begins, or None. Time in which no process
      works on a trial does not count, time in which several do counts once.
  """

  trials: int | None
  minutes: float | None

  def is_spent(self, trials: int, seconds: float) -> bool:
    """Whether no other trial may begin."""
    return (self.trials is not None and trials >= self.trials) or (
        self.minutes is not None and seconds >= 60 * self.minutes
    )


@dataclasses.dataclass
class Claim:
  """A trial that this process works on.

  Attributes:
    number: from 0 on.
    point: what it tries.
    is_resumed: whether a process that has ended began it.
    lock: held until the trial is told.
    trial: Optuna's.
    worked: [begin, end] of earlier starts, and of this one.
  """

  number: int
  point: dict[str, Any]
  is_resumed: bool
  lock: TextIO
  trial: Any
  worked: list[list[float]]


def optuna() -> Any:
  """The package.

  Raises:
    UserError: if it is not installed.
  """
  try:
    import optuna as found  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.UserError(
        f"tune needs Optuna ({error}): pip install '.[tune]', or "
        "'dropoutnet_jax[tune]' where that is installed."
    ) from error
  found.logging.set_verbosity(found.logging.WARNING)
  return found


class Study:
  """What the processes of one study share."""

  def __init__(
      self,
      workdir: str,
      entries: Sequence[space.Entry],
      seed: int,
      prune_after: int | None,
  ):
    """Opens the journal of a folder, or begins one.

    Args:
      workdir: of the study.
      entries: what is tuned.
      seed: of what is drawn.
      prune_after: the step after which trials are pruned that are worse than
        the median of those before; None prunes nothing.

    Raises:
      UserError: if the journal is damaged.
    """
    self._entries, self._seed = entries, seed
    self._workdir = workdir
    self._optuna = optuna()
    self.path = os.path.join(workdir, FILE)
    pruner = self._optuna.pruners.NopPruner()
    if prune_after is not None:
      pruner = self._optuna.pruners.MedianPruner(
          n_startup_trials=5, n_warmup_steps=prune_after + 1
      )
    with self.locked(), self._told_of_damage():
      journal = self._optuna.storages.journal
      lock: Any = _JournalLock(f'{self.path}{_LOCK}')
      with locks.wait_for(f'{self.path}{_LOCK}'):
        _repair(self.path)
      backend = journal.JournalFileBackend(self.path, lock)
      self._study = self._optuna.create_study(
          storage=self._optuna.storages.JournalStorage(backend),
          study_name=_NAME,
          direction='maximize',
          load_if_exists=True,
          pruner=pruner,
      )
      self.trials()

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """While one process decides, the others wait."""
    with locks.wait_for(os.path.join(self._workdir, _LOCK)):
      yield

  def trials(self) -> list[Any]:
    """Optuna's trials that have begun, by number."""
    found = self._study.get_trials(deepcopy=False)
    return [x for x in found if x.state != self._state('WAITING')]

  def claim(self, budget: Budget, own: dict[str, Any] | None) -> Claim | None:
    """The next trial for this process, or None: there is nothing to begin.

    Args:
      budget: of the study.
      own: the point that the experiment itself is, which is trial 0.

    Returns:
      First a trial whose process has ended, then a new one.
    """
    with self.locked():
      trials = self.trials()
      for frozen in trials:
        if frozen.state == self._state('RUNNING'):
          lock = locks.take(self._lock_of(frozen.number))
          if lock is not None:
            trial = self._resumed(frozen)
            return self._claim(trial, lock, is_resumed=True)
      if budget.is_spent(len(trials), seconds(trials)):
        return None
      number = len(trials)
      if number == 0 and own is not None:
        params = {
            entry.field: spaces.label(own[entry.field])
            if isinstance(entry, space.Choice)
            else own[entry.field]
            for entry in self._entries
            if entry.field in own
        }
        self._study.enqueue_trial(params, skip_if_exists=True)
      self._study.sampler = self._sampler(number)
      trial = self._study.ask()
      lock = locks.take(self._lock_of(trial.number))
      assert lock is not None, 'nobody else can know of this trial'
      return self._claim(trial, lock, is_resumed=False)

  def others(self) -> int:
    """How many trials run, where this process has none."""
    return sum(x.state == self._state('RUNNING') for x in self.trials())

  def report(self, claim: Claim, step: int, value: float) -> bool:
    """Notes an evaluation; returns whether the trial is to be pruned.

    One that was noted before, by a start that was killed, is judged again.
    """
    known = self._study.get_trials(deepcopy=False)[claim.number]
    if step not in known.intermediate_values:
      claim.trial.report(value, step)
    self._note_time(claim)
    return bool(claim.trial.should_prune())

  def complete(self, claim: Claim, value: float) -> None:
    """Ends a trial with its best value."""
    self._tell(claim, 'COMPLETE', value)

  def prune(self, claim: Claim) -> None:
    """Ends a trial early."""
    self._tell(claim, 'PRUNED')

  def fail(self, claim: Claim, why: str) -> None:
    """Ends a trial that has no value, for a reason that is kept."""
    claim.trial.set_user_attr('why', why)
    self._tell(claim, 'FAIL')

  def best(self) -> Any:
    """Optuna's trial with the highest value, the first of equals, or None."""
    whole = [x for x in self.trials() if x.state == self._state('COMPLETE')]
    return max(whole, key=lambda x: (x.value, -x.number), default=None)

  def point_of(self, trial: Any) -> dict[str, Any]:
    """What a trial has tried."""
    point: dict[str, Any] = {}
    for entry in self._entries:
      if spaces.holds(entry, point) and entry.field in trial.params:
        point[entry.field] = self._value(entry, trial.params[entry.field])
    return point

  def importances(self) -> dict[str, float]:
    """Share of the variance of values that each field explains (fANOVA).

    Hutter, Hoos & Leyton-Brown, "An Efficient Approach for Assessing
    Hyperparameter Importance", ICML 2014. Of fields that every trial has: a
    condition would leave few trials to learn from. Empty where too little is
    known.
    """
    names = [entry.field for entry in self._entries if entry.when is None]
    whole = [x for x in self.trials() if x.state == self._state('COMPLETE')]
    if len(whole) < _FEWEST or len({x.value for x in whole}) == 1:
      return {}
    importance = self._optuna.importance
    evaluator = importance.FanovaImportanceEvaluator(
        n_trees=_TREES, seed=self._seed
    )
    try:
      found = importance.get_param_importances(
          self._study, evaluator=evaluator, params=names
      )
    except (RuntimeError, ValueError):  # trees that never split
      return {}
    return {name: float(value) for name, value in found.items()}

  def _state(self, name: str) -> Any:
    return self._optuna.trial.TrialState[name]

  def _lock_of(self, number: int) -> str:
    return os.path.join(self._workdir, 'trials', f'{number:04d}.lock')

  def _sampler(self, number: int) -> Any:
    """Of one trial: no state to keep but the journal."""
    word = np.random.SeedSequence((self._seed, number)).generate_state(1)[0]
    grouped = any(entry.when is not None for entry in self._entries)
    with warnings.catch_warnings():
      warnings.simplefilter(
          'ignore', self._optuna.exceptions.ExperimentalWarning
      )
      return self._optuna.samplers.TPESampler(
          seed=int(word), multivariate=True, group=grouped
      )

  def _resumed(self, frozen: Any) -> Any:
    """A trial to go on with; what it tries is in the journal, or drawn anew.

    Drawn from what was known then, so that it is what would have been drawn.
    """
    self._study.sampler = self._sampler(frozen.number)
    return self._optuna.trial.Trial(self._study, frozen._trial_id)

  def _claim(self, trial: Any, lock: TextIO, is_resumed: bool) -> Claim:
    point: dict[str, Any] = {}
    for entry in self._entries:
      if spaces.holds(entry, point):
        point[entry.field] = self._value(entry, _suggest(trial, entry))
    worked = [list(x) for x in trial.user_attrs.get(_WORKED, [])]
    now = time.time()
    claim = Claim(
        trial.number, point, is_resumed, lock, trial, [*worked, [now, now]]
    )
    self._note_time(claim)
    return claim

  def _value(self, entry: space.Entry, drawn: Any) -> Any:
    """What is tried, of what Optuna has drawn."""
    if isinstance(entry, space.Choice):
      return {spaces.label(value): value for value in entry.values}[drawn]
    return (
        spaces.rounded(entry, drawn)
        if isinstance(entry, space.Float)
        else drawn
    )

  def _note_time(self, claim: Claim) -> None:
    claim.worked[-1][1] = time.time()
    claim.trial.set_user_attr(_WORKED, claim.worked)

  def _tell(self, claim: Claim, state: str, value: float | None = None) -> None:
    self._note_time(claim)
    self._study.tell(claim.trial, value, state=self._state(state))
    claim.lock.close()

  @contextlib.contextmanager
  def _told_of_damage(self) -> Iterator[None]:
    """Turns what Optuna raises for a damaged journal into one message."""
    try:
      yield
    except (ValueError, KeyError, TypeError, IndexError) as error:
      raise errors.UserError(
          f'{self.path} is damaged ({errors.cause(error)}). Choose another '
          '--workdir, or bring the file back from a copy.'
      ) from error


def _suggest(trial: Any, entry: space.Entry) -> Any:
  """Draws a value of an entry, or finds the one that was drawn."""
  if isinstance(entry, space.Choice):
    labels = [spaces.label(value) for value in entry.values]
    return trial.suggest_categorical(entry.field, labels)
  if isinstance(entry, space.Int):
    return trial.suggest_int(
        entry.field, entry.low, entry.high, step=entry.step, log=entry.log
    )
  return trial.suggest_float(
      entry.field, entry.low, entry.high, step=entry.step or None, log=entry.log
  )


def seconds(trials: Sequence[Any]) -> float:
  """Time in which one process or more worked on a trial."""
  spans = sorted(
      span for trial in trials for span in trial.user_attrs.get(_WORKED, [])
  )
  total, until = 0.0, 0.0
  for begin, end in spans:
    total += max(end - max(begin, until), 0.0)
    until = max(until, end)
  return total


class _JournalLock:
  """Optuna's lock of its journal: free at once where its holder is killed."""

  def __init__(self, path: str):
    self._path = path
    self._held = contextlib.ExitStack()

  def acquire(self) -> bool:
    self._held.enter_context(locks.wait_for(self._path))
    return True

  def release(self) -> None:
    self._held.close()


def _repair(path: str) -> None:
  """Drops a last line that was cut off while it was written."""
  if not os.path.exists(path):
    return
  with open(path, 'rb+') as file:
    content = file.read()
    file.truncate(content.rfind(b'\n') + 1)
