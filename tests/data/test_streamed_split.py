# SPDX-License-Identifier: Apache-2.0
"""Passes over a file split as all rows in memory are split, row by row."""

import tempfile

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import row_file
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits
from dropoutnet_jax.data import streamed_split
from dropoutnet_jax.data import streamed_tables
from dropoutnet_jax.training import label_tables
from tests import streamed_tables as toy

BALANCE = 0.5


def split(cfg):
  """(data set, split, labelled rows, training rows)."""
  with tempfile.TemporaryFile() as stage, tempfile.TemporaryFile() as output:
    staged = streamed_tables.stage(cfg.data.tables, None, stage)
    found = streamed_split.split(staged, cfg.data, BALANCE, output)
    parts = list(row_file.chunks(output))
  return staged.dataset, *found, np.concatenate(parts)


def assert_same(one, two):
  """Interactions or evaluation sets, column by column."""
  for name, column in vars(two).items():
    if isinstance(column, np.ndarray):
      found = getattr(one, name)
      assert found.dtype == column.dtype, name
      np.testing.assert_array_equal(found, column, name)
    else:
      assert getattr(one, name) == column, name


@pytest.mark.parametrize('validation', ['keep_out', 'return'])
@pytest.mark.parametrize('weights', [False, True])
def test_splits_labelled_rows_alike(tmp_path, monkeypatch, validation, weights):
  monkeypatch.setattr(streamed_tables, '_BLOCK', 150)
  monkeypatch.setattr(row_file, 'CHUNK', 333)
  toy.write(tmp_path, weights)
  cfg = toy.make_config(
      tmp_path, data={'validation': validation, 'cold_item_share': 0.1}
  )
  dataset, found, held_out, rows = split(cfg)

  whole = own_tables.load(cfg.data.tables, None)
  by = splits.make_split(whole, cfg.data)
  labelled = impressions.split(whole.impressions, by, cfg.data.seed)
  for side in ('users', 'items'):
    ids = getattr(whole, side).ids
    np.testing.assert_array_equal(getattr(dataset, side).ids, ids)
  assert list(found.evaluation) == list(by.evaluation)
  for name, expected in by.evaluation.items():
    assert_same(found.evaluation[name], expected)
    assert_same(held_out.evaluation[name], labelled.evaluation[name])
  for one, two in zip(found.train_rows(), by.train_rows()):
    np.testing.assert_array_equal(one, two)
  expected = label_tables.label_rows(labelled.train, BALANCE)
  for name in ('user', 'item', 'label'):
    np.testing.assert_array_equal(rows[name], getattr(expected, name))
  # Their sum is that of parts.
  np.testing.assert_allclose(rows['weight'], expected.weight, rtol=2e-7)
  counts, train = found.streamed, labelled.train
  assert counts.num_rows == len(train) == len(rows)
  for side in ('user', 'item'):
    row = getattr(train, side)
    size = len(getattr(whole, f'{side}s'))
    for name, of in (('rows', row), ('likes', row[train.label > 0])):
      np.testing.assert_array_equal(
          getattr(counts, f'{side}_{name}'), np.bincount(of, minlength=size)
      )
  weight = expected.weight.astype(float)
  share = np.sum(weight * expected.label) / weight.sum()
  assert counts.share == pytest.approx(share)
  np.testing.assert_array_equal(counts.labels, [0, 1])


def test_splits_likes_alike(tmp_path):
  """Sorted and each once, as they are kept in memory."""
  pair = np.unique(np.random.default_rng(0).integers(0, 40 * 30, 500))
  table = toy.pa.table({'user_id': pair // 30, 'item_id': pair % 30})
  tmp_path.joinpath('pairs').mkdir()
  toy.parquet.write_table(table, tmp_path / 'pairs' / '0.parquet')
  cfg = toy.make_config(tmp_path)
  cfg.data.tables.items = ''
  _, found, held_out, rows = split(cfg)
  assert held_out is None
  by = splits.make_split(own_tables.load(cfg.data.tables, None), cfg.data)
  expected = label_tables.label_rows(by.train, BALANCE)
  for name in row_file.ROW.names:
    np.testing.assert_array_equal(rows[name], getattr(expected, name))
  for name, held in by.evaluation.items():
    assert_same(found.evaluation[name], held)


def test_shares_that_leave_nothing(tmp_path):
  toy.write(tmp_path)
  cfg = toy.make_config(tmp_path)
  cfg.data.cold_user_share = 0.001
  with pytest.raises(errors.UserError, match='this holds out 0 for each'):
    split(cfg)


def test_examples_of_the_labels_are_refused_as_all_rows_are():
  nothing = np.zeros(3, np.int64)
  drawn = np.array([0, 2, 5])
  rows = schema.StreamedRows(
      7, nothing, nothing, nothing, drawn, drawn, np.array([0.0, 3.0]), 0.5
  )
  examples = label_tables.examples_of(rows)
  np.testing.assert_array_equal(examples.label, [0, 3])
  np.testing.assert_array_equal(examples.item, [1, 2])
  assert (examples.weight > 0).all()
  none = schema.StreamedRows(
      7, nothing, nothing, nothing, drawn, nothing, np.full(2, np.nan), 0.0
  )
  assert not label_tables.examples_of(none).weight.any()
