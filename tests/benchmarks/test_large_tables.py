# SPDX-License-Identifier: Apache-2.0
"""The race of two sizes of a table, on few rows."""

import jax
import numpy as np
import pytest

from benchmarks import comparison
from benchmarks import large_tables
from tests import compilation


def test_both_sizes_are_trained_in_turns(monkeypatch):
  for name, value in (
      ('_FEW', 200),
      ('_WIDTH', 2),
      ('_USERS', 50),
      ('_PAIRS', 500),
      ('_BATCH', 64),
      ('_ROUNDS', 2),
      ('_SECONDS', 0.01),
  ):
    monkeypatch.setattr(large_tables, name, value)
  sides = []

  class Kept(large_tables.Side):

    def __init__(self, *given):
      super().__init__(*given)
      self.first = jax.device_get(self._state.params['embeddings'])
      sides.append(self)

  monkeypatch.setattr(large_tables, 'Side', Kept)
  with compilation.quick_compilation():
    found = large_tables.measure(2000)
  assert isinstance(found, comparison.Comparison)
  (row,) = found.rows
  assert row.ours > 0 and row.ratio > 0
  assert row.bar == pytest.approx(0.8333, rel=1e-3)
  assert '8 devices, row_adagrad' in found.notes[1]
  for side, num_rows in zip(sides, (2048, 256), strict=True):
    tables = side._state.params['embeddings']
    assert tables['item'].addressable_data(0).shape == (num_rows // 8, 2)
    for name, first in side.first.items():
      assert np.any(np.asarray(tables[name]) != first)


def test_eight_devices_are_those_of_another_process(monkeypatch):
  """Which is told how many there are before it uses one."""
  monkeypatch.setattr(large_tables, 'measure', count_devices)
  assert large_tables.run(None, 3) == (3, 8)


def count_devices(number):
  return number, jax.device_count()
