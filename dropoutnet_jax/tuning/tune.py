# SPDX-License-Identifier: Apache-2.0
"""`run.py tune`: trials until the budget is spent, then the winner once more.

Trials see the training rows and the validation sets; the test sets are not in
their folders. The winner is trained once more in WORKDIR/best as `train` does
it, and that is the only run that is evaluated on them.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import space as space_lib
from dropoutnet_jax import sweeps
from dropoutnet_jax.data import files
from dropoutnet_jax.run_report import pages
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import validation
from dropoutnet_jax.tuning import locks
from dropoutnet_jax.tuning import prepared
from dropoutnet_jax.tuning import spaces
from dropoutnet_jax.tuning import study as study_lib
from dropoutnet_jax.tuning import table as table_lib
from dropoutnet_jax.tuning import trials as trials_lib
from dropoutnet_jax.tuning import tuned_file

DEFAULT_TRIALS = 30
_IDENTITY = 'study.json'
_PREPARED = 'prepared'
_BEST = 'best'
_MOST_FAILURES = 3  # in a row, while no trial has ended well


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for; the last four fields are the flags of that name.

  Attributes:
    cfg: the experiment, validated.
    path: its file.
    workdir: of the study.
    data_dir: folder with one folder per data set.
    space: file with get_space(); None is the experiment's.
    trials: in all; None is DEFAULT_TRIALS, or any number within `minutes`.
    minutes: after which no trial begins, in all; None is any number.
    prune: whether trials are stopped that do worse than half of the others.
  """

  cfg: config.Config
  path: str
  workdir: str
  data_dir: str | None = None
  space: str | None = None
  trials: int | None = None
  minutes: float | None = None
  prune: bool = True


def run(request: Request) -> dict[str, Any] | None:
  """Works on a study until its budget is spent, then concludes it.

  Returns:
    What tuning.json holds; None where other processes still work on the study,
    the last of which concludes it.

  Raises:
    UserError: for whatever the user can mend; before anything is written where
      it can be known.
    Interrupted: if a signal came; the same command goes on.
  """
  budget = _budget(request)
  cfg = request.cfg
  spaces.check_selection(cfg)
  flag = '--config' if request.space is None else '--space'
  entries = spaces.load(request.space or request.path, flag)
  base = trials_lib.settings(cfg)
  spaces.check(base, entries)
  study_lib.optuna()
  _check_folder(request, entries)
  parts = prepared.Prepared(
      os.path.join(request.workdir, _PREPARED), request.data_dir
  )
  _begin(request, entries, base, parts)
  every = cfg.train.eval_every if request.prune else 0
  study = study_lib.Study(
      request.workdir, entries, cfg.train.seed, every or None
  )
  if request.prune and not every:
    commands.say(
        'Nothing is pruned: config.train.eval_every is 0, so that each trial '
        'is evaluated at its end alone.'
    )
  _work(request, study, budget, base, parts, spaces.own_point(cfg, entries))
  running = study.others()
  if running:
    commands.say(
        f'The budget is spent. Other processes still run {running} trial'
        f'{"s" * (running > 1)}; the last of them trains the winner.'
    )
    return None
  lock = locks.take(os.path.join(request.workdir, '.conclude.lock'))
  if lock is None:
    commands.say('Another process trains the winner.')
    return None
  with lock:
    return _conclude(request, study, entries, parts)


def _budget(request: Request) -> study_lib.Budget:
  trials, minutes = request.trials, request.minutes
  for name, value in (('trials', trials), ('minutes', minutes)):
    if value is not None and not 0 < value < float('inf'):
      raise errors.UserError(
          f'--{name}={value}: it must be above 0; it counts what earlier '
          'starts of the study did.'
      )
  if trials is None and minutes is None:
    trials = DEFAULT_TRIALS
  return study_lib.Budget(trials, minutes)


