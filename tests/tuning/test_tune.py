# SPDX-License-Identifier: Apache-2.0
"""Whole studies: killed and not, what they write, how trials may end."""

import json
import os
import shutil
import signal

import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.tuning import prepared
from dropoutnet_jax.tuning import study as study_lib
from dropoutnet_jax.tuning import trials as trials_lib
from dropoutnet_jax.tuning import tune
from tests import tiny_run

pytest.importorskip('optuna')
pytestmark = pytest.mark.usefixtures('quick_compilation', 'one_device')

_TINY = tiny_run.__file__
# Beside those of the tiny run: half of the steps, and little to evaluate.
_SETTINGS = {'train.checkpoint_every': 10, 'train.eval_every': 10}
_SETTINGS |= {'train.num_steps': 20, 'evaluation.warm_up_counts': ()}
_SETTINGS |= {'evaluation.bootstrap': 50}
_SETTINGS |= {'evaluation.mixed': False, 'evaluation.slices': False}
_COMMAND = ('tune', '--trials=3')
_COMMAND += tuple(f'--config.{k}={v}' for k, v in _SETTINGS.items())


@pytest.fixture(scope='module')
def launcher(tmp_path_factory):
  return tiny_run.Launcher(tmp_path_factory.mktemp('launcher'))


@pytest.fixture(scope='module')
def whole(launcher, tmp_path_factory):
  """The folder of a study that nobody has disturbed."""
  run = launcher.start(tmp_path_factory.mktemp('whole') / 'study', *_COMMAND)
  assert run.finish() == 0, run.output()
  return run.workdir


def _request(workdir, **changes):
  cfg = config_tree.with_values(tiny_run.get_config(), _SETTINGS)
  return tune.Request(cfg, _TINY, str(workdir), **{'trials': 3} | changes)


def _table(folder):
  return json.loads((folder / 'tuning.json').read_text())


def _without_clock(table):
  rows = [{**row, 'seconds': None} for row in table['trials']]
  return rows, table['best'], table['importances'], table['splits']


def test_a_killed_study_ends_as_if_nothing_had_been(whole, launcher, tmp_path):
  """Killed in the middle of a trial; two processes then go on with it."""
  folder = tmp_path / 'study'
  run = launcher.start(folder, *_COMMAND)
  trial = tiny_run.Run(folder / 'trials' / '0001', run.process, run._log)
  trial.wait_for_step(10)  # one evaluation is told
  os.kill(run.process.pid, signal.SIGKILL)
  assert run.finish() == -signal.SIGKILL
  log = (folder / 'study.log').read_text()
  assert not (folder / 'tuning.json').exists()
  both = [launcher.start(folder, *_COMMAND) for _ in range(2)]
  for one in both:
    assert one.finish() == 0, one.output()
  out = ''.join(one.output() for one in both)
  assert 'trial 0: ' not in out  # it was finished
  assert out.count('trial 1, which a process has left') == 1
  assert out.count('The winner is trial') == 1
  assert (folder / 'study.log').read_text().startswith(log)
  assert _without_clock(_table(folder)) == _without_clock(_table(whole))


def test_trials_do_not_know_the_test_sets(whole):
  for number in range(3):
    folder = whole / 'trials' / f'{number:04d}'
    assert sorted(path.name for path in folder.iterdir()) == [
        '.lock',
        'config.json',
        'metrics.jsonl',
        'tensorboard',
    ]
    names = {name for row in telemetry.read_metrics(folder) for name in row}
    assert 'validation/cold_item/ndcg@5' in names
  results = json.loads((whole / 'best' / 'results.json').read_text())
  assert {'cold_item', 'cold_item_validation'} == set(results['splits'])
  assert len(list(whole.rglob('results.json'))) == 1


def test_the_winner_is_the_best_trial_once_more(whole):
  table = _table(whole)
  best = table['trials'][table['best']]
  assert best['value'] == max(row['value'] for row in table['trials'])
  assert trials_lib.curve(str(whole / 'best')) == trials_lib.curve(
      str(whole / 'trials' / f'{best["number"]:04d}')
  )
  assert table['own'] == 0
  assert table['trials'][0]['point'] == {
      'train.learning_rate': 0.01,
      'dropout.item_rate': 0.5,
  }


def test_the_file_of_the_winner_is_the_original_and_what_differs(whole):
  path = whole / 'tiny_tuned.py'
  found = config_tree.fields(experiment.load(str(path)))
  original = config_tree.fields(tiny_run.get_config())
  table = _table(whole)
  point = table['trials'][table['best']]['point']
  # What the command said is in the file as well.
  expected = original | _SETTINGS | point | {'name': 'tiny_tuned'}
  assert found == expected
  text = path.read_text()
  assert text.count('\n  cfg.') == len(_SETTINGS) + len(point) + 1
  assert (
      f'\n  cfg.train.learning_rate = {point["train.learning_rate"]}\n' in text
  )
  assert text.startswith('r"""tiny with the settings that `tune` found.\n')
  kept = json.loads((whole / 'best' / 'config.json').read_text())
  assert config_tree.fields(config_tree.from_dict(kept)) == found


