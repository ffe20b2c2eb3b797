# SPDX-License-Identifier: Apache-2.0
"""Every item is scored, in whatever blocks: the lists of a plain sort."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.serving.index import banned as banned_lib
from dropoutnet_jax.serving.index import kept
from dropoutnet_jax.serving.index import maxima
from dropoutnet_jax.serving.index import pair_scores
from dropoutnet_jax.serving.index import scan
from dropoutnet_jax.serving.index import vectors
from dropoutnet_jax.serving.index import workers


def _vectors(rng, number, is_sparse):
  sparse = None
  if is_sparse:
    sparse = scipy.sparse.random_array(
        (number, 9), density=0.3, rng=rng, dtype=np.float32
    ).tocsr()
    sparse.data = np.ceil(sparse.data * 2)
  dense = rng.integers(-2, 3, (number, 4)).astype(np.float32)
  return vectors.Vectors(dense, sparse)


def _use_maxima(monkeypatch):
  """For few items too."""
  monkeypatch.setattr(maxima, 'CHUNK', 256)
  monkeypatch.setattr(maxima, 'LEAST', 256)


def _slow(users, items, k, allowed, pairs):
  """Rows and scores by one stable sort."""
  score = users.dense.astype(float) @ items.dense.T
  if users.sparse is not None:
    score += (users.sparse @ items.sparse.T).toarray()
  if allowed is not None:
    score[:, ~allowed] = -np.inf
  for row, user in pairs:
    score[user, row] = -np.inf
  order = np.argsort(-score, axis=1, kind='stable')[:, :k]
  top = np.take_along_axis(score, order, 1)
  return np.where(np.isneginf(top), -1, order), top


@pytest.mark.parametrize('is_sparse', [False, True])
@pytest.mark.parametrize(
    'num_users, num_items, k',
    [
        (1, 700, 5),
        (40, 700, 12),
        (300, 130, 3),
        (33, 5000, 3),
        (2, 10, 30),
        (3, 0, 2),
    ],
)
def test_lists_are_those_of_a_sort(
    monkeypatch, num_users, num_items, k, is_sparse
):
  monkeypatch.setattr(scan, '_SCORES', 1 << 11)  # many blocks
  monkeypatch.setattr(scan, '_MOST_ITEMS', 96)
  monkeypatch.setattr(scan, '_SLACK', 0)
  _use_maxima(monkeypatch)
  monkeypatch.setattr(workers, 'count', lambda: 3)
  rng = np.random.default_rng(num_users)
  users = _vectors(rng, num_users, is_sparse)
  items = _vectors(rng, num_items, is_sparse)
  users.dense[0] = 0  # all items are equal, but for the sparse part
  some = rng.random(num_items) < 0.6
  pairs = np.argwhere(rng.random((num_items, num_users)) < 0.1)
  for allowed in (None, some, np.zeros(num_items, bool)):
    for banned in (pairs[:0], rng.permutation(pairs)):
      found = scan.best(
          users, items, k, allowed, banned_lib.make_banned(*banned.T)
      )
      wanted = _slow(users, items, k, allowed, banned)
      width = wanted[0].shape[1]
      np.testing.assert_array_equal(found[0][:, :width], wanted[0])
      np.testing.assert_array_equal(found[1][:, :width], wanted[1])
      assert (found[0][:, width:] == -1).all()
      assert np.isneginf(found[1][:, width:]).all()


def test_ties_without_end_are_left_to_blocks(monkeypatch):
  """Users of zeros, for whom all items are equally good."""
  _use_maxima(monkeypatch)
  monkeypatch.setattr(scan, '_SLACK', 0)
  rng = np.random.default_rng(0)
  users, items = _vectors(rng, 40, False), _vectors(rng, 5000, False)
  users.dense[:] = 0
  end = 19 * 256
  for wanted in (2, 300):  # too many groups, and too many rows of these
    made = maxima.candidates(users.dense, items.dense[:end], wanted, None)
    assert made is None
  rows, _ = scan.best(users, items, 2)
  assert rows.tolist() == [[0, 1]] * 40


def test_a_large_batch_does_not_look_at_all_blocks(monkeypatch):
  """Of whole chunks, only what the maxima leave."""
  _use_maxima(monkeypatch)
  rng = np.random.default_rng(0)
  draw = lambda number: rng.normal(size=(number, 8)).astype(np.float32)
  seen = []
  monkeypatch.setattr(
      scan, '_products', lambda items, *unused: seen.append(len(items))
  )
  scan.best(vectors.Vectors(draw(64)), vectors.Vectors(draw(5 * 256)), 4)
  assert not seen


def test_no_list_is_short_where_large_terms_cancel(monkeypatch):
  """Scores of 1e-3 of terms of 1e3, which every order of a sum has anew."""
  _use_maxima(monkeypatch)
  rng = np.random.default_rng(0)
  common = rng.normal(size=64)
  across = rng.normal(size=(40, 64))
  across -= np.outer(across @ common, common) / (common @ common)
  items = 1e3 * common + 1e-4 * rng.normal(size=(5000, 64))
  users = vectors.Vectors(across.astype(np.float32))
  catalogue = vectors.Vectors(items.astype(np.float32))
  for allowed in (None, rng.random(5000) < 0.6):
    pairs = np.repeat(np.arange(40), 20)
    banned = banned_lib.make_banned(rng.integers(0, 5000, len(pairs)), pairs)
    rows, _ = scan.best(users, catalogue, 10, allowed, banned)
    assert (rows >= 0).all()
    if allowed is not None:
      assert allowed[rows].all()


def test_scores_that_rise_with_the_rows_are_kept_in_bounds(monkeypatch):
  """The worst order there is: every block beats all floors."""
  monkeypatch.setattr(kept, '_PENDING', 300)
  monkeypatch.setattr(scan, '_MOST_ITEMS', 64)
  items = vectors.Vectors(np.arange(2000, dtype=np.float32)[:, None])
  users = vectors.Vectors(np.float32([[1], [-1], [0]]))
  rows, _ = scan.best(users, items, 3)
  assert rows.tolist() == [[1999, 1998, 1997], [0, 1, 2], [0, 1, 2]]


def test_both_ways_to_sort_agree(monkeypatch):
  rng = np.random.default_rng(0)
  score = rng.integers(-3, 3, 500).astype(np.float32) * np.float32(0.5)
  score[:9] = [0.0, -0.0, -np.inf, np.inf, 1e-40, -1e-40, 3e38, -3e38, 0.0]
  user = rng.integers(0, 4, 500)
  expected = np.lexsort((-(score + np.float32(0)), user))
  np.testing.assert_array_equal(kept._order(user, score), expected)


def test_rounding_within_a_block_decides_nothing():
  """Equal items at all places of blocks, in the order of their rows."""
  rng = np.random.default_rng(0)
  items = rng.normal(size=(3000, 64)).astype(np.float32)
  items[rng.choice(3000, 40, False)] = items[7]
  users = vectors.Vectors(items[7][None] * np.float32(0.37))
  rows, score = scan.best(users, vectors.Vectors(items), 35)
  assert len(set(score[0].tolist())) == 1
  assert (np.diff(rows[0]) > 0).all()


def test_pairs_are_scored_in_double_precision():
  rng = np.random.default_rng(0)
  users, items = _vectors(rng, 4, True), _vectors(rng, 20, True)
  big = vectors.Vectors(users.dense + np.float32(1e-3), users.sparse)
  rows = rng.integers(-1, 20, (4, 7))
  whole = big.dense.astype(float) @ items.dense.T.astype(float)
  whole += (big.sparse.astype(float) @ items.sparse.T.astype(float)).toarray()
  wanted = np.take_along_axis(whole, rows, 1).astype(np.float32)
  found = pair_scores.pair_scores(big, items, rows)
  np.testing.assert_array_equal(found, np.where(rows < 0, -np.inf, wanted))


def test_the_best_of_candidates_has_each_of_them_once():
  rows = np.array([[5, 2, -1, 5, 3], [-1, -1, 4, 4, -1]])
  score = np.float32([[1, 2, 9, 1, 2], [0, 0, 3, 3, 0]])
  found, top = pair_scores.best(rows, score, 4)
  assert found.tolist() == [[2, 3, 5, -1], [4, -1, -1, -1]]
  assert top.tolist() == [[2, 2, 1, -np.inf], [3] + [-np.inf] * 3]
