# SPDX-License-Identifier: Apache-2.0
"""Rows that are streamed train as rows that are on the devices.

Two processes that stream are in test_two_runs.py.
"""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import row_file
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import read_data
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import row_feed
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import step_batch
from dropoutnet_jax.training import telemetry
from tests import stop_after
from tests import streamed_tables as toy

CLOCK = ('seconds', 'examples_per_second', 'step_seconds')


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tables')
  toy.write(folder)
  return folder


@pytest.fixture(scope='module')
def kept(tables, tmp_path_factory):
  """The folder of a streaming run, prepared, and its problem."""
  folder = tmp_path_factory.mktemp('prepared')
  prepare.prepare(toy.make_config(tables), None, str(folder))
  return folder, problem_lib.load(str(folder))


@pytest.fixture(scope='module')
def runtimes(tables, kept):
  """Of both modes on so many devices, with programs that compile once."""

  @functools.cache
  def build(mode, sampling='replacement', num_devices=1):
    cfg = toy.make_config(
        tables, data={'mode': mode}, objective={'sampling': sampling}
    )
    problem = kept[1]
    if mode == 'resident':
      problem = prepare.prepare(cfg, None, None)
    return runtime_lib.build(cfg, problem, num_devices=num_devices)

  return build


def batch_of(runtime, tables, step):
  draw = functools.partial(step_batch.batch_of_step, runtime.cfg)
  return jax.device_get(jax.jit(draw)(tables, jnp.int32(step)))


@pytest.mark.parametrize('sampling', ['replacement', 'epochs'])
def test_batches_are_those_of_resident_rows_from_any_step_on(
    runtimes, kept, sampling
):
  """Of 23 batches in an epoch the last is filled up."""
  streaming, resident = (
      runtimes(mode, sampling) for mode in ('streaming', 'resident')
  )
  num_rows = kept[1].split.streamed.num_rows
  last = -(-num_rows // 64)
  cfg = dataclasses.replace(
      streaming.cfg, train=dataclasses.replace(streaming.cfg.train)
  )
  cfg.train.num_steps = last + 4
  long = dataclasses.replace(streaming, cfg=cfg)
  for first, stops in ((0, (3, 4)), (last - 2, (last + 1, last + 2))):
    feed = long.feed(str(kept[0]), first)
    for begin, end in zip((first, *stops), stops):
      placed = feed.tables(begin, end)
      for step in range(begin, end):
        one = batch_of(streaming, placed, step)
        two = batch_of(resident, resident.tables, step)
        for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
          assert a.tobytes() == b.tobytes()
      if end > last and sampling == 'epochs':
        assert not batch_of(streaming, placed, last - 1).is_real.all()
    with pytest.raises(ValueError, match='is not the next one'):
      feed.tables(first, end)
    feed.close()


def test_a_process_reads_its_own_part(runtimes, kept, monkeypatch):
  """Of two processes; together they have every row of the batch."""
  runtime = runtimes('streaming')
  num_rows = kept[1].split.streamed.num_rows
  rows = row_file.RowFile(str(kept[0] / 'rows.bin'), num_rows)
  places = row_feed.make_places(runtime.cfg, num_rows)
  whole = row_feed.Batches(places, 10, slice(0, 64), rows)
  asked = []
  read = rows.read
  monkeypatch.setattr(rows, 'read', lambda x: asked.append(len(x)) or read(x))
  halves = [
      row_feed.Batches(places, 10, part, rows)
      for part in (slice(0, 32), slice(32, 64))
  ]
  for step in (0, 7):
    parts = [half[step] for half in halves]
    for name in ('user', 'item', 'label', 'weight'):
      both = np.concatenate([getattr(part, name) for part in parts])
      np.testing.assert_array_equal(both, getattr(whole[step], name))
  assert asked.count(32) == 4
  assert len(whole) == 10 and 'rows' in repr(whole)


def test_devices_hold_their_part_of_each_batch(runtimes):
  mesh = runtimes('streaming', num_devices=8).mesh
  window = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
  placed = parallel.place_batches(window, 64, mesh)
  assert placed.sharding.shard_shape(placed.shape) == (3, 8)
  np.testing.assert_array_equal(placed, window)
  assert parallel.rows_of_process(64, mesh) == slice(0, 64)
  assert parallel.rows_of_process(63, mesh) == slice(0, 63)  # on each device
  placed = parallel.place_batches(window[:, :63], 63, mesh)
  assert placed.is_fully_replicated


def train(runtime, kept, workdir, stop=None):
  """Trains in a folder with the rows; rows of the log without the clock."""
  workdir.mkdir(exist_ok=True)
  if not (workdir / 'rows.bin').exists():
    (workdir / 'rows.bin').symlink_to(kept[0] / 'rows.bin')
  never = types.SimpleNamespace(name='')
  outcome = loop.run(runtime, str(workdir), stop or never)
  rows = telemetry.read_metrics(str(workdir))
  return outcome, [
      {k: v for k, v in row.items() if k not in CLOCK} for row in rows
  ]


def last_state(runtime, workdir):
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  state = saved.restore(saved.latest_step(), runtime.fresh_state())
  saved.close()
  return jax.device_get(state)


def assert_equal_bits(one, two):
  for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope='module')
