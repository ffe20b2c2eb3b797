# SPDX-License-Identifier: Apache-2.0
"""The streaming race on a few rows: same batches on both sides, a table."""

import jax
import numpy as np
import pyarrow.parquet as parquet
import pytest

from benchmarks import jax_dropoutnet
from benchmarks import streaming
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation

ROWS = 3000


@pytest.fixture
def small(monkeypatch):
  for name, value in (
      ('_USERS', 50),
      ('_ITEMS', 200),
      ('_WIDTH', 2),
      ('_BATCH', 64),
      ('_ROWS_PER_FILE', 2000),
  ):
    monkeypatch.setattr(streaming, name, value)
  with compilation.quick_compilation():
    yield


def test_both_sides_train_alike(small, tmp_path):
  streaming.write_tables(str(tmp_path), ROWS)
  parts = sorted((tmp_path / f'interactions-{ROWS}').iterdir())
  assert [parquet.read_metadata(x).num_rows for x in parts] == [2000, 1000]
  cfg = streaming.make_config(str(tmp_path), ROWS)
  workdir = tmp_path / 'run'
  workdir.mkdir()
  problem = prepare.prepare(cfg, None, str(workdir))
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  ours = streaming._Streaming(runtime, str(workdir))
  other = jax_dropoutnet.JaxDropoutNet(
      streaming._resident(runtime, str(workdir))
  )
  for count in (3, 25):  # in calls of 20, with a reader of their own
    ours.train(count)
    other.train(count)
  for a, b in zip(*(jax.tree.leaves(x._state.params) for x in (ours, other))):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert streaming._first_batch(runtime, str(workdir)) > 0


def test_what_is_said_of_a_race(small, tmp_path, monkeypatch):
  monkeypatch.setattr(streaming, '_peak_megabytes', lambda *_: 1000.0)
  monkeypatch.setattr(
      streaming.turns, 'measure', lambda *_: [[90.0, 80.0], [100.0, 100.0]]
  )
  monkeypatch.setattr(streaming, '_first_batch', lambda *_: 0.5)
  monkeypatch.setattr(
      streaming.jax_dropoutnet, 'JaxDropoutNet', lambda runtime: runtime
  )
  found = streaming.measure(str(tmp_path), ROWS)
  assert [row.ratio for row in found.rows] == [pytest.approx(0.85), 2.0, 10.0]
  assert all(row.met for row in found.rows)
  assert 'rows are trained on' in found.notes[1]
