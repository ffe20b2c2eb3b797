# SPDX-License-Identifier: Apache-2.0
"""Lists are the rankings of the evaluation, for users and items old and new."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import top_k
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.index import factory

K = 5


def _towers(model):
  return dataclasses.replace(
      model, scorer=dataclasses.replace(model.scorer, sparse=None)
  )


def _rank(model, users, items, k=K, exclude=None):
  """All lists: candidates' places and scores, [N, k] each."""
  parts = list(model.recommend(users, items, k, exclude))
  covered = [n for part in parts for n in range(*part.users.indices(10**6))]
  assert covered == list(range(len(users)))
  return (
      np.concatenate([part.item for part in parts]),
      np.concatenate([part.score for part in parts]),
  )


def _recall(held_out, users, lists):
  """Mean recall of lists [N, K] of candidates' places, row by row."""
  user, column = protocol.relevant_pairs(held_out)
  found = []
  for row, items in zip(users, lists, strict=True):
    relevant = set(column[user == row].tolist())
    if relevant:
      found.append(len(relevant & set(items.tolist())) / len(relevant))
  return np.mean(found)


def _pairs(matrix, rows):
  return blocks.pattern(scipy.sparse.csr_array(matrix)[rows])


@pytest.mark.parametrize('method', ['model', 'tower'])
@pytest.mark.parametrize(
    'split', ['warm', 'cold_item', 'cold_user', 'cold_both']
)
def test_lists_have_the_recall_of_the_results(shop, split, method):
  model = shop.model if method == 'model' else _towers(shop.model)
  held_out = model.problem.split.evaluation[split]
  users = model.users().select(np.unique(held_out.user))
  items = model.items().select(held_out.candidates)
  exclude = model.seen(users, items) if held_out.exclude_train else None
  item, score = _rank(model, users, items, exclude=exclude)
  recall = _recall(held_out, users.row, item)
  expected = shop.results()['splits'][split]['methods'][method]['recall@5']
  assert recall == pytest.approx(expected, abs=1e-6)
  assert (np.diff(score, axis=1) <= 0).all()


def _warm_up(model, side='user'):
  plan = warm_up.plan(model.problem, side, most=2, seed=0)
  items = model.items().select(plan.held_out.candidates)
  users = plan.rows if side == 'user' else np.unique(plan.held_out.user)
  exclude = _pairs(plan.likes, users)[:, plan.held_out.candidates]
  return plan, items, exclude


def _told_recall(model, plan):
  """What the evaluation finds where two pairs of each new row are folded in."""
  methods = warm_up.make_methods(
      model.problem, model.scorer, model.cfg, plan, 2
  )
  found = protocol.evaluate(
      methods['model, folded in'](f'cold_{plan.side}', plan.held_out),
      plan.held_out,
      plan.likes,
      model.cfg.evaluation,
      'the model',
  )
  return found['recall@5']


@pytest.mark.parametrize('method', ['model', 'tower'])
def test_histories_have_the_recall_of_the_warm_up_curve(shop, method):
  """Two clicks of each new user, folded in."""
  model = shop.model if method == 'model' else _towers(shop.model)
  plan, items, exclude = _warm_up(model)
  users = dataclasses.replace(
      model.users().select(plan.rows), history=plan.shown(2)
  )
  item, _ = _rank(model, users, items, exclude=exclude)
  recall = _recall(plan.held_out, plan.rows, item)
  assert recall == pytest.approx(_told_recall(model, plan), abs=1e-6)
  cold, _ = _rank(
      model, model.users().select(plan.rows), items, exclude=exclude
  )
  assert (cold != item).any()


@pytest.mark.parametrize('method', ['model', 'tower'])
def test_new_items_warm_up_as_in_the_evaluation(shop, method):
  """By two of the users who will like each, with or without a sparse part."""
  model = shop.model if method == 'model' else _towers(shop.model)
  plan, items, exclude = _warm_up(model, 'item')
  place = np.searchsorted(plan.rows, items.row)
  told = dataclasses.replace(items, history=plan.shown(2)[place])
  users = model.users().select(np.unique(plan.held_out.user))
  lists, _ = _rank(model, users, told, exclude=exclude)
  recall = _recall(plan.held_out, users.row, lists)
  assert recall == pytest.approx(_told_recall(model, plan), abs=1e-6)
  cold, _ = _rank(model, users, items, exclude=exclude)
  assert (cold != lists).any()


@pytest.fixture(name='dataset', scope='module')
def fixture_dataset(shop):
  return own_tables.load(shop.model.cfg.data.tables, None)


def _as_new(rows, entities):
  """The same rows under ids that the run does not know."""
  ids = np.array([f'another {one}' for one in rows.ids])
  known = column_types.select(entities, rows.row)
  entities = dataclasses.replace(known, ids=ids)
  return rows_lib.Rows(ids, np.full(len(ids), -1), entities)


