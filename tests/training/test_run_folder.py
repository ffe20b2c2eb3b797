# SPDX-License-Identifier: Apache-2.0
"""A run folder belongs to one experiment, and to one run at a time."""

import builtins
import errno
import json
import os
import subprocess
import sys

import pytest

from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax.training import run_folder
from tests import tiny_run

EXPERIMENT = tiny_run.get_config()


def open_and_close(folder, cfg=EXPERIMENT):
  with run_folder.open_folder(str(folder), cfg):
    pass


def refusal(folder, cfg=EXPERIMENT):
  with pytest.raises(errors.UserError) as caught:
    run_folder.open_folder(str(folder), cfg)
  return str(caught.value)


def test_a_new_folder_keeps_its_experiment(tmp_path):
  folder = tmp_path / 'runs' / 'new'
  open_and_close(folder)
  tree = run_folder.read_config(str(folder))
  assert config_tree.from_dict(tree) == EXPERIMENT
  before = (folder / 'config.json').stat().st_mtime_ns
  open_and_close(folder)
  assert (folder / 'config.json').stat().st_mtime_ns == before


def test_an_empty_folder_will_do(tmp_path):
  open_and_close(tmp_path)
  assert (tmp_path / 'config.json').exists()


def test_another_experiment_is_refused_with_the_fields_that_differ(tmp_path):
  open_and_close(tmp_path)
  other = tiny_run.changed(
      train={'learning_rate': 0.5}, model={'hidden': (8, 9)}
  )
  message = refusal(tmp_path, other)
  assert f'{tmp_path} holds another experiment' in message
  assert 'train.learning_rate (0.01 there, 0.5 now)' in message
  assert 'model.hidden.1 (None there, 9 now)' in message
  assert 'more fields' not in message
  assert 'Choose another --workdir' in message
  open_and_close(tmp_path)  # the refusal has not taken the lock along


def test_many_differences_are_counted(tmp_path):
  open_and_close(tmp_path)
  other = tiny_run.changed(
      train={
          name: getattr(EXPERIMENT.train, name) + 1
          for name in ('num_steps', 'seed', 'batch_size', 'log_every')
      }
      | {'eval_every': 5, 'warmup_steps': 3}
  )
  message = refusal(tmp_path, other)
  assert message.count(' there, ') == 4 and 'and 2 more fields' in message


def test_a_feature_more_is_another_experiment(tmp_path):
  open_and_close(tmp_path)
  other = tiny_run.get_config()
  other.features.item = other.features.item[:0]
  assert "features.item.0.column ('genre' there, None now)" in refusal(
      tmp_path, other
  )


@pytest.mark.parametrize('name', ['photo.jpg', 'results.json'])
def test_a_foreign_folder_is_refused_and_left_as_it_was(tmp_path, name):
  (tmp_path / name).write_text('precious')
  message = refusal(tmp_path)
  assert f'is no run folder: it has no config.json, but it holds {name}' in (
      message
  )
  assert os.listdir(tmp_path) == [name]


def test_what_a_kill_leaves_is_no_foreign_folder_and_goes_away(tmp_path):
  (tmp_path / '.lock').touch()
  (tmp_path / 'config.json.123.tmp').write_text('{"na')
  open_and_close(tmp_path)
  assert sorted(os.listdir(tmp_path)) == ['.lock', 'config.json']
  (tmp_path / 'problem.npz.77.tmp').write_bytes(b'half')
  open_and_close(tmp_path)
  assert sorted(os.listdir(tmp_path)) == ['.lock', 'config.json']


def test_one_run_at_a_time(tmp_path):
  with run_folder.open_folder(str(tmp_path), EXPERIMENT):
    message = refusal(tmp_path)
    assert f'{tmp_path} is in use by another run. Wait for it' in message
  open_and_close(tmp_path)


def test_a_killed_run_leaves_no_lock(tmp_path):
  """The lock is the system's, so that it dies with its owner."""
  open_and_close(tmp_path)
  hold = (
      'import fcntl, sys, time\n'
      f'f = open({str(tmp_path / ".lock")!r})\n'
      'fcntl.flock(f, fcntl.LOCK_EX)\n'
      'print("locked", flush=True)\n'
      'time.sleep(60)\n'
  )
  owner = subprocess.Popen(
      [sys.executable, '-c', hold], stdout=subprocess.PIPE, text=True
  )
  with owner:
    assert owner.stdout.readline() == 'locked\n'
    assert 'is in use by another run' in refusal(tmp_path)
    owner.kill()
  open_and_close(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path):
  path = tmp_path / 'file'
  path.write_text('precious')
  assert f'{path} cannot be written: File exists' in refusal(path)
  inside = path / 'run'
  assert f'{inside} cannot be written: Not a directory' in refusal(inside)
  assert path.read_text() == 'precious'


def test_a_read_only_folder(tmp_path, monkeypatch):
  def refuse(path, *unused, **also_unused):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

  monkeypatch.setattr(builtins, 'open', refuse)
  message = refusal(tmp_path)
  assert f'{tmp_path} cannot be written: Read-only file system' in message
  assert not os.listdir(tmp_path)


def test_a_missing_or_damaged_config_is_told(tmp_path):
  with pytest.raises(errors.UserError, match='is no run folder'):
    run_folder.read_config(str(tmp_path))
  (tmp_path / 'config.json').write_text('{"name": "ti')
  with pytest.raises(errors.UserError, match='config.json is damaged'):
    run_folder.read_config(str(tmp_path))
  assert 'config.json is damaged' in refusal(tmp_path)


def test_flatten_names_every_leaf():
  tree = {'a': {'b': [1, {'c': 2}], 'd': []}, 'e': None}
  assert run_folder.flatten(tree) == {
      'a.b.0': 1,
      'a.b.1.c': 2,
      'a.d': [],
      'e': None,
  }
  assert json.dumps(run_folder.flatten({})) == '{}'
