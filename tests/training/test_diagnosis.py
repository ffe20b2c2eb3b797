# SPDX-License-Identifier: Apache-2.0
"""A loss that is not finite: who is blamed, and what the message says."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.training import diagnosis
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import step_batch
from tests import tiny_run

STEP = 5


class Bad(NamedTuple):
  """A run, its state before the bad step, and the rows of that step."""

  runtime: runtime_lib.Runtime
  state: state_lib.TrainState
  batch: dict[str, np.ndarray]


@pytest.fixture(scope='module', params=['blocks', 'published'])
def bad(request, problem):
  cfg = tiny_run.changed(
      objective={'pairing': request.param}, train={'batch_size': 64}
  )
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  state = dataclasses.replace(runtime.fresh_state(), step=jnp.int32(STEP))
  return Bad(runtime, state, _batch(runtime, state))


def _batch(runtime, state):
  """Distinct rows of a step, taken where the step itself draws them."""
  seen = []
  draw = step_batch.draw_batch

  def spy(*arguments):
    seen.append(draw(*arguments))
    return seen[-1]

  @jax.jit
  def rows(state, tables):
    runtime.loss_fn()(state.params, state.batch_stats, tables, state.step)
    return seen[0]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(step_batch, 'draw_batch', spy)
    batch = rows(state, runtime.tables)
  return {side: np.unique(getattr(batch, side)) for side in ('user', 'item')}


def _with_broken_row(runtime, side, field, row, value):
  """The runtime with one number of a table changed."""
  table = getattr(runtime.tables, side)
  column = getattr(table, field).at[row, 0].set(value)
  table = dataclasses.replace(table, **{field: column})
  tables = dataclasses.replace(runtime.tables, **{side: table})
  return dataclasses.replace(runtime, tables=tables)


def _named(message, side):
  """Ids named of one side, in their order."""
  part = re.search(f'{side}s ((?:[^;.]|\\.\\d)+)', message.split('norm: ')[1])
  return re.findall(r'([\w-]+) \(embedding', part[1])


@pytest.mark.parametrize(
    'side, field, value',
    [('user', 'content', np.nan), ('item', 'preference', 1e20)],
)
def test_the_broken_row_of_the_batch_is_named_first(bad, side, field, value):
  batch, ids = bad.batch, getattr(bad.runtime.problem, side).ids
  row = batch[side][-1]
  # Another step trains on this one; the bad step is not to blame it.
  outside = np.setdiff1d(np.arange(len(ids)), batch[side])[-1]
  broken = _with_broken_row(bad.runtime, side, field, row, value)
  broken = _with_broken_row(broken, side, field, outside, np.nan)
  message = str(diagnosis.non_finite_error(broken, bad.state))
  assert message.startswith(f'Step {STEP}: the loss is ')
  assert _named(message, side)[0] == str(ids[row])
  for name in ('user', 'item'):
    named = _named(message, name)
    known = getattr(bad.runtime.problem, name).ids[batch[name]].tolist()
    assert len(named) == len(set(named)) == 3
    assert set(named) <= set(map(str, known))
  counted = f'Of its {len(batch["user"])} users and {len(batch["item"])} items'
  assert counted in message
  # A new folder starts at 0; only the first one has the checkpoints.
  assert 'train from the start in a new --workdir' in message
  assert 'go on from it' not in message
  assert 'train.learning_rate 0.01 too high' in message


def test_huge_factors_of_the_teacher_are_shown(bad):
  """They are in no input; among equal rows they decide who is named first."""
  row = bad.batch['item'][1]
  broken = _with_broken_row(bad.runtime, 'item', 'factors', row, 1e30)
  table = broken.tables.item
  same = dataclasses.replace(
      table, content=0 * table.content, preference=0 * table.preference
  )
  tables = dataclasses.replace(broken.tables, item=same)
  broken = dataclasses.replace(broken, tables=tables)
  zero = jax.tree.map(jnp.zeros_like, bad.state.params)
  state = dataclasses.replace(bad.state, params=zero)
  message = str(diagnosis.non_finite_error(broken, state))
  ids = bad.runtime.problem.item.ids
  assert _named(message, 'item')[0] == str(ids[row])
  assert 'teacher 1e+30' in message
