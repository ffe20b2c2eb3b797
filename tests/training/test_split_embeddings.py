# SPDX-License-Identifier: Apache-2.0
"""Learnt tables on eight devices: the steps of one, and no table moves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import table_shards
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from benchmarks import collectives
from tests import tiny_run
from tests import toy_tokens

STEPS = 50
IDS, ROWS = 40_000, 40_064  # a multiple of 128
MESHES = {'2x4': (8, 4), '8x1': (8, 1), '1x1': (1, 1)}


class Programs:
  """Compiles and runs, each program once."""

  def __init__(self, problem):
    item = dataclasses.replace(toy_tokens.MAKER[0], num_ids=IDS)
    user = dataclasses.replace(toy_tokens.USER_PREFERENCE[0], num_ids=IDS)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(toy_tokens, 'USER_PREFERENCE', (user,))
      self.problem = toy_tokens.with_tokens(problem, (), (item,))
    self.built = functools.cache(self._build)
    self.compiled = functools.cache(self._compile)
    self.ran = functools.cache(self._run)

  def _build(self, optimizer, mesh):
    num_devices, model = MESHES[mesh]
    cfg = tiny_run.changed(
        mesh={'model': model},
        objective={'pairing': 'published'},
        train={
            'batch_size': 64,
            'num_steps': STEPS,
            'steps_per_dispatch': STEPS,
            'embedding_optimizer': optimizer,
            'embedding_learning_rate': 3e-3,
            'ema': 0.0 if optimizer == 'lazy_adam' else 0.9,
        },
    )
    cfg.objective.embedding_regularization = 0.1
    return runtime_lib.build(cfg, self.problem, num_devices=num_devices)

  def _compile(self, optimizer, mesh):
    runtime = self.built(optimizer, mesh)
    count = jnp.int32(STEPS)
    state = runtime.abstract_state()
    return runtime.train_steps().lower(state, runtime.tables, count).compile()

  def _run(self, optimizer, mesh, cuts=(STEPS,)):
    """(last state, losses of all steps), in calls that end at the cuts."""
    runtime, program = (x(optimizer, mesh) for x in (self.built, self.compiled))
    state, losses, done = runtime.fresh_state(), [], 0
    for cut in cuts:
      state, found = program(state, runtime.tables, jnp.int32(cut - done))
      losses.append(np.asarray(found['loss/total'])[: cut - done])
      done = cut
    return state, np.concatenate(losses)


@pytest.fixture(scope='module')
def programs(problem):
  return Programs(problem)


def tables_of(tree):
  """Leaves that have the rows of the large table, by name."""
  found = state_lib.by_name(tree)
  return {
      name: x for name, x in found.items() if name.endswith('embeddings/maker')
  }


@pytest.mark.parametrize('optimizer', ['adam', 'lazy_adam'])
def test_fifty_steps_are_those_of_one_device(programs, optimizer):
  expected, losses = programs.ran(optimizer, '1x1')
  state, found = programs.ran(optimizer, '2x4')
  np.testing.assert_allclose(found, losses, rtol=1e-5)
  one, many = (state_lib.by_name(jax.device_get(x)) for x in (expected, state))
  assert one.keys() == many.keys()
  for name, value in one.items():
    gap = np.linalg.norm(many[name] - value)
    assert gap <= 1e-5 * np.linalg.norm(value), name
  tables = tables_of(state)
  # Parameters, both moments, and the average that lazy Adam has not.
  assert len(tables) == (3 if optimizer == 'lazy_adam' else 4)
  for table in tables.values():
    assert table.addressable_data(0).shape == (ROWS // 4, 3)
  start = programs.built(optimizer, '2x4').fresh_state()
  moved = np.any(
      many['params/embeddings/maker']
      != np.asarray(start.params['embeddings']['maker']),
      axis=1,
  )
  assert 50 < moved.sum() < 300  # of rows that 60 users and 80 items have
  for leaf in jax.tree.leaves(dataclasses.replace(state, opt_state=())):
    assert leaf.is_fully_replicated != (leaf.shape[:1] == (ROWS,))


def test_of_a_large_table_nothing_moves(programs):
  """Read from the program: rows are written into the memory of the table."""
  program = programs.compiled('lazy_adam', '2x4')
  shapes = {(ROWS, 3), (ROWS // 4, 3)}
  found = [
      one
      for one in collectives.operations(program.as_text())
      if shapes & {array.shape for array in one.arrays}
  ]
  kinds = {one.kind for one in found}
  assert kinds <= {
      'call',
      'fusion',
      'get-tuple-element',
      'parameter',
      'scatter',
      'tuple',
      'while',
  }
  fusions = [one.text for one in found if one.kind == 'fusion']
  assert all('scatter' in text for text in fusions)
  table = 4 * 3 * ROWS // 4
  memory = program.memory_analysis()
  assert 3 * table < memory.alias_size_in_bytes < 4 * table
  assert memory.temp_size_in_bytes < table


@pytest.mark.parametrize('optimizer', ['adam', 'lazy_adam'])
def test_what_travels_is_of_the_batch(programs, optimizer):
  """Also where the optimiser goes through whole tables, and their gradient."""
  program = programs.compiled(optimizer, '2x4')
  table = 4 * 3 * ROWS // 4
  for one in collectives.collectives(program.as_text()):
    for array in one.arrays:
      assert array.num_bytes < table // 10, one.text


def test_a_run_goes_on_bit_for_bit_and_on_other_devices(programs, tmp_path):
  whole, losses = programs.ran('lazy_adam', '2x4')
  state, found = programs.ran('lazy_adam', '2x4', (7, 30, STEPS))
  np.testing.assert_array_equal(found, losses)
  jax.tree.map(np.testing.assert_array_equal, state, whole)
  saved = checkpoints_lib.Checkpoints(str(tmp_path))
  saved.save(state, STEPS)
  for mesh in MESHES:
    template = programs.built('lazy_adam', mesh).abstract_state()
    again, step = saved.restore_newest(template)
    assert step == STEPS
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    for leaf, like in zip(jax.tree.leaves(again), jax.tree.leaves(template)):
      assert leaf.sharding == like.sharding
  saved.close()


def test_evaluation_leaves_the_tables_where_they_are(programs):
  """Embeddings are those of one device, and need no whole table on any."""
  found = []
  for mesh in ('1x1', '2x4'):
    runtime = programs.built('lazy_adam', mesh)
    scorer = runtime.scorer(runtime.fresh_state())
    found.append(scorer.all_embeddings())
  for side, expected in found[0].items():
    np.testing.assert_allclose(found[1][side], expected, rtol=1e-5, atol=1e-6)
  values = scorer.variables['params']['embeddings']['maker']
  assert values.addressable_data(0).shape == (ROWS // 4, 3)
  embed = scorer.embedder._embed['item']
  rows = table_shards.spread(np.arange(64), runtime.mesh)
  program = embed.lower(scorer.variables, scorer.tables.item, rows).compile()
  assert program.memory_analysis().temp_size_in_bytes < values.nbytes // 4
  for one in collectives.collectives(program.as_text()):
    for array in one.arrays:
      assert array.num_bytes < 4 * 64 * 8, one.text