def _identity(
    request: Request, entries: list[space_lib.Entry]
) -> dict[str, Any]:
  """What a folder has to be of, to be gone on with."""
  made = {
      'config': json.loads(config_tree.to_json(request.cfg)),
      'get_space()': spaces.as_data(entries),
      '--prune': request.prune,
  }
  return json.loads(json.dumps(made))


def _check_folder(request: Request, entries: list[space_lib.Entry]) -> None:
  """Raises UserError if the folder holds another study or something else."""
  workdir = request.workdir
  path = os.path.join(workdir, _IDENTITY)
  try:
    names = sorted(os.listdir(workdir)) if os.path.exists(workdir) else []
  except OSError as error:
    raise errors.UserError(
        f'{workdir} cannot be read: {error.strerror}. Name another --workdir.'
    ) from error
  if not os.path.exists(path):
    others = [
        name
        for name in names
        if name not in ('.lock', _PREPARED)
        and not name.endswith(files.TEMPORARY)
    ]
    if others:
      raise errors.UserError(
          f'{workdir} is no folder of a study: it has no {_IDENTITY}, but it '
          f'holds {errors.listed(others, 3)}. Choose an empty or new --workdir.'
      )
    return
  try:
    with open(path, encoding='utf-8') as file:
      found = run_folder.flatten(json.load(file))
  except ValueError as error:
    raise errors.UserError(
        f'{path} is damaged: {error}. Choose another --workdir.'
    ) from error
  wanted = run_folder.flatten(_identity(request, entries))
  differing = [
      f'{name} ({found.get(name)!r} there, {wanted.get(name)!r} now)'
      for name in sorted(found.keys() | wanted.keys())
      if found.get(name) != wanted.get(name)
  ]
  if differing:
    raise errors.UserError(
        f'{workdir} holds another study; it differs in '
        + errors.listed(differing, 4, 'fields')
        + '. Choose another --workdir, or repeat the command of that study.'
    )


def _begin(
    request: Request,
    entries: list[space_lib.Entry],
    base: config.Config,
    parts: prepared.Prepared,
) -> None:
  """Prepares the experiment's own data, and makes the folder one of the study.

  So that what is wrong with data or validation sets is told before a trial.
  """
  path = os.path.join(request.workdir, _IDENTITY)
  if os.path.exists(path):
    return
  with _removed_if_it_fails(request.workdir):
    problem = parts.problem(base)
    if not validation.metric_names(base, problem):
      raise errors.UserError(
          'There are no validation sets to choose by. Raise '
          'config.data.validation_share of a published split, or one of '
          'config.data.cold_item_share, cold_user_share and warm_share.'
      )
    commands.check_evaluation(base, problem)
    files.write_json(path, _identity(request, entries))


@contextlib.contextmanager
def _removed_if_it_fails(workdir: str) -> Iterator[None]:
  """Leaves a folder that could not begin as it was."""
  path = pathlib.Path(workdir)
  missing = [folder for folder in (path, *path.parents) if not folder.exists()]
  try:
    yield
  except BaseException:
    shutil.rmtree(path / _PREPARED, ignore_errors=True)
    with contextlib.suppress(OSError):
      for folder in missing:
        folder.rmdir()
    raise


def _work(
    request: Request,
    study: study_lib.Study,
    budget: study_lib.Budget,
    base: config.Config,
    parts: prepared.Prepared,
    own: dict[str, Any] | None,
) -> None:
  """Runs trials while the budget lasts.

  Raises:
    UserError: if trials fail for a reason that others would fail for as well.
  """
  failures = 0
  while (claim := study.claim(budget, own)) is not None:
    with claim.lock:
      failed = _try(request, study, claim, base, parts)
    trials_lib.clear(table_lib.folder_of(request.workdir, claim.number))
    failures = failures + 1 if failed else 0
    if failures >= _MOST_FAILURES and study.best() is None:
      raise errors.UserError(
          f'The last {failures} trials failed, and none has ended well; the '
          f'newest: {failed}'
      )


