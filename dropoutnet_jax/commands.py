# SPDX-License-Identifier: Apache-2.0
"""What `run.py` can do: one function per command, paths and configs in."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from typing import Any

import jax

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import report
from dropoutnet_jax.data import column_facts
from dropoutnet_jax.data import features
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import sources
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import examples
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.exploring import calibration_file
from dropoutnet_jax.exploring import masks
from dropoutnet_jax.run_report import pages
from dropoutnet_jax.serving import from_files
from dropoutnet_jax.training import checkpoints
from dropoutnet_jax.training import facts as facts_lib
from dropoutnet_jax.training import first_start
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import per_user
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import prepare_together
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.training import validation


def train(
    cfg: config.Config,
    workdir: str,
    data_dir: str | None = None,
    profile: bool = False,
) -> dict[str, Any]:
  """Trains a run, or goes on with it, and evaluates it.

  A finished run is only evaluated. Where the first start fails or is
  interrupted before its first checkpoint, nothing of it is left.

  Args:
    cfg: the experiment, validated.
    workdir: the run folder.
    data_dir: folder with one folder per data set.
    profile: writes a device trace of one dispatch.

  Returns:
    What results.json holds.

  Raises:
    UserError: for anything that the user can mend.
    Interrupted: if a signal ended the training; it says so.
  """
  with first_start.open_folder(workdir, cfg):
    problem = load_or_prepare(cfg, workdir, data_dir)
    check_evaluation(cfg, problem)
    runtime = build(cfg, problem, workdir)
    if cfg.evaluation.exploring:  # not after the last step
      masks.rates_of(cfg, runtime.tables)
    past = _past_outcome(workdir)
    if past.step == cfg.train.num_steps or past.reason:
      runtime.set_damaged_aside(workdir)  # whose last steps are done again
      past = _past_outcome(workdir)
    if past.step == cfg.train.num_steps or past.reason:
      why = past.reason or f'all {past.step} steps are done'
      say(f'{workdir} is finished ({why}); evaluating it.')
      return _evaluate(runtime, workdir, past, typed())
    if not past.step:
      parallel.on_writer(lambda: _check_space(runtime, workdir))
    with signals.StopRequest() as stop:
      outcome = loop.run(runtime, workdir, stop, profile)
    if outcome.interrupted:
      say(
          f'{outcome.reason}; saved after step {outcome.step} of '
          f'{cfg.train.num_steps}. The same command goes on from there.'
      )
      # One that came to another process has no name here.
      raise errors.Interrupted(signal.Signals[stop.name or 'SIGTERM'])
    if outcome.reason:
      say(f'Stopped early: {outcome.reason}.')
    return _evaluate(runtime, workdir, outcome, typed())


def say(text: str) -> None:
  """Prints a line, once for all processes of a run."""
  if parallel.is_writer():
    print(text, flush=True)


def load_or_prepare(
    cfg: config.Config, workdir: str, data_dir: str | None
) -> problem_lib.Problem:
  """The problem kept in the run folder; prepared first in a new folder."""
  problem = None
  exists = parallel.on_writer(lambda: problem_lib.exists(workdir))
  if parallel.anywhere(bool(exists)):
    parallel.on_writer(lambda: _tell_of_changed_files(cfg, workdir, data_dir))
  else:
    problem = prepare_together.run(cfg, data_dir, workdir)
    for note in problem.notes if problem else ():
      say(note)
  return problem_lib.load(workdir) if problem is None else problem


def _tell_of_changed_files(
    cfg: config.Config, workdir: str, data_dir: str | None
) -> None:
  """Says if the user's tables are newer than what the run made of them."""
  if cfg.data.name != 'tables':
    return
  changed = own_tables.changed_since(
      cfg.data.tables, data_dir, problem_lib.written(workdir)
  )
  if changed:
    say(
        f'{errors.listed(changed, 3, "files")} changed after {workdir} was '
        'begun, which goes on with what was read then. For the new content '
        'name another --workdir.'
    )


def check_evaluation(cfg: config.Config, problem: problem_lib.Problem) -> None:
  """Raises UserError for what would be told long after, with train.select_by.

  Also where nothing is held out, so that the table would be empty.
  """
  held_out = problem.split.evaluation
  if not any(len(pairs) for pairs in held_out.values()):
    raise errors.UserError(
        'Nothing is held out, so that nothing could be evaluated. Raise one of '
        'config.data.cold_item_share, cold_user_share and warm_share.'
    )
  if 'ease' in cfg.evaluation.baselines:
    ease.check_size(*(len(rows) for rows in problem.split.train_rows()))
  names = validation.metric_names(cfg, problem)
  if cfg.train.select_by and not names:
    raise errors.UserError(
        f'config.train.select_by is {cfg.train.select_by!r}, but there are no '
        "validation sets. Set config.data.validation to 'keep_out'."
    )
  validation.selection_value(dict.fromkeys(names, 0.0), cfg.train)


