# SPDX-License-Identifier: Apache-2.0
"""Steps on eight devices: what they send, what they hold, what they compute.

Each objective is compiled for meshes of 8x1 and 2x4 devices ('data' and
'model'). Of the compiled program is read what travels; the same program then
runs for fifty steps beside that of one device. So does one of two processes.
"""

import functools
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import parallel
from dropoutnet_jax import teacher
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import validation
from benchmarks import collectives
from tests import tiny_run
from tests.training import objectives
from tests.training import two_processes

STEPS, SIZE, RANK = objectives.STEPS, objectives.SIZE, objectives.RANK
MESHES = {'8x1': (8, 1), '2x4': (8, 4), '1x1': (1, 1)}


class Programs:
  """Compiles and runs, each program once."""

  def __init__(self, problem):
    self._problem = problem
    self.compiled = functools.cache(self._compile)
    self.ran = functools.cache(self._run)

  def _compile(self, objective, mesh):
    num_devices, model = MESHES[mesh]
    cfg = objectives.make_config(objective, model)
    runtime = runtime_lib.build(cfg, self._problem, num_devices=num_devices)
    assert runtime.notes() == []  # rows are split
    state = runtime.fresh_state()
    steps = runtime.train_steps().lower(state, runtime.tables, jnp.int32(STEPS))
    return runtime, state, steps.compile()

  def text(self, objective, mesh):
    return self.compiled(objective, mesh)[2].as_text()

  def _run(self, objective, mesh):
    """(runtime, last state, losses of all steps)."""
    runtime, state, steps = self.compiled(objective, mesh)
    state, losses = steps(state, runtime.tables, jnp.int32(STEPS))
    return runtime, state, jax.device_get(losses)


@pytest.fixture(scope='module')
def programs(labelled):
  return Programs(labelled)


CASES = [
    ('blocks', '8x1'),
    ('blocks', '2x4'),
    ('published', '8x1'),
    ('published', '2x4'),
    ('few', '8x1'),
    ('few', '2x4'),
]


@pytest.mark.parametrize('objective, mesh', CASES)
def test_fifty_steps_are_those_of_one_device(programs, objective, mesh):
  _, expected, losses = programs.ran(objective, '1x1')
  _, state, found = programs.ran(objective, mesh)
  assert_same_training(found, by_name(state), losses, by_name(expected))


def by_name(state):
  return state_lib.by_name(jax.device_get(state))


def assert_same_training(found, state, losses, expected):
  """Losses of all steps, and all that changes but for the optimiser's."""
  assert state['step'] == expected['step'] == STEPS
  assert found.keys() == losses.keys()
  for name, value in losses.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  assert state.keys() == expected.keys()
  parts = ('params', 'batch_stats', 'ema_params')
  names = [name for name in expected if name.startswith(parts)]
  assert {name.split('/')[0] for name in names} == set(parts)
  for name in names:
    gap = np.linalg.norm(state[name] - expected[name])
    assert gap <= 1e-5 * np.linalg.norm(expected[name]), name


@pytest.fixture(scope='module')
def two(launcher, labelled, tmp_path_factory):
  """What two processes of a device each have come to, and the warnings."""
  folder = tmp_path_factory.mktemp('two')
  (folder / two_processes.PROBLEM).write_bytes(pickle.dumps(labelled))
  address = f'127.0.0.1:{tiny_run.free_port()}'
  script = pathlib.Path(two_processes.__file__)
  runs = [
      launcher.start_script(script, folder, (address, str(n), str(folder)))
      for n in range(2)
  ]
  for run in runs:
    assert run.finish() == 0, run.output()
  found = [dict(np.load(folder / f'{n}.npz')) for n in range(2)]
  return found, runs[0].output()


@pytest.mark.parametrize('objective', two_processes.MODEL)
def test_fifty_steps_of_two_processes_are_those_of_one(
    programs, two, objective
):
  _, expected, losses = programs.ran(objective, '1x1')
  for arrays in two[0]:
    of_it = {
        name.removeprefix(f'{objective}/'): x
        for name, x in arrays.items()
        if name.startswith(f'{objective}/')
    }
    found = {k: x for k, x in of_it.items() if not k.startswith('state/')}
    state = {
        k.removeprefix('state/'): x for k, x in of_it.items() if k not in found
    }
    assert_same_training(found, state, losses, by_name(expected))