def _try(
    request: Request,
    study: study_lib.Study,
    claim: study_lib.Claim,
    base: config.Config,
    parts: prepared.Prepared,
) -> str:
  """Runs one trial to its end; returns why it failed, or ''.

  Raises:
    UserError: for what is no fault of its settings; it is tried again.
  """
  again = ', which a process has left' if claim.is_resumed else ''
  commands.say(f'trial {claim.number}{again}: {spaces.shown(claim.point)}')
  try:
    ended = trials_lib.run(
        config_tree.with_values(base, claim.point),
        table_lib.folder_of(request.workdir, claim.number),
        parts,
        lambda step, value: study.report(claim, step, value),
    )
    if ended.value is None:
      raise errors.UserError('No evaluation gave a finite value.')
  except errors.UserError as error:
    if isinstance(error.__cause__, OSError):
      raise  # a full disk, a missing file
    study.fail(claim, str(error))
    commands.say(f'trial {claim.number} failed: {error}')
    return str(error)
  if ended.pruned:
    study.prune(claim)
  else:
    study.complete(claim, ended.value)
  _tell(study, claim, ended)
  return ''


def _tell(
    study: study_lib.Study, claim: study_lib.Claim, ended: trials_lib.Ended
) -> None:
  begin, end = claim.worked[-1]
  how = 'pruned at' if ended.pruned else 'validation'
  best = study.best()
  known = f', best {best.value:.4f} (trial {best.number})' if best else ''
  commands.say(
      f'trial {claim.number}: {how} {ended.value:.4f} in {end - begin:.1f} '
      f's{known}'
  )


def _conclude(
    request: Request,
    study: study_lib.Study,
    entries: list[space_lib.Entry],
    parts: prepared.Prepared,
) -> dict[str, Any]:
  """Trains the winner, writes its file, tuning.json and the report."""
  cfg, workdir = request.cfg, request.workdir
  best = study.best()
  if best is None:
    whys = [x.user_attrs.get('why', 'pruned') for x in study.trials()]
    raise errors.UserError(
        f'None of {len(whys)} trials has ended well; the last: {whys[-1]} '
        'Mend the space, and name another --workdir.'
    )
  point = study.point_of(best)
  winner = config_tree.with_values(cfg, point)
  winner.name = f'{cfg.name}_tuned'
  table = table_lib.make(study, cfg, entries, workdir)
  path = os.path.join(workdir, f'{winner.name}.py')
  _write_winner(request, winner, table, path)
  commands.say(
      f'The winner is trial {best.number}: {spaces.shown(point)}. It is '
      'trained once more, and evaluated on the test sets.'
  )
  folder = os.path.join(workdir, _BEST)
  if run_folder.differences(folder, winner):  # of a smaller budget
    os.rename(folder, _free_name(folder))
  one = sweeps.Run(best.number, folder, winner)
  results = sweeps.finished(one)
  if results is None:
    results = commands.train(winner, folder, request.data_dir)
  table |= {
      'command': commands.typed(),
      'file': os.path.basename(path),
      'prepared': parts.counts(),
      'splits': results['splits'],
  }
  target = os.path.join(workdir, table_lib.FILE)
  files.write_json(target, table)
  commands.say(f'Written to {target} and {path}')
  commands.say(
      pages.say_where(lambda: pages.write_tuning(workdir, table, _BEST))
  )
  return table


def _free_name(folder: str) -> str:
  number = 1
  while os.path.exists(f'{folder}_before_{number}'):
    number += 1
  return f'{folder}_before_{number}'


def _write_winner(
    request: Request, winner: config.Config, table: dict[str, Any], path: str
) -> None:
  rows = table['trials']
  best = rows[table['best']]
  found = [
      f'Validation ({table["metric"]}): {best["value"]:.4f}, trial '
      f'{best["number"]} of {len(rows)}.'
  ]
  own = table['own']
  if own is not None and rows[own]['value'] is not None:
    found.append(f'{request.cfg.name} itself: {rows[own]["value"]:.4f}.')
  original = experiment.load(request.path)
  tuned_file.write(path, winner, original, request.path, found)
