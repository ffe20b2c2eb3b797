# SPDX-License-Identifier: Apache-2.0
"""A problem read back from a run folder is the problem that was kept."""

import dataclasses
import os

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tokens as tokens_lib

USERS, ITEMS, WIDTH = 5, 6, 2


def make_tokens(rng, num_rows, names):
  """Two columns for each feature, the last of padding alone."""
  token_features = tuple(
      tokens_lib.TokenFeature(name, 't', 2 * n, 2 * n + 2, 9, 4, 'max', 0.5)
      for n, name in enumerate(names)
  )
  ids = rng.integers(0, 9, (num_rows, 2 * len(names)), np.int32)
  ids[:, -1:] = 0
  weight = np.where(ids > 0, rng.random(ids.shape), 0).astype(np.float32)
  return tokens_lib.Tokens(ids, weight, token_features)


def make_side(rng, ids, width, tags, **more):
  matrix = scipy.sparse.random_array(
      (len(ids), tags), density=0.4, rng=rng, dtype=np.float32
  )
  return problem_lib.Side(
      ids,
      rng.normal(size=(len(ids), width)).astype(np.float32),
      scipy.sparse.csr_array(matrix),
      **more,
  )


def make_problem(**changes):
  """Users without content, weights and times, a truth, ids of both kinds."""
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  train = schema.Interactions(
      np.array([0, 0, 1, 3], np.int32),
      np.array([1, 4, 0, 1], np.int32),
      np.array([1.0, 0.5, 2.0, 1.0], np.float32),
      np.array([10, 30, 20, 2**40], np.int64),
  )
  evaluation = {
      name: schema.EvaluationSet(
          np.array([2, 0], np.int32)[:count],
          np.array([5, 2], np.int32)[:count],
          np.array([2, 5], np.int32),
          exclude,
      )
      for name, count, exclude in (
          ('warm', 2, True),
          ('cold_item_validation', 2, False),
          ('cold_user', 0, False),
      )
  }
  problem = problem_lib.Problem(
      make_side(rng, np.array(['u1', 'à', '', 'long name', 'ü']), 0, 0),
      make_side(
          rng,
          np.array([7, 2**40, 1, -3, 5, 0], np.int64),
          3,
          8,
          tokens=make_tokens(rng, ITEMS, ['genre', 'gen\u00fcs']),
          preference_dense=normal(ITEMS, 3),
          preference_tokens=make_tokens(rng, ITEMS, ['viewed']),
          preference_known=rng.random(ITEMS) < 0.5,
      ),
      schema.Split(train, evaluation, ('Drawn.', 'Naïve, "quoted".')),
      schema.Factors(
          normal(USERS, WIDTH),
          normal(ITEMS, WIDTH),
          rng.random(USERS) < 0.5,
          rng.random(ITEMS) < 0.5,
      ),
      normal(USERS, ITEMS),
      ('One note.', 'Another – with a dash.'),
      {'read': 1.25, 'split and audit': 0.001},
  )
  return dataclasses.replace(problem, **changes)


def assert_same(found, expected, path='problem'):
  """The same values, types and shapes, all the way down."""
  assert type(found) is type(expected), path
  if dataclasses.is_dataclass(expected):
    for field in dataclasses.fields(expected):
      name = field.name
      assert_same(
          getattr(found, name), getattr(expected, name), f'{path}.{name}'
      )
  elif isinstance(expected, tuple):
    assert len(found) == len(expected), path
    for number, value in enumerate(expected):
      assert_same(found[number], value, f'{path}[{number}]')
  elif isinstance(expected, dict):
    assert list(found) == list(expected), path
    for key, value in expected.items():
      assert_same(found[key], value, f'{path}[{key}]')
  elif isinstance(expected, scipy.sparse.csr_array):
    assert found.shape == expected.shape
    for name in ('indptr', 'indices', 'data'):
      np.testing.assert_array_equal(
          getattr(found, name), getattr(expected, name), path
      )
  elif isinstance(expected, np.ndarray):
    assert found.dtype == expected.dtype, path
    np.testing.assert_array_equal(found, expected, path)
  else:
    assert found == expected, path


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'truth': None, 'notes': (), 'seconds': {}},
        {
            'split': schema.Split(
                schema.Interactions(
                    np.zeros(0, np.int32), np.zeros(0, np.int32)
                ),
                {},
            )
        },
    ],
    ids=['all', 'no truth', 'no pairs'],
)
def test_round_trip(tmp_path, changes):
  problem = make_problem(**changes)
  assert not problem_lib.exists(str(tmp_path))
  problem_lib.save(problem, str(tmp_path))
  assert problem_lib.exists(str(tmp_path))
  assert_same(problem_lib.load(str(tmp_path)), problem)


def test_ids_of_a_reader_that_gives_objects_come_back_as_strings(tmp_path):
  problem = make_problem()
  ids = np.array(['a', 'bb', 'à', 'd', 'e'], object)
  user = dataclasses.replace(problem.user, ids=ids)
  problem_lib.save(dataclasses.replace(problem, user=user), str(tmp_path))
  assert problem_lib.load(str(tmp_path)).user.ids.tolist() == ids.tolist()


def test_likes_are_the_training_pairs_with_their_weights():
  likes = make_problem().likes()
  expected = np.zeros((USERS, ITEMS), np.float32)
  expected[[0, 0, 1, 3], [1, 4, 0, 1]] = [1.0, 0.5, 2.0, 1.0]
  np.testing.assert_array_equal(likes.toarray(), expected)


def test_what_is_not_there_is_told(tmp_path):
  with pytest.raises(errors.UserError, match='does not exist; is this a run'):
    problem_lib.load(str(tmp_path))


def test_half_a_file_is_told_and_never_half_a_problem(tmp_path):
  problem_lib.save(make_problem(), str(tmp_path))
  path = tmp_path / os.listdir(tmp_path)[0]
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(errors.UserError, match='is damaged'):
    problem_lib.load(str(tmp_path))


def test_a_side_without_tokens_has_rows_without_any():
  side = make_problem().user
  for name in ('tokens', 'preference_tokens'):
    tokens = getattr(side, name)
    assert len(tokens) == USERS and tokens.id.shape == (USERS, 0)
    assert tokens.width == 0 and tokens.features == ()
  assert side.preference_dense.shape == (USERS, 0)
  assert side.preference_dense.dtype == np.float32
  assert side.preference_known.tolist() == [False] * USERS


@pytest.mark.parametrize(
    'name', ['tokens', 'preference_dense', 'preference_known']
)
def test_rows_that_are_missing_are_a_mistake(name):
  side = make_problem().item
  cut = getattr(side, name)[:-1]
  with pytest.raises(ValueError, match=f'{name} has not one row for each of 6'):
    dataclasses.replace(side, **{name: cut})


def test_a_file_of_before_there_were_tokens_is_told(tmp_path):
  problem_lib.save(make_problem(), str(tmp_path))
  path = os.path.join(tmp_path, problem_lib.FILE)
  with np.load(path) as arrays:
    old = {
        name: array
        for name, array in arrays.items()
        if 'tokens' not in name and 'preference' not in name
    }
  np.savez(path, **old)
  with pytest.raises(
      errors.UserError,
      match=r"holds no 'user/tokens/\w+'; .*of another version",
  ):
    problem_lib.load(str(tmp_path))