def _check_space(runtime: runtime_lib.Runtime, workdir: str) -> None:
  """Raises UserError where the disk has no room for the checkpoints."""
  state = jax.eval_shape(runtime.fresh_state)
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  # The newest, the best and one being written; a little for all else.
  wanted = (runtime.cfg.train.keep_checkpoints + 2) * size + 2**20
  free = shutil.disk_usage(workdir).free
  if free < wanted:
    raise errors.UserError(
        f'{workdir}: {free / 1e6:.1f} MB are free, but the checkpoints of this '
        f'run take up to {wanted / 1e6:.1f} MB. Free space, choose another '
        '--workdir, or lower config.train.keep_checkpoints.'
    )


def _past_outcome(workdir: str) -> loop.Outcome:
  """How far a run is, and why it stopped early if its results say so."""
  step, reason = 0, ''
  if os.path.isdir(os.path.join(workdir, 'checkpoints')):
    saved = checkpoints.Checkpoints(workdir, read_only=True)
    step = saved.latest_step() or 0
    saved.close()
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    # Results are made anew in any case; without them the loop finds out.
    path = os.path.join(workdir, 'results.json')
    with open(path, encoding='utf-8') as file:
      results = json.load(file)
    reason = results['stopped_early'] if results['last_step'] == step else ''
  rows = telemetry.read_metrics(workdir, step)
  return loop.Outcome(step, rows[-1]['seconds'] if rows else 0.0, reason)


def build(
    cfg: config.Config, problem: problem_lib.Problem, workdir: str
) -> runtime_lib.Runtime:
  """The runtime; its sparse part is fitted once and kept in the folder."""
  if not cfg.model.sparse.enabled:
    return runtime_lib.build(cfg, problem)

  def fit() -> None:
    if not sparse_file.exists(workdir):
      part = sparse_fit.fit(problem, cfg.model.sparse, cfg.train.seed)
      sparse_file.save(part, workdir)

  parallel.on_writer(fit)
  return runtime_lib.build(cfg, problem, sparse_file.load(workdir))


def evaluate(workdir: str, against: str | None = None) -> dict[str, Any]:
  """Evaluates the best checkpoint of a run folder, and nothing else.

  Args:
    workdir: the run folder.
    against: another one, evaluated before, that it is compared with user by
      user; None compares nothing.

  Returns:
    What results.json holds; with a comparison, 'against' is beside it.

  Raises:
    UserError: if a folder holds no run, or can't be written (the table has been
      printed then), or if the runs do not compare.
  """
  other = None if against is None else per_user.load(against)
  results = _evaluate_folder(workdir)
  if other is None:
    return results
  cfg = run_folder.load_config(workdir)
  num_draws = cfg.evaluation.bootstrap or config.EvaluationConfig.bootstrap
  found = per_user.compare(per_user.load(workdir), other, num_draws)
  if parallel.is_writer():
    report.print_against(found, workdir, str(against))
  return results | {'against': found}


def _evaluate_folder(workdir: str) -> dict[str, Any]:
  cfg = run_folder.load_config(workdir)
  cfg.mesh = parallel.fitting(cfg.mesh)
  problem = problem_lib.load(workdir)
  runtime = build(cfg, problem, workdir)
  trained_by = pages.command_of(workdir)
  return _evaluate(runtime, workdir, _past_outcome(workdir), trained_by)


def typed() -> str:
  """What was typed to start this process."""
  return shlex.join(['python', *sys.argv])


