# SPDX-License-Identifier: Apache-2.0
"""Warm start: what is taken from another run, what stays, and what is told."""

import gc
import os
import re
import shutil

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import validation
from dropoutnet_jax.training import warm_start
from tests import command_line
from tests import stop_after

SHAPES = {'tower/bias': (2,), 'tower/kernel': (3, 2), 'scale': ()}


def make_mesh(num_devices=1):
  return parallel.make_mesh(config.MeshConfig(), num_devices)


def tree_of(shapes, value):
  """{'a/b': shape} as nested dicts, every array full of one value."""
  tree = {}
  for name, shape in shapes.items():
    *parents, last = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = jnp.full(shape, value, jnp.float32)
  return tree


def make_state(value, shapes=None, stats=None, averages=True, step=0):
  """Parameters `value`, statistics a tenth more; averages 100 more."""
  shapes = SHAPES if shapes is None else shapes
  stats = {'norm/mean': (2,)} if stats is None else stats
  plus = value + 100
  return state_lib.TrainState(
      step=jnp.int32(step),
      params=tree_of(shapes, value),
      batch_stats=tree_of(stats, value + 0.1),
      opt_state={'count': jnp.int32(step), 'mu': tree_of(shapes, -1.0)},
      ema_params=tree_of(shapes, plus) if averages else {},
      ema_batch_stats=tree_of(stats, plus + 0.1) if averages else {},
  )


def save(folder, *states, values=None):
  """A run folder with the states as checkpoints; returns its path."""
  saved = checkpoints_lib.Checkpoints(str(folder), keep=9)
  for state, value in zip(states, values or [None] * len(states)):
    saved.save(state, int(state.step), value)
  saved.close()
  return str(folder)


def flat(tree):
  return {n: np.asarray(x) for n, x in state_lib.by_name(tree).items()}


def assert_full(tree, value):
  """Every array of the tree is full of this value."""
  for name, array in flat(tree).items():
    np.testing.assert_array_equal(array, np.float32(value), name)


@pytest.mark.parametrize('theirs', [True, False])
@pytest.mark.parametrize('mine', [True, False])
@pytest.mark.parametrize('num_devices', [1, 8])
def test_averages_are_taken_where_there_are_some(
    tmp_path, theirs, mine, num_devices
):
  """Into parameters and averages; nothing else of a fresh state changes."""
  folder = save(tmp_path, make_state(1.0, averages=theirs, step=40))
  mesh = make_mesh(num_devices)
  fresh = parallel.place(make_state(5.0, averages=mine), mesh)
  state, note = warm_start.load(folder, fresh)
  value = 101.0 if theirs else 1.0
  assert_full(state.params, value)
  assert_full(state.batch_stats, value + 0.1)
  if mine:
    assert_full(state.ema_params, value)
    assert_full(state.ema_batch_stats, value + 0.1)
  else:
    assert state.ema_params == {} and state.ema_batch_stats == {}
  assert int(state.step) == 0
  jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
  assert jax.tree.structure(state) == jax.tree.structure(fresh)
  for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(fresh)):
    assert one.dtype == two.dtype
    assert one.sharding.is_equivalent_to(two.sharding, one.ndim)
  kind = 'averaged parameters' if theirs else 'parameters'
  assert note == (
      f'Warm start from checkpoint 40 of {folder}: 3 of 3 arrays of parameters '
      f'are its {kind}.'
  )


def test_the_best_checkpoint_counts_else_the_newest(tmp_path):
  states = [make_state(float(n), averages=False, step=n) for n in (1, 2, 3)]
  for name, values, expected in (
      ('best', [0.1, 0.9, 0.3], 2),
      ('newest', None, 3),
  ):
    folder = save(tmp_path / name, *states, values=values)
    state, note = warm_start.load(folder, make_state(7.0))
    assert_full(state.params, expected)
    assert f'checkpoint {expected} of' in note