@pytest.mark.parametrize('has_history', [False, True])
def test_a_new_user_is_a_cold_one(shop, dataset, has_history):
  """Content and history decide, not whether the run knows the id."""
  model = shop.model
  plan, items, _ = _warm_up(model)
  cold = model.users().select(plan.rows)
  new = _as_new(cold, dataset.users)
  if has_history:
    cold = dataclasses.replace(cold, history=plan.shown(2))
    new = dataclasses.replace(new, history=plan.shown(2))
  for expected, found in zip(
      _rank(model, cold, items), _rank(model, new, items), strict=True
  ):
    np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(
      model.seen(new, items).toarray(), model.seen(cold, items).toarray()
  )


def test_a_new_item_is_a_cold_one(shop, dataset):
  model = shop.model
  cold = model.items().select(
      model.problem.split.evaluation['cold_item'].candidates
  )
  new = _as_new(cold, dataset.items)
  users = model.users()
  assert not model.is_trained(cold).any() and not model.is_trained(new).any()
  _, trained = model.problem.split.train_rows()
  items = model.items()
  np.testing.assert_array_equal(items.row[model.is_trained(items)], trained)
  for expected, found in zip(
      _rank(model, users, cold), _rank(model, users, new), strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_rows_mix_and_keep_their_order(shop, dataset):
  """Known and new ones in one request get what each gets alone."""
  model = shop.model
  some = model.users().select(np.array([7, 2, 11]))
  new = _as_new(some, dataset.users)
  mixed = rows_lib.Rows(
      np.concatenate([new.ids, some.ids])[[0, 4, 2]],
      np.array([-1, 2, -1]),
      column_types.select(dataset.users, np.array([7, 0, 11])),
  )
  items = model.items()
  item, score = _rank(model, mixed, items)
  for place, alone in ((0, new), (1, some), (2, new)):
    expected = _rank(model, alone.select(slice(place, place + 1)), items)
    np.testing.assert_array_equal(item[[place]], expected[0])
    np.testing.assert_allclose(score[[place]], expected[1], rtol=1e-5)


def test_chunks_change_nothing(shop, monkeypatch):
  model = shop.model
  users, items = model.users(), model.items()
  few = np.arange(len(users))[:, None] < 8  # all of them of one block
  history = scipy.sparse.csr_array(np.eye(len(users), len(items)) * few)
  users = dataclasses.replace(users, history=history)
  exclude = model.seen(users, items)
  expected = _rank(model, users, items, exclude=exclude)
  monkeypatch.setattr(recommender_lib, '_SCORES', 7 * len(items))
  monkeypatch.setattr(recommender_lib, '_BLOCK', 14)
  assert len(list(model.recommend(users, items, K, exclude))) == 3
  found = _rank(model, users, items, exclude=exclude)
  np.testing.assert_array_equal(found[0], expected[0])
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)


