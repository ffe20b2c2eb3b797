# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: which are kept, what is in them, and what damage does."""

import gc
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import checkpoints as lib
from dropoutnet_jax.training import state as state_lib


def make_state(step=0, width=3, seed=0):
  """A small state with every kind of leaf and the empty parts."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.float32(rng.normal(size=shape))
  return state_lib.TrainState(
      step=jnp.int32(step),
      params={'tower': {'kernel': draw(width, 2), 'bias': draw(2)}},
      batch_stats={},
      opt_state=({'mu': draw(width, 2)}, (), {'count': jnp.int32(step)}),
      ema_params={},
  )


def save_all(folder, values, keep=2):
  """Saves steps 1, 2, ... with validation values (None for none)."""
  saved = lib.Checkpoints(str(folder), keep)
  for number, value in enumerate(values, start=1):
    saved.save(make_state(number), number, value)
  saved.close()


def reopen(folder):
  return lib.Checkpoints(str(folder), read_only=True)


def kept(folder):
  """Numbers of the whole checkpoints on disk, and the best of them."""
  names = os.listdir(folder / 'checkpoints')
  assert all(name.isdigit() for name in names), names
  saved = reopen(folder)
  best = saved.best_step()
  saved.close()
  return sorted(map(int, names)), best


@pytest.mark.parametrize(
    'values, keep, expected',
    [
        ([None, None, None, None], 2, ([3, 4], 4)),
        ([0.5, 0.1, 0.2, 0.3], 2, ([1, 3, 4], 1)),
        ([0.1, 0.9, 0.2, 0.3, 0.4], 1, ([2, 5], 2)),
        ([0.1, 0.2, 0.3], 1, ([3], 3)),
        ([0.7, None, None, None], 1, ([1, 4], 1)),
        ([0.7, 0.7, 0.1, 0.1], 1, ([2, 4], 2)),  # of equals the later
        ([float('nan'), 0.2, float('nan'), None], 1, ([2, 4], 2)),
        ([-3.0, -2.0, -5.0], 1, ([2, 3], 2)),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, values, keep, expected):
  save_all(tmp_path, values, keep)
  assert kept(tmp_path) == expected


def test_the_best_is_known_to_the_runs_that_come_after(tmp_path):
  """A manager that forgot the old values would prune the best one."""
  for number, value in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
    saved = lib.Checkpoints(str(tmp_path), keep=1)
    assert saved.latest_step() == (number - 1 or None)
    saved.save(make_state(number), number, value)
    saved.close()
  assert kept(tmp_path) == ([2, 5], 2)


def test_a_state_comes_back_bit_for_bit(tmp_path):
  state = make_state(7)
  saved = lib.Checkpoints(str(tmp_path))
  saved.save(state, 7)
  saved.close()
  saved = reopen(tmp_path)
  assert saved.latest_step() == saved.best_step() == 7
  found = saved.restore(7, make_state(seed=1))
  saved.close()
  assert jax.tree.structure(found) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_number_is_saved_once(tmp_path):
  """The first state stays: it is the same one, bit for bit, in any case."""
  saved = lib.Checkpoints(str(tmp_path))
  saved.save(make_state(1, seed=0), 1)
  saved.save(make_state(1, seed=5), 1)
  found = saved.restore(1, make_state())
  saved.close()
  np.testing.assert_array_equal(
      found.params['tower']['kernel'], make_state(1).params['tower']['kernel']
  )


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
  """It is written in the background; the next step reuses its memory."""
  size = 1_000_000
  overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
  state = {'x': jnp.arange(size, dtype=jnp.float32)}
  saved = lib.Checkpoints(str(tmp_path))
  saved.save(state, 1)
  for _ in range(20):
    state = {'x': overwrite(state['x'])}
  jax.block_until_ready(state)
  saved.close()
  saved = reopen(tmp_path)
  found = saved.restore(1, {'x': jnp.zeros(size)})
  saved.close()
  np.testing.assert_array_equal(found['x'], np.arange(size, dtype=np.float32))


def test_a_killed_save_leaves_the_one_before_and_is_cleared_away(tmp_path):
  save_all(tmp_path, [None, None])
  folder = tmp_path / 'checkpoints'
  torn = folder / '3.orbax-checkpoint-tmp'
  shutil.copytree(folder / '2', torn)
  (torn / 'commit_success.txt').unlink(missing_ok=True)
  saved = reopen(tmp_path)
  assert saved.latest_step() == 2
  saved.close()
  assert torn.exists()  # whoever only reads changes nothing
  saved = lib.Checkpoints(str(tmp_path))
  assert saved.latest_step() == 2
  saved.save(make_state(3), 3)
  saved.close()
  assert kept(tmp_path) == ([2, 3], 3)


def test_reading_makes_no_folder(tmp_path):
  with pytest.raises(errors.UserError, match='has no checkpoints; train it'):
    reopen(tmp_path / 'run')
  assert not os.listdir(tmp_path)


def test_a_new_folder_has_no_newest(tmp_path):
  saved = lib.Checkpoints(str(tmp_path))
  assert saved.latest_step() is None and saved.best_step() is None
  saved.close()


# Orbax leaves coroutines behind when one of them fails; they are collected
# within this test.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('damage', ['other model', 'lost file', 'zeros'])
def test_damage_is_told_with_the_number_and_the_folder(tmp_path, damage):
  save_all(tmp_path, [None, None])
  template = make_state()
  folder = tmp_path / 'checkpoints' / '2' / 'default'
  if damage == 'other model':
    template = make_state(width=4)
  elif damage == 'lost file':
    shutil.rmtree(folder)
  else:
    for path in folder.rglob('*'):
      if path.is_file():
        path.write_bytes(bytes(len(path.read_bytes())))
  saved = reopen(tmp_path)
  with pytest.raises(errors.UserError) as caught:
    saved.restore(2, template)
  message = str(caught.value)
  assert 'Checkpoint 2 in' in message and str(tmp_path) in message
  assert 'remove its folder (' in message and message.endswith('an older one.')
  assert '\n' not in message and len(message) < 500 + 2 * len(str(tmp_path))
  saved.close()
  saved = reopen(tmp_path)  # the older one is whole
  assert int(saved.restore(1, make_state()).step) == 1
  saved.close()
  del caught
  gc.collect()


@pytest.mark.parametrize('content', ['x', '[1]', '{"validation": "x"}', '{}'])
def test_damaged_metrics_are_skipped_as_damaged_states_are(
    tmp_path, capsys, content
):
  save_all(tmp_path, [0.5, 0.75])
  path = tmp_path / 'checkpoints' / '2' / 'metrics' / 'metrics'
  path.write_text(content)
  saved = reopen(tmp_path)
  assert saved.best_step() == saved.latest_step() == 1
  assert saved.restore_best(make_state())[1] == 1
  said = capsys.readouterr().err
  assert f'checkpoint 2 in {tmp_path}' in said and 'skipped for 1' in said
  lib.Checkpoints(str(tmp_path)).close()
  assert kept(tmp_path) == ([1], 1)
  (tmp_path / 'checkpoints' / '1' / 'metrics' / 'metrics').write_text(content)
  for read_only in (True, False):
    with pytest.raises(errors.UserError, match='No checkpoint in .* is whole'):
      lib.Checkpoints(str(tmp_path), read_only=read_only)


def largest_file(folder):
  """Of a checkpoint: the one that holds its arrays."""
  files = [path for path in folder.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def test_one_cut_in_half_is_skipped_for_the_one_before(tmp_path, capfd):
  """And out of the way of the run that goes on and saves its number again."""
  save_all(tmp_path, [None, 0.5, 0.75], keep=3)
  folder = tmp_path / 'checkpoints'
  for _ in range(2):  # also the second time
    path = largest_file(folder / '3' / 'default')
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    saved = reopen(tmp_path)
    for restore in (saved.restore_newest, saved.restore_best):
      state, number = restore(make_state())
      assert number == int(state.step) == 2
      assert f'checkpoint 3 in {folder} is damaged' in capfd.readouterr().err
    assert sorted(os.listdir(folder)) == ['1', '2', '3']  # nothing is moved
    saved = lib.Checkpoints(str(tmp_path), keep=3)
    state, number = saved.restore_newest(make_state())
    assert number == int(state.step) == saved.latest_step() == 2
    said = capfd.readouterr().err
    assert 'Warning: checkpoint 3 in' in said and 'skipped for 2 (' in said
    assert saved.best_step() == 2
    saved.save(make_state(3), 3, 0.75)
    saved.close()
    assert kept(tmp_path) == ([1, 2, 3], 3)
    assert reopen(tmp_path).restore_newest(make_state())[1] == 3
  aside = tmp_path / 'damaged_checkpoints'
  assert sorted(os.listdir(aside)) == ['3.0', '3.1']


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_missing_file_is_as_bad_and_of_none_that_is_whole_is_told(
    tmp_path, capfd
):
  save_all(tmp_path, [None, None])
  folder = tmp_path / 'checkpoints'
  largest_file(folder / '2' / 'default').unlink()
  assert reopen(tmp_path).restore_newest(make_state())[1] == 1
  assert 'skipped for 1' in capfd.readouterr().err
  (folder / '1' / 'default' / '_METADATA').unlink()
  for read_only in (True, False):
    saved = lib.Checkpoints(str(tmp_path), read_only=read_only)
    with pytest.raises(errors.UserError, match='Checkpoint 2 in .* damaged'):
      saved.restore_newest(make_state())
    saved.close()
  assert sorted(os.listdir(folder)) == ['1', '2']
  gc.collect()


def test_a_state_moves_to_other_numbers_of_devices_and_back(tmp_path):
  """From eight to two, to one, and back; 'model' has two of the eight."""
  state = make_state(3)
  for step, (devices, model) in enumerate([(8, 2), (2, 1), (1, 1), (8, 1)]):
    mesh = parallel.make_mesh(config.MeshConfig(model=model), devices)
    template = parallel.place(make_state(seed=1), mesh)
    if step:
      saved = reopen(tmp_path)
      placed = saved.restore(step - 1, template)
    else:
      placed = parallel.place(state, mesh)
    for leaf, like in zip(jax.tree.leaves(placed), jax.tree.leaves(template)):
      assert leaf.sharding == like.sharding
    jax.tree.map(np.testing.assert_array_equal, placed, state)
    saved = lib.Checkpoints(str(tmp_path))
    saved.save(placed, step)
    saved.close()


def test_a_new_folder_has_nothing_to_restore(tmp_path):
  saved = lib.Checkpoints(str(tmp_path))
  assert saved.restore_newest(make_state()) is None
  saved.close()