def streamed(runtimes, kept, tmp_path_factory):
  """(folder, log) of an undisturbed streaming run."""
  workdir = tmp_path_factory.mktemp('runs') / 'streamed'
  outcome, log = train(runtimes('streaming'), kept, workdir)
  assert outcome.step == 10 and log
  return workdir, log


def test_streaming_trains_as_resident_does(runtimes, kept, streamed, tmp_path):
  runtime = runtimes('resident')
  _, log = train(runtime, kept, tmp_path / 'resident')
  # The bias starts at the log odds of all labels, of which sums differ.
  assert log == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in streamed[1]]
  states = (
      last_state(runtime, x) for x in (tmp_path / 'resident', streamed[0])
  )
  for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_stopped_run_goes_on_bit_for_bit(runtimes, kept, streamed, tmp_path):
  runtime = runtimes('streaming')
  stop = stop_after.StopAfter(2)
  outcome, _ = train(runtime, kept, tmp_path / 'halves', stop)
  assert outcome.interrupted and 0 < outcome.step < 10
  _, log = train(runtime, kept, tmp_path / 'halves')
  assert log == streamed[1]
  assert_equal_bits(
      *(last_state(runtime, x) for x in (tmp_path / 'halves', streamed[0]))
  )


def test_eight_devices_stream_as_one(runtimes, kept, streamed, tmp_path):
  runtime = runtimes('streaming', num_devices=8)
  _, log = train(runtime, kept, tmp_path / 'eight')
  assert log == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in streamed[1]]


def test_results_are_those_of_resident_rows(runtimes, kept, streamed):
  """Of one state; popularity counts rows and not pairs, so it may differ."""
  found = []
  for mode in ('streaming', 'resident'):
    runtime = runtimes(mode)
    state = last_state(runtime, streamed[0])
    results, _ = results_lib.evaluate(
        runtime, parallel.place(state, runtime.mesh), loop.Outcome(10, 1.0)
    )
    for one in results['splits'].values():
      one['methods'].pop('popularity')
      one['labelled'].pop('popularity')
      for details in ('paired', 'slices'):
        one.pop(details, None)
      one.get('intervals', {}).pop('popularity', None)
    found.append([results['splits'], results['warm_up']])
  assert json.loads(json.dumps(found[0])) == json.loads(json.dumps(found[1]))


def test_a_run_whose_rows_are_gone(runtimes, kept, tmp_path):
  with pytest.raises(errors.UserError, match='rows.bin cannot be read: No'):
    runtimes('streaming').feed(str(tmp_path), 0)


def test_a_folder_without_room(tables, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(read_data.streamed_tables, 'stage', full)
  with pytest.raises(errors.UserError, match='no room for the rows of inter'):
    prepare.prepare(toy.make_config(tables), None, str(tmp_path))


def test_describing_keeps_no_rows(tables):
  found = prepare.prepare(toy.make_config(tables), None, None)
  users, items = found.like_counts()
  assert users.sum() == items.sum() > 0
  assert not len(found.split.train)
