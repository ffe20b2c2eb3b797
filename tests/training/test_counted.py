# SPDX-License-Identifier: Apache-2.0
"""Statistics in a run: the step never sees the rows that it is training on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics as counts_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import statistics
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import counted
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import step_batch
from tests import tiny_run

DAY = 86_400
LOOK = jax.jit(statistics.features)
WINDOWS = (0.0, 2.0)


@pytest.fixture(name='world', scope='module')
def fixture_world(problem):
  """The tiny problem with times and, for each like, a row without reaction."""
  rng = np.random.default_rng(0)
  likes = problem.split.train
  timed = dataclasses.replace(likes, time=rng.integers(0, 5 * DAY, len(likes)))
  other = rng.permutation(likes.item)
  rows = schema.Interactions(
      np.concatenate([likes.user, likes.user]),
      np.concatenate([likes.item, other]),
      time=np.concatenate([timed.time, rng.integers(0, 5 * DAY, len(likes))]),
      label=np.repeat(np.float32([1, 0]), len(likes)),
  )
  return dataclasses.replace(
      problem,
      split=dataclasses.replace(problem.split, train=timed),
      labelled=impressions.Labelled(rows),
  )


def make_config(pairing):
  cfg = tiny_run.get_config()
  cfg.features.statistics = WINDOWS
  cfg.features.statistics_smoothing = 4.0
  cfg.dropout = config.DropoutConfig(user_rate=0.0, item_rate=0.0)
  cfg.objective = config.ObjectiveConfig(
      pairing=pairing, top_items=10, random_items=10, block_users=8
  )
  if pairing == 'interactions':
    cfg.objective.teacher, cfg.objective.pointwise = 0.0, 1.0
  cfg.train.batch_size = 64
  cfg.validate()
  return cfg


class Spy:
  """In place of the model: keeps the preference that it is given."""

  def __init__(self):
    self.seen = []

  def apply(self, variables, preference, content, **unused):
    del variables, content
    self.seen.append(preference)
    return embeddings.Embedding(preference.value[:, :4] * 0 + 1.0), {}


def look(cfg, world):
  """Tables, the batch of step 3 and the preference of its two sides."""
  tables = jax.tree.map(jnp.asarray, resident.make_tables(cfg, world))
  spy = Spy()
  mesh = parallel.make_mesh(config.MeshConfig(), 1)
  loss_fn = batch_loss.make_loss_fn(cfg, spy, tables, mesh)
  loss_fn({}, {}, tables, jnp.int32(3))
  batch = step_batch.batch_of_step(cfg, tables, jnp.int32(3))
  return tables, *jax.device_get((batch, *spy.seen))


def recount(full, rows, bits, keep, side):
  """Counts of some rows alone, scaled as the whole ones are."""
  left = counts_lib.count(
      getattr(rows, side)[keep],
      rows.select(keep),
      bits[keep],
      len(full.shown),
      len(WINDOWS),
      full.smoothing,
  )
  if full.largest_label:  # of no negative row might be left
    assert left.largest_label == full.largest_label
  return dataclasses.replace(full, shown=left.shown, reacted=left.reacted)


@pytest.mark.parametrize('pairing', ['interactions', 'published', 'blocks'])
def test_steps_see_counts_without_what_they_are_trained_on(world, pairing):
  """As if it had been taken out of the data, one batch row after another."""
  cfg = make_config(pairing)
  tables, batch, *seen = look(cfg, world)
  rows = world.labelled.train
  if pairing != 'interactions':
    rows = world.split.train
  bits = counts_lib.window_bits(rows.time, WINDOWS, len(rows))
  differs = 0
  for side, found in zip(('user', 'item'), seen, strict=True):
    full = jax.device_get(getattr(tables, side).counts)
    width = len(WINDOWS) * (1 + (pairing == 'interactions'))
    assert found.columns.shape[1] == full.width == width
    mine = getattr(batch, side)
    for place, row in enumerate(mine[:16].tolist()):
      if pairing == 'blocks':
        other = 'item' if side == 'user' else 'user'
        out = getattr(rows, side) == row
        out &= np.isin(getattr(rows, other), getattr(batch, other))
      else:
        out = rows.user == batch.user[place]
        out &= rows.item == batch.item[place]
      counts = recount(full, rows, bits, ~out, side)
      expected = LOOK(counts, jnp.asarray([row]))
      np.testing.assert_allclose(
          found.columns[place], expected.value[0], rtol=1e-4, atol=1e-4
      )
      whole = LOOK(full, jnp.asarray([row]))
      differs += not np.allclose(whole.value[0], expected.value[0])
  assert differs > 4


def test_what_is_left_out_goes_with_its_rows_into_groups(world):
  cfg = make_config('interactions')
  cfg.objective.group_rows = 4
  tables = resident.make_tables(cfg, world)
  rows = world.labelled.train
  bits = counts_lib.window_bits(rows.time, WINDOWS, len(rows))
  left = counts_lib.of_pairs(rows, bits, len(WINDOWS))
  columns = lambda rows, left: sorted(
      zip(
          rows.user,
          rows.item,
          rows.label,
          left.shown.tolist(),
          left.reacted.tolist(),
          strict=True,
      )
  )
  assert columns(tables.rows, tables.rows.counted) == columns(rows, left)
  assert not np.array_equal(tables.rows.user, rows.user)


@pytest.mark.parametrize(
    'field, value, rule',
    [
        ('num_sampled', 8, '0 where features.statistics are counted: these'),
        ('num_impressions', 2, '0 where features.statistics are counted: thes'),
        ('pairwise_within', 'user', "'batch' where features.statistics are co"),
    ],
)
def test_comparisons_in_which_what_is_left_out_would_tell(field, value, rule):
  cfg = make_config('interactions')
  cfg.objective.softmax = cfg.objective.pairwise = 1.0
  setattr(cfg.objective, field, value)
  with pytest.raises(errors.UserError) as caught:
    cfg.validate()
  message = str(caught.value)
  assert message.startswith(f'config.objective.{field} is {value!r}; it must')
  assert rule in message
  cfg.features = config.FeaturesConfig()
  cfg.validate()


def test_dropped_rows_lose_their_statistics(world):
  cfg = make_config('interactions')
  cfg.dropout.item_rate = 1.0
  _, _, user, item = look(cfg, world)
  assert user.present.any() and np.any(user.columns)
  assert not item.present.any() and not np.any(item.columns)


@pytest.mark.parametrize('pairing', ['interactions', 'published'])
def test_cold_rows_have_none_and_evaluation_sees_all(world, pairing):
  tables = resident.make_tables(make_config(pairing), world)
  for side, train_rows in zip(
      ('user', 'item'), world.split.train_rows(), strict=True
  ):
    table = getattr(tables, side)
    every = jnp.arange(len(table.present))
    found = statistics.whole(table, every)
    warm = np.isin(every, train_rows)
    np.testing.assert_array_equal(found.present, warm)
    np.testing.assert_array_equal(np.asarray(found.value)[~warm], 0)
    # What the counts say is what the rows of training are.
    assert table.counts.shown[:, 0].sum() == len(world.split.train) * (
        2 if pairing == 'interactions' else 1
    )
    preference, _ = tower_inputs.blank_row(table)
    assert preference.columns.shape == (1, table.counts.width)
    assert not preference.present[0]


def test_without_statistics_nothing_is_counted(world):
  cfg = make_config('blocks')
  cfg.features = config.FeaturesConfig(cfg.features.user, cfg.features.item)
  tables = resident.make_tables(cfg, world)
  assert tables.user.counts is None and tables.history_windows is None
  assert not cfg.uses_history and make_config('blocks').uses_history
  assert statistics.whole(tables.user, jnp.arange(2)) is None


def test_windows_need_times(world):
  cfg = make_config('interactions')
  rows = dataclasses.replace(world.labelled.train, time=None)
  labelled = impressions.Labelled(rows)
  with pytest.raises(errors.UserError) as caught:
    counted.check_times(cfg, world.split.train, labelled)
  assert 'config.features.statistics is (0.0, 2.0), but the pairs of' in str(
      caught.value
  )
  assert 'only (0.0,), all of them, can be counted' in str(caught.value)
  counted.check_times(cfg, world.split.train, None)  # which has times
  cfg.objective.pairing = 'blocks'
  counted.check_times(cfg, world.split.train, labelled)
  cfg.features.statistics = (0.0,)
  counted.check_times(cfg, rows, labelled)
