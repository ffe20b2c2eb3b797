# SPDX-License-Identifier: Apache-2.0
"""Exact lists against a full sort, whatever the chunks."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import parallel
from dropoutnet_jax.evaluation import top_k
from benchmarks import collectives


def integer_embeddings(seed, num_users, num_items, rank=3):
  """Small integers: dot products are exact and tie often."""
  rng = np.random.default_rng(seed)
  emb = lambda rows: rng.integers(-2, 3, (rows, rank)).astype(np.float32)
  return emb(num_users), emb(num_items)


def full_sort(scores, k, exclude=()):
  """Lists by a stable sort of one user after another."""
  all_scores = np.full((len(scores), k), -np.inf, np.float32)
  all_items = np.full((len(scores), k), -1)
  for user, row in enumerate(scores):
    banned = set(exclude[user]) if len(exclude) else set()
    order = [i for i in np.argsort(-row, kind='stable') if i not in banned][:k]
    all_items[user, : len(order)] = order
    all_scores[user, : len(order)] = row[order]
  return all_scores, all_items


def check(found, expected):
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one, other)
  assert found[0].dtype == np.float32 and found[1].dtype == np.int32


@pytest.mark.parametrize(
    'k, users_per_chunk, items_per_chunk',
    ((20, 7, 7), (20, 7, 500), (20, 500, 7), (1, 500, 500), (20, 500, 4096)),
)
def test_chunks_do_not_change_the_lists(k, users_per_chunk, items_per_chunk):
  user, item = integer_embeddings(0, 30, 1003)
  found = top_k.top_items(
      user,
      item,
      k,
      users_per_chunk=users_per_chunk,
      items_per_chunk=items_per_chunk,
  )
  check(found, full_sort(user @ item.T, k))


@pytest.mark.parametrize('seed', (0, 1, 2))
@pytest.mark.parametrize('items_per_chunk', (7, 500))
def test_excluded_items_never_appear(items_per_chunk, seed):
  user, item = integer_embeddings(seed, 23, 211)
  rng = np.random.default_rng(seed)
  pairs = rng.integers(0, 23, 900), rng.integers(0, 211, 900)
  exclude = top_k.exclusion_lists(*pairs, 23)
  found = top_k.top_items(
      user,
      item,
      15,
      users_per_chunk=10,
      items_per_chunk=items_per_chunk,
      exclude=exclude,
  )
  check(found, full_sort(user @ item.T, 15, exclude))
  for banned_user, banned_item in zip(*pairs):
    assert banned_item not in found[1][banned_user]


@pytest.mark.parametrize('num_items, k', [(1003, 20), (64, 9), (5, 12)])
def test_lists_of_split_items_are_those_of_one_device(num_items, k):
  """Ties over the edges of parts, and parts of padding alone."""
  user, item = integer_embeddings(3, 30, num_items)
  exclude = np.random.default_rng(1).integers(-1, num_items, (30, 6))
  catalogue = top_k.Catalogue(item, 60, parallel.local_mesh())
  for banned in (None, exclude):
    found = catalogue.top(user, k, users_per_chunk=16, exclude=banned)
    check(found, full_sort(user @ item.T, k, () if banned is None else banned))


def test_of_split_items_k_of_each_device_travel():
  user, item = integer_embeddings(3, 16, 1003)
  mesh, k = parallel.local_mesh(), 5
  catalogue = top_k.Catalogue(item, 4096, mesh)
  text = (
      top_k._top_of_embeddings.lower(
          jnp.asarray(user),
          0,
          catalogue._items,
          1003,
          np.full((16, 0), -1, np.int32),
          users_per_chunk=16,
          k=k,
          mesh=mesh,
      )
      .compile()
      .as_text()
  )
  sent = collectives.collectives(text)
  shapes = [array.shape for one in sent for array in one.arrays]
  assert {one.kind for one in sent} == {'all-gather'}
  assert shapes and all(np.prod(x) == 16 * 8 * k for x in shapes)
  assert catalogue._items.addressable_data(0).shape == (1, 126, 3)


def test_seen_and_banned_items_of_ten():
  """Ten items; each user has seen some, and 3 and 7 are banned for all."""
  item = np.arange(10.0)[:, None]
  user = np.array([[1.0], [-1.0], [1.0]])
  seen_user, seen_item = np.array([0, 0, 1, 2, 2]), np.array([9, 8, 0, 9, 3])
  banned_user = np.repeat(np.arange(3), 2)
  exclude = top_k.exclusion_lists(
      np.concatenate([banned_user, seen_user]),
      np.concatenate([np.tile([3, 7], 3), seen_item]),
      3,
  )
  scores, items = top_k.top_items(user, item, 10, exclude=exclude)
  assert items.tolist() == [
      [6, 5, 4, 2, 1, 0, -1, -1, -1, -1],
      [1, 2, 4, 5, 6, 8, 9, -1, -1, -1],
      [8, 6, 5, 4, 2, 1, 0, -1, -1, -1],
  ]
  assert scores[1].tolist()[:7] == [-1.0, -2.0, -4.0, -5.0, -6.0, -8.0, -9.0]
  assert np.all(np.isneginf(scores) == (items == -1))


@pytest.mark.parametrize('items_per_chunk', (2, 100))
def test_lists_longer_than_what_is_allowed_are_filled_up(items_per_chunk):
  user, item = integer_embeddings(1, 4, 5)
  exclude = np.array([[-1] * 5, [0, 1, 2, 3, 4], [4, -1, 4, -1, -1], [-1] * 5])
  found = top_k.top_items(
      user, item, 12, items_per_chunk=items_per_chunk, exclude=exclude
  )
  check(found, full_sort(user @ item.T, 12, exclude))
  assert np.sum(found[1] >= 0, axis=1).tolist() == [5, 0, 4, 5]


def test_ties_go_to_the_lower_row_across_chunks():
  for size in (3, 64):
    scores, items = top_k.top_items(
        np.ones((2, 1)), np.ones((10, 1)), 6, items_per_chunk=size
    )
    assert items.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert np.all(scores == 1.0)


def test_signed_zeros_tie_and_nan_is_never_chosen():
  scores = np.array([[-0.0, 0.0, np.nan, -1.0, -np.inf, 0.0]], np.float32)
  found, items = top_k.top_scored(
      lambda rows: scores, [0], 6, users_per_chunk=1
  )
  assert items.tolist() == [[0, 1, 5, 3, -1, -1]]
  assert found.tolist() == [[0.0, 0.0, 0.0, -1.0, -np.inf, -np.inf]]


def test_no_users_and_no_items():
  scores, items = top_k.top_items(np.zeros((0, 2)), np.zeros((4, 2)), 3)
  assert scores.shape == items.shape == (0, 3)
  scores, items = top_k.top_items(np.zeros((2, 2)), np.zeros((0, 2)), 3)
  assert items.tolist() == [[-1] * 3] * 2
  scores, items = top_k.top_scored(lambda rows: 1 / 0, np.zeros(0, int), 3)
  assert scores.shape == items.shape == (0, 3)


@settings(max_examples=40, deadline=None)
@given(strategies.integers(0, 2**31))
def test_random_tables_match_a_full_sort(seed):
  rng = np.random.default_rng(seed)
  user, item = integer_embeddings(seed, 6, 17)
  exclude = rng.integers(-1, 17, (6, 8))
  found = top_k.top_items(
      user, item, 9, users_per_chunk=4, items_per_chunk=5, exclude=exclude
  )
  check(found, full_sort(user @ item.T, 9, exclude))


def test_float_scores_match_a_full_sort():
  rng = np.random.default_rng(5)
  user, item = rng.normal(size=(9, 32)), rng.normal(size=(400, 32))
  users, items = jnp.asarray(user), jnp.asarray(item)  # may be on the device
  scores, items = top_k.top_items(users, items, 50, items_per_chunk=90)
  expected_scores, expected_items = full_sort(user @ item.T, 50)
  np.testing.assert_array_equal(items, expected_items)
  np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)


def test_top_scored_matches_top_items_in_the_order_of_its_users():
  user, item = integer_embeddings(2, 40, 60)
  rows = np.random.default_rng(2).permutation(40)[:25]
  exclude = np.random.default_rng(3).integers(-1, 60, (25, 11))
  shapes = []

  @jax.jit
  def score(chunk):
    shapes.append(chunk.shape)  # runs once per compiled shape
    return jnp.asarray(user)[chunk] @ jnp.asarray(item.T)

  found = top_k.top_scored(score, rows, 9, users_per_chunk=8, exclude=exclude)
  check(found, top_k.top_items(user[rows], item, 9, exclude=exclude))
  assert shapes == [(8,)]


def test_partial_chunks_and_longer_exclusions_do_not_recompile(monkeypatch):
  traced = []
  original = top_k._merge

  def counted(*arrays):
    traced.append(1)
    return original(*arrays)

  monkeypatch.setattr(top_k, '_merge', counted)
  # Sizes that no other test has; all of them pad to 3 chunks of 19 users.
  _, item = integer_embeddings(0, 1, 97)
  first = 0
  for num_users, width in ((57, 9), (39, 12), (50, 16)):
    user, _ = integer_embeddings(num_users, num_users, 1)
    exclude = np.random.default_rng(0).integers(-1, 97, (num_users, width))
    found = top_k.top_items(
        user, item, 6, users_per_chunk=19, items_per_chunk=41, exclude=exclude
    )
    check(found, full_sort(user @ item.T, 6, exclude))
    first = first or len(traced)
  assert len(traced) == first > 0


def test_exclusion_lists_hold_every_pair():
  user, item = np.array([3, 0, 3, 0, 3]), np.array([5, 1, 4, 1, 9])
  lists = top_k.exclusion_lists(user, item, 5)
  assert lists.tolist() == [
      [1, 1, -1],
      [-1, -1, -1],
      [-1, -1, -1],
      [5, 4, 9],
      [-1, -1, -1],
  ]
  assert lists.dtype == np.int32
  none = np.zeros(0, int)
  assert top_k.exclusion_lists(none, none, 2).shape == (2, 0)


@pytest.mark.parametrize(
    'options, message',
    (
        ({'k': 0}, 'k must be at least 1: 0'),
        ({'users_per_chunk': 0}, 'users_per_chunk must be at least 1'),
        ({'items_per_chunk': -3}, 'items_per_chunk must be at least 1: -3'),
        ({'item_dense': np.ones((4, 3))}, r'\(2, 2\) and item_dense \(4, 3\)'),
        ({'exclude': np.zeros((3, 1), int)}, r'exclude \(3, 1\) must be \[2'),
        ({'exclude': np.full((2, 1), 4)}, 'exclude holds item 4 of 4 items'),
    ),
)
def test_sizes_are_checked(options, message):
  arguments = {'user_dense': np.ones((2, 2)), 'item_dense': np.ones((4, 2))}
  with pytest.raises(ValueError, match=message):
    top_k.top_items(**arguments | {'k': 1} | options)


def test_top_scored_checks_what_it_excludes():
  with pytest.raises(ValueError, match='exclude holds item 6 of 5 items'):
    top_k.top_scored(
        lambda rows: np.zeros((len(rows), 5)),
        np.arange(3),
        2,
        users_per_chunk=2,
        exclude=np.array([[0], [0], [6]]),
    )
