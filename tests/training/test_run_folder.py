# SPDX-License-Identifier: Apache-2.0
"""A run folder belongs to one experiment, and to one run at a time."""

import builtins
import errno
import json
import os
import pathlib
import subprocess
import sys

import pytest

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


def begin(folder, cfg=EXPERIMENT):
  """Makes a folder in which a checkpoint has been written."""
  open_and_close(folder, cfg)
  (folder / 'checkpoints' / '0').mkdir(parents=True)


def test_a_new_folder_keeps_its_experiment(tmp_path):
  folder = tmp_path / 'runs' / 'new'
  open_and_close(folder)
  assert run_folder.read_config(str(folder)) == EXPERIMENT
  before = (folder / 'config.json').stat().st_mtime_ns
  open_and_close(folder)
  assert (folder / 'config.json').stat().st_mtime_ns == before


def test_an_empty_folder_will_do(tmp_path):
  open_and_close(tmp_path)
  assert (tmp_path / 'config.json').exists()


def test_another_experiment_is_refused_with_the_fields_that_differ(tmp_path):
  begin(tmp_path)
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
  begin(tmp_path)
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
  begin(tmp_path)
  other = tiny_run.get_config()
  other.features.item = other.features.item[:0]
  assert "features.item.0.column ('genre' there, None now)" in refusal(
      tmp_path, other
  )


# What a start that was killed while it prepared leaves.
PREPARED = (
    'config.json',
    'features.json',
    'features_user.npz',
    'problem.npz',
    'sparse_part.npz',
)


def test_what_was_only_prepared_makes_room_for_another_experiment(tmp_path):
  """SIGKILL can't be answered, and nothing that cost time is lost."""
  open_and_close(tmp_path)
  for name in PREPARED[1:]:
    (tmp_path / name).write_text('of the first')
  (tmp_path / 'metrics.jsonl').touch()  # made with the first checkpoint
  (tmp_path / 'checkpoints' / '0.orbax-checkpoint-tmp').mkdir(parents=True)
  open_and_close(tmp_path)  # the same experiment keeps it
  assert (tmp_path / 'problem.npz').read_text() == 'of the first'
  other = tiny_run.changed(train={'seed': 5})
  open_and_close(tmp_path, other)
  assert run_folder.read_config(str(tmp_path)) == other
  for name in PREPARED[1:]:
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    'name, content',
    [
        ('results.json', '{}'),
        ('metrics.jsonl', '{"step": 2}\n'),
        ('checkpoints/0/state', ''),
    ],
)
def test_what_was_trained_is_kept_even_without_the_rest(
    tmp_path, name, content
):
  open_and_close(tmp_path)
  (tmp_path / 'problem.npz').write_text('precious')
  (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / name).write_text(content)
  other = tiny_run.changed(train={'seed': 5})
  assert 'train.seed (0 there, 5 now)' in refusal(tmp_path, other)
  assert (tmp_path / 'problem.npz').read_text() == 'precious'
  assert (tmp_path / name).read_text() == content


def test_a_removal_that_is_killed_leaves_a_run_folder(tmp_path, monkeypatch):
  """config.json goes last; without it the rest would be somebody else's."""
  open_and_close(tmp_path)
  for name in PREPARED[1:]:
    (tmp_path / name).touch()
  gone = []
  real = pathlib.Path.unlink

  def unlink(path, **options):
    gone.append(path.name)
    real(path, **options)

  monkeypatch.setattr(pathlib.Path, 'unlink', unlink)
  run_folder.remove_prepared(str(tmp_path))
  assert set(gone) == set(PREPARED) and gone[-1] == 'config.json'


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


FOREIGN = (
    'thesis.tmp',
    'thesis.12.tmp',
    'config.json.tmp',
    'problem.npz.x.tmp',
)


@pytest.mark.parametrize('name', FOREIGN)
def test_temporary_files_of_others_are_theirs(tmp_path, name):
  mine = tmp_path / name
  mine.write_text('all of it')
  assert f'it has no config.json, but it holds {name}' in refusal(tmp_path)
  assert os.listdir(tmp_path) == [name]
  mine.unlink()
  open_and_close(tmp_path)
  mine.write_text('all of it')
  open_and_close(tmp_path)
  open_and_close(tmp_path, tiny_run.changed(train={'seed': 5}))
  run_folder.remove_prepared(str(tmp_path))
  assert mine.read_text() == 'all of it'
  assert sorted(os.listdir(tmp_path)) == sorted(['.lock', name])


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


@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize(
    'content, message',
    [
        ('[]', 'config is []; expected a section'),
        ('null', 'config is None; expected a section'),
        ('{}', "config lacks the field 'name'"),
        ('{"train": {"seed": 1}}', "config.train lacks the field 'batch_size'"),
    ],
)
def test_half_a_config_is_damaged_and_no_other_experiment(
    tmp_path, content, message, trained
):
  """Nor are its missing fields the defaults of today."""
  if trained:
    begin(tmp_path)
  (tmp_path / 'config.json').write_text(content)
  damaged = f'{tmp_path}/config.json is damaged: {message}'
  assert refusal(tmp_path).startswith(damaged)
  with pytest.raises(errors.UserError, match='is damaged'):
    run_folder.load_config(str(tmp_path))


def test_a_config_is_validated_before_anything_is_computed_from_it(tmp_path):
  open_and_close(tmp_path)
  path = tmp_path / 'config.json'
  path.write_text(path.read_text().replace('"seed": 0', '"seed": -1'))
  with pytest.raises(errors.UserError, match='damaged: config.*seed is -1'):
    run_folder.load_config(str(tmp_path))


@pytest.mark.parametrize('variant', ['', 'rolled'])
def test_a_folder_of_several_runs_points_at_them(tmp_path, variant):
  for seed in (1, 0):
    open_and_close(tmp_path / variant / f'train.seed={seed}')
  with pytest.raises(errors.UserError) as caught:
    run_folder.read_config(str(tmp_path))
  assert str(caught.value).endswith(
      'It holds 2 runs of a sweep or a comparison; name one of them, such as '
      f'--workdir={tmp_path / variant}/train.seed=0.'
  )


@pytest.mark.parametrize('name', ['file/run', 'x' * 300])
def test_no_folder_at_all_has_a_remedy(tmp_path, name):
  (tmp_path / 'file').touch()
  message = 'is no run folder: .*Name the folder of a training with --workdir'
  with pytest.raises(errors.UserError, match=message):
    run_folder.read_config(str(tmp_path / name))


def test_flatten_names_every_leaf():
  tree = {'a': {'b': [1, {'c': 2}], 'd': []}, 'e': None}
  assert run_folder.flatten(tree) == {
      'a.b.0': 1,
      'a.b.1.c': 2,
      'a.d': [],
      'e': None,
  }
  assert json.dumps(run_folder.flatten({})) == '{}'
