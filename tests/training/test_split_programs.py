# SPDX-License-Identifier: Apache-2.0
"""Steps on eight devices: what they send, what they hold, what they compute.

Each objective is compiled for meshes of 8x1, 4x2 and 2x4 devices ('data' and
'model'). Of the compiled program is read what travels; the same program then
runs for fifty steps beside that of one device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.training import loop
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import validation
from benchmarks import collectives
from tests import tiny_run

STEPS = 50
SIZE = 288  # rows of a batch of labels; a user or item table has 60 or 80
RANK = 4
# All losses on labels at once, and the teacher, without which some biases
# change nothing but by rounding.
LABELS = dict(
    pairing='interactions',
    teacher=1.0,
    pointwise=1.0,
    pairwise=1.0,
    softmax=1.0,
    in_batch_softmax=1.0,
)
OBJECTIVES = {
    'blocks': dict(pairing='blocks', block_users=16),
    'published': dict(pairing='published'),
    'few': LABELS | dict(num_negatives=4),
    'many': LABELS | dict(num_negatives=256, shifts='distinct', num_hard=8),
}
MESHES = {'8x1': (8, 1), '4x2': (8, 2), '2x4': (8, 4), '1x1': (1, 1)}


class Programs:
  """Compiles and runs, each program once."""

  def __init__(self, problem):
    self._problem = problem
    self.compiled = functools.cache(self._compile)
    self.ran = functools.cache(self._run)

  def _compile(self, objective, mesh):
    num_devices, model = MESHES[mesh]
    cfg = tiny_run.changed(
        mesh={'model': model},
        objective=OBJECTIVES[objective],
        train={
            'batch_size': 16 * 24 if objective == 'blocks' else SIZE,
            'num_steps': STEPS,
            'steps_per_dispatch': STEPS,
        },
    )
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
    ('blocks', '4x2'),
    ('blocks', '2x4'),
    ('published', '8x1'),
    ('published', '4x2'),
    ('published', '2x4'),
    ('few', '8x1'),
    ('few', '4x2'),
    ('few', '2x4'),
]


@pytest.mark.parametrize('objective, mesh', CASES)
def test_fifty_steps_are_those_of_one_device(programs, objective, mesh):
  _, expected, losses = programs.ran(objective, '1x1')
  _, state, found = programs.ran(objective, mesh)
  assert int(state.step) == STEPS
  assert found.keys() == losses.keys()
  for name, value in losses.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  for part in ('params', 'batch_stats', 'ema_params'):
    one, many = (
        state_lib.by_name(jax.device_get(getattr(x, part)))
        for x in (expected, state)
    )
    assert one and one.keys() == many.keys()
    for name, value in one.items():
      gap = np.linalg.norm(many[name] - value)
      assert gap <= 1e-5 * np.linalg.norm(value), (part, name)


def test_their_table_of_results_is_the_same(programs):
  """Where tables are split over 'model' they are not gathered for it."""
  found = []
  for mesh in ('1x1', '2x4'):
    runtime, state, _ = programs.ran('few', mesh)
    values = validation.validate(runtime, state)
    outcome = loop.Outcome(STEPS, 1.0)
    results, _ = results_lib.evaluate(runtime, state, outcome)
    found.append([values, results['splits'], results['warm_up']])
  flat = [
      {jax.tree_util.keystr(path): x for path, x in leaves}
      for leaves, _ in map(jax.tree_util.tree_flatten_with_path, found)
  ]
  assert len(flat[0]) > 100
  assert flat[1] == pytest.approx(flat[0], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize('objective, mesh', [*CASES, ('many', '8x1')])
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
  for one in sent:
    for array in one.arrays:
      assert not of_tables & set(array.shape), one.text
  split = MESHES[mesh][1] > 1
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