def _evaluate(
    runtime: runtime_lib.Runtime,
    workdir: str,
    outcome: loop.Outcome,
    command: str,
) -> dict[str, Any]:
  """Writes and shows results and report; `command` is what trained the run."""
  state = runtime.restore_best(workdir)
  results, users = results_lib.evaluate(runtime, state, outcome)
  scorer = runtime.scorer(state)
  collected = None
  if runtime.shares_evaluation:
    collected = _collect(runtime, scorer, workdir)

  def conclude() -> None:
    report.print_results(results)  # first: the folder may be read-only
    path = os.path.join(workdir, 'results.json')
    try:
      per_user.save(users, workdir)
      results_lib.write(workdir, results)
    except errors.UserError as error:
      why = getattr(error.__cause__, 'strerror', None) or error
      raise errors.UserError(
          f'{path} cannot be written: {why}. The table is whole; for the file '
          'make it possible to write there and evaluate again.'
      ) from error
    say(f'Written to {path}')
    if runtime.cfg.evaluation.exploring and runtime.shares_evaluation:
      say('Not calibrated for exploring: evaluate once more in one process.')
    elif runtime.cfg.evaluation.exploring:
      _calibrate(runtime, scorer, workdir, int(state.step))
    say(
        pages.say_where(
            lambda: _write_report(
                runtime,
                collected or _collect(runtime, scorer, workdir),
                workdir,
                results,
                command,
            )
        )
    )

  parallel.on_writer(conclude)
  return results


def _collect(
    runtime: runtime_lib.Runtime, scorer: model_scores.Scorer, workdir: str
) -> dict[str, Any]:
  """Users whom the model serves best and worst, for the report."""
  problem = runtime.problem
  names = features.load(workdir, 'item').sparse_names
  words = examples.content_words(problem.item, names)
  return examples.collect(problem, scorer, runtime.cfg.evaluation, words)


def _calibrate(
    runtime: runtime_lib.Runtime,
    scorer: model_scores.Scorer,
    workdir: str,
    step: int,
) -> None:
  """Keeps how sure scores of new items are; says why where that is unknown."""
  run = runtime.cfg, runtime.problem, scorer, step
  for note in calibration_file.keep(workdir, *run):
    say(note)


def _write_report(
    runtime: runtime_lib.Runtime,
    users: dict[str, Any],
    workdir: str,
    results: dict[str, Any],
    command: str,
) -> str:
  """Writes report/ into the run folder; returns the path of the page."""
  cfg, problem = runtime.cfg, runtime.problem
  extra = {
      'command': command,
      'facts': facts_lib.of_data(problem) | facts_lib.of_model(runtime),
      'users': users,
  }
  return pages.write_run(workdir, cfg, results, extra)


def recommend(workdir: str | None, output: str | None, **asked: Any) -> None:
  """Ranks items for users with the best checkpoint of a run folder.

  Args:
    workdir: the run folder, of a training that is finished or not.
    output: file that gets the lists.
    **asked: for whom, of what: other fields of `from_files.Request`.

  Raises:
    UserError: for whatever the user can mend; no file has changed then.
  """
  found = from_files.answer(workdir, from_files.Request(output, **asked))
  for note in found.notes:
    say(note)
  report.print_lists(found.lists, found.num_users)
  how = 'the best' if asked.get('policy') is None else 'slates'
  say(
      f'{found.num_rows:,} rows for {found.num_users:,} users, {how} of '
      f'{found.num_candidates:,} items by the model after step {found.step}.'
  )
  say(f'Written to {output}')


def describe(
    cfg: config.Config, workdir: str | None, data_dir: str | None
) -> dict[str, Any]:
  """What the data and the model are; trains nothing and keeps nothing.

  Args:
    cfg: the experiment, validated.
    workdir: a run folder to describe, with its own configuration; or None to
      describe `cfg` and read the data anew.
    data_dir: folder with one folder per data set.

  Raises:
    UserError: if the folder holds no run, or for what `prepare` finds.
  """
  if workdir:
    cfg, problem = run_folder.load_config(workdir), problem_lib.load(workdir)
    cfg.mesh = parallel.fitting(cfg.mesh)
  else:
    problem = prepare.prepare(cfg, data_dir, None)
  part = None
  if cfg.model.sparse.enabled:
    kept = workdir is not None and sparse_file.exists(workdir)
    part = (
        sparse_file.load(str(workdir))
        if kept
        else sparse_fit.fit(problem, cfg.model.sparse, cfg.train.seed)
    )
  runtime = runtime_lib.build(cfg, problem, part)
  facts = facts_lib.of_data(problem) | facts_lib.of_model(runtime)
  is_whole = cfg.data.mode == 'resident'  # else it is too much to read again
  if cfg.data.name == 'tables' and not workdir and is_whole:
    # Raw columns are not kept; a second look at them costs little.
    columns = column_facts.describe_schema(sources.load(cfg.data, data_dir))
    facts['columns'] = {
        f'{fact.side}, {fact.name}': fact.sentence() for fact in columns
    }
  facts['notes'] = [*problem.notes, *runtime.notes()]
  if parallel.is_writer():
    report.print_facts(facts)
  return facts