def test_what_has_another_shape_or_name_stays_fresh_and_is_named(tmp_path):
  folder = save(tmp_path, make_state(1.0, averages=False, step=2))
  shapes = {'tower/bias': (2,), 'tower/kernel': (4, 2), 'extra/bias': (2,)}
  fresh = make_state(5.0, shapes, {'norm/mean': (3,), 'norm/var': (2,)})
  state, note = warm_start.load(folder, fresh)
  found, averages = flat(state.params), flat(state.ema_params)
  np.testing.assert_array_equal(found.pop('tower/bias'), [1.0, 1.0])
  np.testing.assert_array_equal(averages.pop('tower/bias'), [1.0, 1.0])
  assert_full(found, 5.0)
  assert_full(averages, 105.0)
  assert_full(state.batch_stats, 5.1)
  assert note.endswith(
      '1 of 3 arrays of parameters are its parameters; fresh are extra/bias '
      '(not there), tower/kernel ([4, 2] here, [3, 2] there).'
  )


def test_a_note_names_no_more_than_eight(tmp_path):
  folder = save(tmp_path, make_state(1.0))
  shapes = SHAPES | {f'new{n}': (1,) for n in range(10)}
  _, note = warm_start.load(folder, make_state(5.0, shapes))
  assert note.endswith('new7 (not there) and 2 more.')


@pytest.fixture(scope='module')
def origin(tmp_path_factory):
  """A run folder with one checkpoint without averages."""
  state = make_state(1.0, averages=False, step=3)
  return save(tmp_path_factory.mktemp('origin'), state)


SHAPE = st.lists(st.integers(1, 3), max_size=2).map(tuple)


@given(st.dictionaries(st.sampled_from([*SHAPES, 'tower/x', 'x']), SHAPE))
@hypothesis_settings(max_examples=12)
def test_any_fresh_state_takes_what_is_equal_and_nothing_else(origin, shapes):
  fresh = make_state(5.0, shapes, {}, averages=False)
  same = {name for name, shape in shapes.items() if SHAPES.get(name) == shape}
  if not same:
    with pytest.raises(errors.UserError, match='no array of checkpoint 3'):
      warm_start.load(origin, fresh)
    return
  state, note = warm_start.load(origin, fresh)
  for name, array in flat(state.params).items():
    assert array.shape == shapes[name]
    np.testing.assert_array_equal(array, 1.0 if name in same else 5.0)
  assert f'{len(same)} of {len(shapes)} arrays' in note


def test_nothing_that_fits_is_refused_with_both_lists(origin):
  fresh = make_state(5.0, {'tower/kernel': (4, 2), 'other': (2,)})
  with pytest.raises(errors.UserError) as caught:
    warm_start.load(origin, fresh)
  assert str(caught.value) == (
      f'config.train.warm_start: no array of checkpoint 3 of {origin} has name '
      'and shape of a parameter here. Here: other [2], tower/kernel [4, 2]. '
      'There: scale [], tower/bias [2], tower/kernel [3, 2].'
  )


@pytest.mark.parametrize('kind', ['nothing', 'empty', 'file', 'torn'])
def test_a_folder_without_a_checkpoint_is_refused(tmp_path, kind):
  folder = tmp_path / 'run'
  if kind == 'empty':
    folder.mkdir()
  elif kind == 'file':
    folder.write_text('x')
  elif kind == 'torn':
    (folder / 'checkpoints' / '3.orbax-checkpoint-tmp').mkdir(parents=True)
  for function in (
      lambda: warm_start.check(str(folder)),
      lambda: warm_start.load(str(folder), make_state(5.0)),
  ):
    with pytest.raises(errors.UserError) as caught:
      function()
    assert str(caught.value) == (
        f"config.train.warm_start is '{folder}', but there is no whole "
        'checkpoint in its folder checkpoints. Name the run folder (--workdir) '
        "of a training that has begun, or '' for a fresh start."
    )


# Orbax leaves coroutines behind when one of them fails; they are collected
# within this test.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('damage', ['lost', 'zeros', 'other'])
def test_a_damaged_checkpoint_is_told_with_its_folder(tmp_path, damage):
  state = make_state(1.0, step=3)
  saved, folder = checkpoints_lib.Checkpoints(str(tmp_path)), str(tmp_path)
  saved.save({'x': jnp.zeros(2)} if damage == 'other' else state, 3)
  saved.close()
  data = tmp_path / 'checkpoints' / '3' / 'default'
  if damage == 'lost':
    shutil.rmtree(data)
  elif damage == 'zeros':
    for path in data.rglob('*'):
      if path.is_file():
        path.write_bytes(bytes(len(path.read_bytes())))
  with pytest.raises(errors.UserError) as caught:
    warm_start.load(folder, make_state(5.0))
  message = str(caught.value)
  assert f'checkpoint 3 of {folder} cannot be read: ' in message
  assert message.endswith(
      'It is damaged, or no checkpoint of a training; remove '
      f'{tmp_path}/checkpoints/3 to take another one.'
  )
  assert '\n' not in message
  del caught
  gc.collect()