def test_many_candidates_are_ranked_on_all_devices(shop, monkeypatch):
  """With the lists of one device; scores may differ by rounding."""
  model = _towers(shop.model)
  users, items = model.users(), model.items()
  exclude = model.seen(users, items)
  expected = _rank(model, users, items, exclude=exclude)
  monkeypatch.setattr(recommender_lib, '_FEW', 1)
  parts, top = [], top_k.Catalogue.top

  def spy(catalogue, *given, **how):
    parts.append(catalogue._items.addressable_data(0).size)
    return top(catalogue, *given, **how)

  monkeypatch.setattr(top_k.Catalogue, 'top', spy)
  item, score = _rank(model, users, items, exclude=exclude)
  np.testing.assert_array_equal(item, expected[0])
  np.testing.assert_allclose(score, expected[1], rtol=1e-5)
  rank = model.cfg.model.rank
  assert parts and set(parts) == {-(-len(items) // 8) * rank}


def test_features_alone_take_no_history(shop, monkeypatch):
  """Without histories what is told of users counts in statistics alone."""
  model = _towers(shop.model)
  settings = dataclasses.replace(model.cfg.features, preference='none')
  cfg = dataclasses.replace(model.cfg, features=settings)
  model = dataclasses.replace(model, cfg=cfg)
  plan, items, _ = _warm_up(model)
  users = model.users().select(plan.rows)
  told = dataclasses.replace(users, history=plan.shown(2))
  score = lambda users: _rank(model, users, items)[1]
  assert not np.array_equal(score(told), score(users))
  nothing = lambda table, rows, number: table
  monkeypatch.setattr(tables_lib.SideTable, 'with_reactions', nothing)
  np.testing.assert_array_equal(score(told), score(users))


def test_equal_scores_go_to_the_first_candidate(shop):
  model = _towers(shop.model)
  zero = jax.tree.map(lambda x: 0 * x, model.scorer.variables)
  scorer = dataclasses.replace(model.scorer, variables=zero)
  model = dataclasses.replace(model, scorer=scorer)
  users = model.users().select(slice(0, 2))
  items = model.items().select(np.array([9, 3, 5, 8]))
  exclude = scipy.sparse.csr_array(np.array([[0, 1, 0, 0], [0, 0, 0, 0]]))
  item, score = _rank(model, users, items, k=3, exclude=exclude)
  np.testing.assert_array_equal(item, [[0, 2, 3], [0, 1, 2]])
  np.testing.assert_array_equal(score, np.zeros((2, 3)))


def test_short_lists_are_filled_up(shop):
  model = shop.model
  users, items = model.users(), model.items().select(slice(0, 3))
  everything = scipy.sparse.csr_array(np.ones((len(users), 3)))
  item, score = _rank(model, users, items, k=4)
  assert (item[:, 3] == -1).all() and (score[:, 3] == -np.inf).all()
  assert (np.sort(item[:, :3], axis=1) == np.arange(3)).all()
  item, score = _rank(model, users, items, k=2, exclude=everything)
  assert (item == -1).all() and (score == -np.inf).all()
  assert not list(model.recommend(users.select(slice(0, 0)), items, 2))


def test_lists_are_products_of_embeddings(shop):
  model = shop.model
  users, items = model.users().select(slice(3, 9)), model.items()
  item, score = _rank(model, users, items)
  pair = model.embed_users(users), model.embed_items(items)
  whole = np.asarray(embeddings.score(*pair))
  expected = np.take_along_axis(whole, item, axis=1)
  np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(score[:, 0], whole.max(axis=1), rtol=1e-5)


def test_what_users_have_met(shop):
  """Training pairs, weights of 0 as well, and histories; by the candidate."""
  model = shop.model
  likes = model.problem.likes()
  likes.data[:5] = 0
  vars(model)['likes'] = likes
  items = model.items().select(np.array([4, 0, 12]))
  rows = np.array([3, 0])
  history = scipy.sparse.csr_array(np.eye(2, likes.shape[1], 12))
  ids = np.array(['x', 'u3', 'u0'])
  more = scipy.sparse.vstack([history[[0]], 0 * history]).tocsr()
  users = rows_lib.Rows(ids, np.array([-1, *rows]), history=more)
  found = model.seen(users, items).toarray() > 0
  pairs = model.problem.split.train
  train = set(zip(pairs.user.tolist(), pairs.item.tolist()))
  expected = [[False, False, True]] + [
      [(row, item) in train for item in (4, 0, 12)] for row in rows.tolist()
  ]
  np.testing.assert_array_equal(found, expected)
  del vars(model)['likes']


def test_scores_that_are_not_finite_are_refused(shop):
  model = _towers(shop.model)
  nan = jax.tree.map(lambda x: np.nan * x, model.scorer.variables)
  scorer = dataclasses.replace(model.scorer, variables=nan)
  model = dataclasses.replace(model, scorer=scorer)
  with pytest.raises(errors.UserError, match='scores are not finite, for user'):
    _rank(model, model.users(), model.items())


def test_what_callers_must_not_do(shop):
  model = shop.model
  users, items = model.users(), model.items()
  with pytest.raises(ValueError, match='k must be at least 1: 0'):
    next(model.recommend(users, items, 0))
  exclude = scipy.sparse.csr_array((len(users), 1))
  with pytest.raises(ValueError, match='exclude'):
    next(model.recommend(users, items, 1, exclude))


def test_encoders_of_a_run_know_its_columns(shop):
  kinds = {
      side: {n: kind.kind for n, kind in encoder.columns.items()}
      for side, encoder in shop.model.encoders.items()
  }
  assert kinds == {
      'user': {
          'region': 'strings',
          'age': 'number',
          'about': 'strings',
          'visits': 'sequences',
      },
      'item': {'tags': 'tags', 'image': 'vectors'},
  }
  again = features.load(shop.run, 'item').columns
  assert again == shop.model.encoders['item'].columns
  assert again['image'].width == 3


def test_an_index_of_a_run_gives_its_lists(shop):
  model = shop.model
  users, items = model.users(), model.items()
  _, score = _rank(model, users, items)
  found = factory.of_run('exact', model).search(model.embed_users(users), K)
  np.testing.assert_allclose(found.scores, score, atol=1e-5)
  some = items.select(np.arange(7))
  item, _ = _rank(model, users, some)
  found = factory.of_run('exact', model, some).search(
      model.embed_users(users), K
  )
  # Scores that are equal but for rounding may change places.
  assert (found.ids == some.ids[item]).mean() > 0.98
