# SPDX-License-Identifier: Apache-2.0
"""Histories of users by their content, and the sparse part that has them."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import expected_histories
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.model import embeddings

ALL = np.arange(30)


def _settings(**more):
  defaults = {
      'enabled': True,
      'correction_rank': 8,
      'expected_weight': 3.0,
      'expected_regularization': 2.0,
  }
  return config.SparseConfig(**{**defaults, **more})


def _fit(problem, settings):
  return sparse_fit.fit(problem, settings, seed=0)


def _scores(part, problem, users, items=np.arange(40)):
  """Of users and items, without towers."""
  tower = lambda rows: np.zeros((len(rows), 2), np.float32)
  content = problem.item.sparse
  user = part.embed_users(users, tower(users), content, 1.0)
  item = part.embed_items(items, content[items], tower(items))
  return np.asarray(embeddings.score(user, item))


@pytest.mark.parametrize('power', [0.0, 0.4])
def test_ridge_with_an_intercept_that_is_not_shrunk(problem, power):
  settings = _settings(expected_power=power, history_size=40)
  likes = problem.likes()[:24]
  fitted = expected_histories.fit(problem.user.dense[:24], likes, settings)
  # The same by least squares: columns of content and one of 1s, and a row for
  # each column of content, of the root of lambda.
  target = likes.toarray().astype(np.float64)
  number = target.sum(axis=0)
  target /= np.maximum(number, 1) ** power
  target *= 3.0 * number.sum() / target.sum()
  content = problem.user.dense.astype(np.float64)
  width = content.shape[1]
  rows = np.hstack([content[:24], np.ones((24, 1))])
  more = np.hstack([np.sqrt(2.0) * np.eye(width), np.zeros((width, 1))])
  solution, *_ = np.linalg.lstsq(
      np.vstack([rows, more]), np.vstack([target, np.zeros((width, 40))])
  )
  expected = np.hstack([content, np.ones((30, 1))]) @ solution
  found = fitted(problem.user.dense).toarray()
  np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-4)
  assert (found > 0).any(axis=1).all()


def test_a_like_counts_one_on_average_whatever_the_power(problem):
  likes, content = problem.likes()[:24], problem.user.dense[:24]
  number, usual = np.asarray(likes.sum(axis=0)).ravel(), []
  for power in (0.0, 0.7):
    settings = _settings(expected_power=power)
    fitted = expected_histories.fit(content, likes, settings)
    usual.append(content.mean(axis=0) @ fitted.weights + fitted.bias)
    assert usual[-1].sum() == pytest.approx(3.0 * likes.sum() / 24, rel=1e-4)
  most, least = np.argmax(number), np.argmin(np.where(number, number, np.inf))
  assert usual[1][most] < usual[0][most]
  assert usual[1][least] > usual[0][least]


def test_histories_are_cut_in_chunks_as_whole(problem, monkeypatch):
  part = _fit(problem, _settings(history_size=4))
  whole = part.expected(problem.user.dense)
  assert np.diff(whole.indptr).max() == 4
  monkeypatch.setattr(expected_histories, '_CHUNK_ENTRIES', 7 * 40)
  again = part.expected(problem.user.dense)
  np.testing.assert_array_equal(whole.toarray(), again.toarray())
  assert part.expected(problem.user.dense[:0]).shape == (0, 40)
  assert not whole[:, 30:].nnz  # nobody in training likes these


def test_of_a_user_without_likes_it_is_all_and_of_others_a_share(problem):
  settings = _settings(expected_smoothing=4.0)
  part = _fit(problem, settings)
  plain = _fit(problem, dataclasses.replace(settings, expected_weight=0.0))
  assert plain.expected is None and not plain.history[24:].nnz
  number = problem.like_counts()[0]
  share = np.where(number > 0, 4 / (4 + number), 1)
  length = part.lengths.of(problem.item.sparse)
  expected = part.expected(problem.user.dense).toarray()
  np.testing.assert_allclose(
      part.history.toarray(),
      plain.history.toarray() + share[:, None] * expected * length,
      atol=1e-6,
  )
  # All of the score is linear in the history: both sides of it.
  told = scipy.sparse.csr_array(share[:, None] * expected, dtype=np.float32)
  other = plain.with_more(told, told, problem.item.sparse)
  np.testing.assert_allclose(
      _scores(part, problem, ALL), _scores(other, problem, ALL), atol=1e-5
  )


@pytest.mark.parametrize('landmarks', [0, 12])
def test_what_is_told_takes_its_place_by_and_by(problem, landmarks):
  """As evaluation and as serving have it, from likes alone to very many."""
  settings = _settings(
      expected_smoothing=4.0, landmarks=landmarks, history_weight=0.5
  )
  part, content = _fit(problem, settings), problem.item.sparse
  rows = np.array([24, 25, 26])
  dense = problem.user.dense[rows]
  likes = np.zeros((3, 40), np.float32)
  likes[1, [2, 7]] = 1
  likes[2, :20] = 1
  likes = scipy.sparse.csr_array(likes)
  told = part.with_histories(rows, likes, content, dense)
  length = part.lengths.of(content)
  share = np.array([[1], [4 / 6], [4 / 24]])
  expected = share * part.expected(dense).toarray() + likes.toarray()
  np.testing.assert_allclose(
      told.history[rows].toarray(), expected * length, atol=1e-6
  )
  # Rows of the run have all of it, which is taken away as likes come; rows that
  # the run does not know have nothing.
  known = part.select(rows).with_more(likes, likes, content)
  known = known.with_expected(share[:, 0] - 1, dense, content)
  new = part.select(np.full(3, -1)).with_more(likes, likes, content)
  new = new.with_expected(share[:, 0], dense, content)
  scores = _scores(told, problem, rows)
  assert np.ptp(scores, axis=1).min() > 0.01
  for one in (known, new):
    np.testing.assert_allclose(
        _scores(one, problem, np.arange(3)), scores, rtol=1e-4, atol=1e-5
    )
  # Other users stay as they are.
  np.testing.assert_array_equal(
      _scores(told, problem, ALL[:24]), _scores(part, problem, ALL[:24])
  )


def test_the_file_has_it(problem, tmp_path):
  part = _fit(problem, _settings())
  sparse_file.save(part, str(tmp_path))
  again = sparse_file.load(str(tmp_path))
  assert vars(again.expected).keys() == vars(part.expected).keys()
  for name, value in vars(part.expected).items():
    np.testing.assert_array_equal(getattr(again.expected, name), value)


def test_new_users_are_ranked_by_what_their_like_want(make_problem):
  """Two kinds of users, and items that one kind alone likes, old and new."""
  problem = make_problem()
  rng = np.random.default_rng(0)
  kind, wanted = np.arange(30) % 2, np.arange(40) % 2
  likes = (kind[:, None] == wanted) & (rng.random((30, 40)) < 0.6)
  user, item = (x.astype(np.int32) for x in np.nonzero(likes[:24, :30]))
  tags = scipy.sparse.csr_array(np.eye(2, dtype=np.float32)[wanted])
  noise = rng.normal(size=(30, 3))
  dense = np.hstack([np.eye(2)[kind], noise]).astype(np.float32)
  problem = dataclasses.replace(
      problem,
      user=dataclasses.replace(problem.user, dense=dense),
      item=dataclasses.replace(problem.item, sparse=tags),
      split=dataclasses.replace(
          problem.split, train=schema.Interactions(user, item)
      ),
  )
  part = _fit(problem, _settings(history_weight=1.0))
  for items in (np.arange(30), np.arange(30, 40)):  # old and new ones
    scores = _scores(part, problem, np.arange(24, 30), items)
    hits = kind[24:, None] == wanted[items]
    for score, hit in zip(scores, hits):
      assert score[hit].min() > score[~hit].max()


def test_what_cannot_be(make_problem, monkeypatch):
  problem = make_problem(user_content=False)
  with pytest.raises(
      errors.UserError,
      match='expected_weight is 3.0, and users have no dense content .* '
      'config.features.user, or set it to 0',
  ):
    _fit(problem, _settings())
  monkeypatch.setattr(expected_histories, '_MOST', 150)
  with pytest.raises(
      errors.UserError, match='each of 5 columns of content of users and 40'
  ):
    _fit(make_problem(), _settings())