# In whole runs.


def test_a_fresh_run_starts_there_and_a_resumed_one_never_looks(
    make_runtime, monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(validation, 'validate', lambda runtime, state: {})
  origin, whole, cut = (str(tmp_path / n) for n in ('origin', 'whole', 'cut'))
  for folder in (origin, whole, cut):
    os.mkdir(folder)
  loop.run(make_runtime(num_steps=6), origin, signals.StopRequest())
  runtime = make_runtime(num_steps=6, warm_start=origin, seed=0)
  assert 'Warm start' not in capsys.readouterr().out

  def last(folder, step):
    saved = checkpoints_lib.Checkpoints(folder, read_only=True)
    state = saved.restore(step, runtime.fresh_state())
    saved.close()
    return state

  loop.run(runtime, whole, signals.StopRequest())
  assert re.search(
      rf'Warm start from checkpoint 6 of {origin}: (\d+) of \1 arrays of '
      r'parameters are its averaged parameters\.\n',
      capsys.readouterr().out,
  )
  first, end = last(whole, 0), last(origin, 6)
  for name in ('params', 'ema_params'):
    jax.tree.map(
        np.testing.assert_array_equal, getattr(first, name), end.ema_params
    )
  for name in ('batch_stats', 'ema_batch_stats'):
    jax.tree.map(
        np.testing.assert_array_equal, getattr(first, name), end.ema_batch_stats
    )
  jax.tree.map(
      np.testing.assert_array_equal,
      first.opt_state,
      runtime.fresh_state().opt_state,
  )
  assert loop.run(runtime, cut, stop_after.StopAfter(1)).step == 3
  assert 'Warm start' in capsys.readouterr().out
  shutil.rmtree(origin)
  loop.run(runtime, cut, signals.StopRequest())
  assert 'Warm start' not in capsys.readouterr().out
  jax.tree.map(np.testing.assert_array_equal, last(cut, 6), last(whole, 6))
  assert runtime.train_steps()._cache_size() == 1


def test_from_the_command_line_to_other_content(finished):
  """The content of items is narrower: one array of its tower stays fresh."""
  del finished
  ended = command_line.call(
      '--config=tiny.py',
      '--config.features.item[1].rank=3',
      '--config.train.warm_start=run',
      '--config.train.freeze=user_tower/Dense_1/.*',
      '--workdir=next',
  )
  assert (ended.status, ended.err) == (0, '')
  found = re.search(
      r'Warm start from checkpoint 4 of run: (\d+) of (\d+) arrays of '
      r'parameters are its parameters; fresh are '
      r'item_tower/Dense_0/kernel \(\[(\d+), 8\] here, \[(\d+), 8\] there\)\.',
      ended.out,
  )
  taken, total, here, there = map(int, found.groups())
  assert total - taken == 1 and there - here == 1


MISTAKES = {
    'no run': (
        ['--config.train.warm_start=nowhere'],
        "config.train.warm_start is 'nowhere', but there is no whole check",
    ),
    'itself': (
        ['--config.train.warm_start=next'],
        "config.train.warm_start is 'next', but there is no whole checkpoint",
    ),
    'nothing fits': (
        [
            '--config.train.warm_start=run',
            '--config.model.hidden=(9,)',
            '--config.model.rank=5',
        ],
        'no array of checkpoint 4 of run has name and shape of a parameter',
    ),
    'freeze': (
        ['--config.train.freeze=item_towr/.*'],
        "config.train.freeze[0] is 'item_towr/.*', which is the whole name of ",
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_leave_everything_as_it_was(finished, folder, mistake):
  del finished
  arguments, message = MISTAKES[mistake]
  before = command_line.snapshot(folder)
  ended = command_line.call('--config=tiny.py', '--workdir=next', *arguments)
  command_line.check(ended, 2, message)
  assert command_line.snapshot(folder) == before