def test_the_report_says_what_was_tried(whole):
  text = (whole / 'report' / 'report.md').read_text()
  page = (whole / 'report' / 'index.html').read_text()
  for part in (
      '3 trials of 2 settings, compared by mean NDCG on the validation sets',
      '## What mattered',
      '3 complete, 0 pruned, 0 failed, 0 running',
      '[cold_item](<../best/report/index.html>)',
      'prepared data 1, teachers 1, sparse parts 0',
      ' tune --trials=3 ',
  ):
    assert part in text, part
  for row in _table(whole)['trials']:
    assert f'{row["value"]:.4f}' in text
  assert page.count('<svg') == 3  # history, and one for each setting


@pytest.fixture
def again(whole, tmp_path):
  """A copy of the folder of a finished study."""
  return shutil.copytree(whole, tmp_path / 'study')


def _never(*unused, **named):
  raise AssertionError('nothing is to be done here')


def test_a_finished_study_is_not_tested_again(again, monkeypatch):
  monkeypatch.setattr(commands, 'train', _never)
  monkeypatch.setattr(trials_lib, 'run', _never)
  before = _table(again)
  table = tune.run(_request(again))
  assert _without_clock(table) == _without_clock(before)


def test_a_larger_budget_goes_on_and_keeps_the_winner_of_before(
    again, monkeypatch
):
  better = lambda cfg, folder, parts, watch: trials_lib.Ended(2.0, False)
  monkeypatch.setattr(trials_lib, 'run', better)
  seen = []

  def train(cfg, folder, data_dir):
    seen.append((cfg.name, os.path.basename(folder)))
    return json.loads((again / 'best_before_1' / 'results.json').read_text())

  monkeypatch.setattr(commands, 'train', train)
  table = tune.run(_request(again, trials=4))
  assert table['best'] == 3 and len(table['trials']) == 4
  assert seen == [('tiny_tuned', 'best')]


def test_other_settings_are_another_study(again):
  with pytest.raises(errors.UserError) as caught:
    tune.run(_request(again, prune=False))
  assert 'differs in --prune (True there, False now)' in str(caught.value)


@pytest.fixture
def begun(again, monkeypatch):
  """The folder of a study that has no trial yet."""
  (again / 'study.log').unlink()
  for name in ('trials', 'best', 'report'):
    shutil.rmtree(again / name)
  return again


def test_a_trial_that_cannot_be_trained_is_no_end(begun, monkeypatch):
  number = iter(range(9))

  def run(*unused):
    if next(number) == 0:
      raise errors.UserError('the loss is not finite.')
    return trials_lib.Ended(0.5, False)

  monkeypatch.setattr(trials_lib, 'run', run)
  monkeypatch.setattr(
      commands, 'train', lambda *_: {'splits': {}, 'train_seconds': 1.0}
  )
  table = tune.run(_request(begun))
  assert [row['state'] for row in table['trials']] == [
      'failed',
      'complete',
      'complete',
  ]
  assert table['trials'][0]['why'] == 'the loss is not finite.'
  assert 'the loss is not finite' in (begun / 'report/report.md').read_text()


def test_when_all_trials_fail_the_reason_is_told(begun, monkeypatch):

  def run(*unused):
    raise errors.UserError('the loss is not finite.')

  monkeypatch.setattr(trials_lib, 'run', run)
  with pytest.raises(errors.UserError, match='The last 3 trials failed, and n'):
    tune.run(_request(begun, trials=9))
  monkeypatch.setattr(trials_lib, 'run', _never)
  with pytest.raises(errors.UserError, match='None of 3 trials has ended well'):
    tune.run(_request(begun))


def test_a_full_disk_is_no_fault_of_the_trial(begun, monkeypatch):

  def run(*unused):
    raise errors.UserError('cannot be written') from OSError(28, 'full')

  monkeypatch.setattr(trials_lib, 'run', run)
  with pytest.raises(errors.UserError, match='cannot be written'):
    tune.run(_request(begun))
  request = _request(begun)
  study = study_lib.Study(str(begun), tiny_run.get_space(), 0, 10)
  claim = study.claim(study_lib.Budget(request.trials, None), None)
  assert (claim.number, claim.is_resumed) == (0, True)
  claim.lock.close()


def test_a_pruned_trial_stops_and_stays_so(tmp_path):
  parts = prepared.Prepared(str(tmp_path / 'cache'), None)
  cfg = trials_lib.settings(
      tiny_run.changed(train={'eval_every': 8, 'checkpoint_every': 8})
  )
  folder, asked = str(tmp_path / 'trial'), []

  def watch(step, value):
    asked.append((step, value))
    return step >= 16

  ended = trials_lib.run(cfg, folder, parts, watch)
  assert ended == (max(value for _, value in asked), True)
  assert [step for step, _ in asked] == [8, 16]
  assert trials_lib.curve(folder) == asked
  # Killed before anybody noted it: the last evaluation is judged once more.
  assert trials_lib.run(cfg, folder, parts, watch) == ended
  assert asked[2:] == asked[1:2]
