# SPDX-License-Identifier: Apache-2.0
"""Rows in a file, by their places."""

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import row_file


@pytest.fixture
def rows():
  number = np.arange(20_000, dtype=np.int32)
  return row_file.make(number, number[::-1], number / 2, np.float32('nan'))


# Pages of a mapped file have up to 64 KiB: 4096 rows.
@pytest.mark.parametrize('window', [4096, 8192, 1 << 23])
def test_reads_any_places_in_any_order(rows, tmp_path, monkeypatch, window):
  monkeypatch.setattr(row_file, '_WINDOW', window)
  rows.tofile(tmp_path / 'rows')
  file = row_file.RowFile(str(tmp_path / 'rows'), len(rows))
  assert len(file) == len(rows)
  places = np.random.default_rng(0).integers(0, len(rows), 999).astype(np.int32)
  for part in (places, places[:1], places[:0], np.array([19_999, 0, 19_999])):
    found = file.read(part)
    assert found.tobytes() == rows[part].tobytes()
  with pytest.raises(IndexError):
    file.read(np.array([0, len(rows)]))


def test_reads_all_in_parts(rows, tmp_path, monkeypatch):
  monkeypatch.setattr(row_file, 'CHUNK', 6000)
  with open(tmp_path / 'rows', 'w+b') as file:
    rows.tofile(file)
    parts = list(row_file.chunks(file))
    assert [len(part) for part in parts] == [6000, 6000, 6000, 2000]
    assert np.concatenate(parts).tobytes() == rows.tobytes()


def test_a_file_that_was_cut_or_lost(rows, tmp_path):
  path = tmp_path / 'rows'
  rows[:-1].tofile(path)
  with pytest.raises(errors.UserError, match='319,984 bytes, 20,000 rows have'):
    row_file.RowFile(str(path), len(rows))
  with pytest.raises(errors.UserError, match='No such file'):
    row_file.RowFile(str(tmp_path / 'none'), 1)