def test_two_processes_with_half_of_a_side_each_teach_like_one(labelled, two):
  sizes = len(labelled.user.ids), len(labelled.item.ids)
  mesh = parallel.make_mesh(config_lib.MeshConfig(), num_devices=1)
  expected = teacher.train(
      labelled.split.train, *sizes, two_processes.TEACHER, 0, mesh
  )
  for side in ('user', 'item'):
    factors = getattr(expected, side)
    assert np.abs(factors).max() > 0.1
    for arrays in two[0]:
      np.testing.assert_allclose(arrays[f'teacher/{side}'], factors, atol=1e-5)


def test_a_checkpoint_damaged_for_one_process_is_skipped_by_both(two):
  """Only one of them reads what was cut; the other does not wait for it."""
  found, output = two
  for arrays in found:
    assert arrays['step'] == 1
    np.testing.assert_array_equal(arrays['table'], two_processes.TABLE)
  assert 'Warning: checkpoint 2 in ' in output
  assert 'is damaged and is skipped for 1' in output


def test_processes_place_their_parts_of_tables_and_compare_none(two):
  """Else each device would have to hold every table whole, for a moment."""
  for arrays in two[0]:
    assert arrays['gathered'].max() == 1  # of what is asked of all of them
    np.testing.assert_array_equal(arrays['put_back'], two_processes.TABLE + 1)


def test_their_table_of_results_is_the_same(programs):
  """Where tables are split over 'model' they are not gathered for it."""
  found = []
  for mesh in MESHES:
    runtime, state, _ = programs.ran('few', mesh)
    values = validation.validate(runtime, state)
    outcome = loop.Outcome(STEPS, 1.0)
    results, _ = results_lib.evaluate(runtime, state, outcome)
    found.append([values, results['splits'], results['warm_up']])
  flat = [
      {jax.tree_util.keystr(path): x for path, x in leaves}
      for leaves, _ in map(jax.tree_util.tree_flatten_with_path, found)
  ]
  *others, one = flat
  assert len(one) > 100 and len(others) == 2
  for other in others:
    assert other == pytest.approx(one, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    'objective, mesh', [*CASES, ('many', '8x1'), ('histories', '2x4')]
)
def test_what_travels_is_of_the_batch_and_of_no_table(
    programs, objective, mesh
):
  text = programs.text(objective, mesh)
  sent = collectives.collectives(text)
  assert {x.kind for x in sent} <= {
      'all-gather',
      'all-reduce',
      'collective-permute',
      'reduce-scatter',
  }
  # 60 users and 80 items, and what is drawn from; no side of a batch.
  of_tables = {60, 61, 80, 81}
  model = MESHES[mesh][1]
  of_parts = {60 // model, 80 // model}  # nor is what a device has of a table
  for one in sent:
    for array in one.arrays:
      assert not of_tables & set(array.shape), one.text
      assert len(array.shape) < 2 or array.shape[0] not in of_parts, one.text
  split = model > 1
  if split:
    tables = programs.compiled(objective, mesh)[0].tables
    for side, rows in ((tables.user, 60), (tables.item, 80)):
      for name in ('content', 'preference', 'factors', 'history_total'):
        table = getattr(side, name)
        assert table.addressable_data(0).shape == (rows // model, RANK), name
  for one in collectives.operations(text):
    for array in one.arrays:
      if split and len(array.shape) > 1:
        assert not of_tables & set(array.shape), one.text
      if objective not in ('blocks', 'published'):  # these score no negatives
        assert sorted(array.shape)[-2:] != [SIZE, SIZE], one.text


def test_items_travel_once_and_negatives_do_not(programs):
  """Eight devices send each other the batch's embeddings, whatever it costs
  to compare them.
  """
  few, many = (programs.text(name, '8x1') for name in ('few', 'many'))
  assert collectives.bytes_by_kind(few) == collectives.bytes_by_kind(many)
  arrays = [
      (one.kind, array)
      for one in collectives.collectives(many)
      for array in one.arrays
  ]
  gathered = [x.shape for kind, x in arrays if kind == 'all-gather']
  assert [x for x in gathered if len(x) > 1] == [(SIZE, RANK)]
  for _, array in arrays:
    assert np.prod(array.shape) <= SIZE * RANK
