# SPDX-License-Identifier: Apache-2.0
"""The run as a library: tables in, and what the evaluation says comes out."""

import dataclasses
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

import dropoutnet_jax
from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_files


@pytest.fixture(name='model', scope='module')
def fixture_model(shop):
  return facade.Recommender(shop.model)


def _lists(table):
  """Of each user, in order: item ids and scores, best first."""
  lists: dict[Any, list] = {}
  for row in table.to_pylist():
    found = lists.setdefault(row['user_id'], [])
    found.append((row['item_id'], row['score']))
    assert row['rank'] == len(found)
  return lists


def _scores(table):
  return table.column('score').to_numpy()


@pytest.mark.parametrize(
    'split', ['warm', 'cold_item', 'cold_user', 'cold_both']
)
def test_lists_are_the_ranking_of_the_evaluation(shop, model, split):
  """Of every test user and all candidates, by the evaluation's own scores."""
  problem = shop.model.problem
  held_out = problem.split.evaluation[split]
  users = np.unique(held_out.user)
  score = shop.model.scorer.methods()['model'](split, held_out)
  scores = np.array(score(users))
  if held_out.exclude_train:
    seen = shop.model.likes[users][:, held_out.candidates].toarray() > 0
    assert seen.any()
    scores[seen] = -np.inf
  candidates = problem.item.ids[held_out.candidates].tolist()
  number = len(candidates)
  found = _lists(
      model.recommend(
          problem.user.ids[users].tolist(), number, candidates=candidates
      )
  )
  assert list(found) == problem.user.ids[users].tolist()
  for row, ranked in zip(scores, found.values(), strict=True):
    order = np.argsort(-row, kind='stable')[: np.isfinite(row).sum()]
    assert [item for item, _ in ranked] == [candidates[n] for n in order]
    found_scores = [score for _, score in ranked]
    np.testing.assert_allclose(found_scores, row[order], rtol=1e-5, atol=1e-6)


def _new_rows(shop, name, rows):
  """Rows of a table of the shop under new ids: what a program would have."""
  header, *table = shop.rows(name)
  path = shop.folder / f'again_{name}'
  chosen = [('new ' + table[n][0], *table[n][1:]) for n in rows]
  lines = ['\t'.join(row) for row in [header, *chosen]]
  path.write_text('\n'.join(lines))
  columns = list(zip(*chosen))
  return {
      key: [value or None for value in values]
      for key, values in zip(header, columns)
  }


def test_a_new_user_with_clicks_is_a_cold_one_of_the_curve(shop, model):
  """Columns and clicks of a program, against rows of the evaluation."""
  plan = warm_up.plan(shop.model.problem, 'user', most=2, seed=0)
  columns = _new_rows(shop, 'users.csv', plan.rows)
  columns['age'] = [None if x is None else float(x) for x in columns['age']]
  columns['visits'] = [x and x.split('|') for x in columns['visits']]
  ids = shop.model.problem.item.ids
  shown = plan.shown(2)
  history = {
      user: ids[shown[[n]].indices].tolist()
      for n, user in enumerate(columns['user_id'])
  }
  cold = shop.model.problem.user.ids[plan.rows].tolist()
  known = dict(zip(cold, history.values()))
  expected = model.embed_users(cold, known)
  found = model.embed_users(columns, history)
  assert found.ids.tolist() == columns['user_id']
  np.testing.assert_array_equal(found.dense, expected.dense)
  np.testing.assert_array_equal(
      found.sparse.toarray(), expected.sparse.toarray()
  )
  bare = model.embed_users(columns)
  assert not bare.sparse.nnz and (bare.dense != found.dense).any()
  table = pa.table(
      {
          'user_id': [u for u, met in history.items() for _ in met],
          'item_id': [i for met in history.values() for i in met],
          'label': [1.0 for met in history.values() for _ in met],
      }
  )
  again = model.embed_users(columns, table)
  np.testing.assert_array_equal(again.dense, found.dense)
  table = table.set_column(2, 'label', [pa.array([0.0] * len(table))])
  unliked = model.embed_users(columns, table)
  np.testing.assert_array_equal(unliked.dense, bare.dense)


def test_a_new_item_with_users_is_a_cold_one(shop, model):
  cold = shop.model.problem.split.evaluation['cold_item'].candidates
  columns = _new_rows(shop, 'items.csv', cold)
  columns['tags'] = [x.split('|') for x in columns['tags']]
  columns['image'] = np.array(
      [[float(y) for y in x.split('|')] for x in columns['image']]
  )
  ids = shop.model.problem.item.ids[cold].tolist()
  users = shop.model.problem.user.ids[
      shop.model.problem.split.train_rows()[0][:3]
  ].tolist()
  for first, second in zip(
      [model.embed_items(ids), model.embed_items(ids, {ids[0]: users})],
      [
          model.embed_items(columns),
          model.embed_items(columns, {columns['item_id'][0]: users}),
      ],
  ):
    np.testing.assert_array_equal(first.dense, second.dense)
    np.testing.assert_array_equal(
        first.sparse.toarray(), second.sparse.toarray()
    )
  moved = (first.dense != model.embed_items(ids).dense).any(axis=1)
  assert moved.tolist() == [True] + [False] * (len(ids) - 1)


def test_files_and_programs_say_the_same(shop, model, csv_file):
  """What `run.py recommend` reads of a file, given as a table."""
  rows = [('n1', 'north', '30', 'loud music', 'word1|word2'), ('u3', *4 * [''])]
  header = ('user_id', 'region', 'age', 'about', 'visits')
  path = csv_file('users.csv', header, *rows)
  read, _ = request_files.read_rows(path, 'user', shop.model)
  expected = shop.model.embed_users(read)
  found = model.embed_users(
      [
          {
              'user_id': 'n1',
              'region': 'north',
              'age': 30,
              'about': 'loud music',
              'visits': ['word1', 'word2'],
          },
          {'user_id': 'u3'},
      ]
  )
  np.testing.assert_array_equal(found.dense, np.asarray(expected.dense))


def test_scores_are_products_of_what_is_embedded(model):
  users, items = ['u1', 'nobody'], ['i4', 'nothing', 'i2']
  user, item = model.embed_users(users), model.embed_items(items)
  scores = user.dense @ item.dense.T + (user.sparse @ item.sparse.T).toarray()
  found = model.recommend(users, 3, candidates=items, exclude_seen=False)
  order = np.argsort(-scores, axis=1)
  np.testing.assert_allclose(
      _scores(found), np.take_along_axis(scores, order, 1).ravel(), rtol=1e-4
  )
  assert found.column('item_id').to_pylist() == [
      items[n] for n in order.ravel()
  ]
  everyone = model.embed_users(None)
  np.testing.assert_array_equal(everyone.dense[1], user.dense[0])
  assert len(model.embed_items([]).ids) == 0


def test_what_users_know_or_must_not_get_is_left_out(shop, model):
  every = shop.model.problem.item.ids.tolist()
  seen = {every[n] for n in shop.model.likes[[1]].indices}
  got = lambda **asked: {
      item for item, _ in _lists(model.recommend(['u1'], 99, **asked))['u1']
  }
  assert got() == set(every) - seen
  assert got(exclude_seen=False) == set(every)
  assert got(exclude=['i0', 'other'], exclude_seen=False) == {*every} - {'i0'}
  assert got(exclude=[], exclude_seen=False) == {*every}
  banned = {'u1': ['i2', 'other'], 'u2': ['i3']}
  assert got(exclude=banned, exclude_seen=False) == {*every} - {'i2'}
  table = pa.table({'user_id': ['u1', 'u2'], 'item_id': ['i2', 'i3']})
  assert got(exclude=table, exclude_seen=False) == {*every} - {'i2'}
  new = [*every, {'item_id': 'fresh'}]
  new = [{'item_id': x} if isinstance(x, str) else x for x in new]
  told = {'u1': ['fresh', sorted(set(every) - seen)[0]]}
  assert got(history=told, candidates=new) == set(every) - seen - {*told['u1']}
  assert 'fresh' in got(history=told, candidates=new, exclude_seen=False)


def _cosines(query, across):
  whole = lambda x: np.hstack([x.dense, x.sparse.toarray()])
  one, other = whole(query), whole(across)
  one, other = (
      x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
      for x in (one, other)
  )
  return one @ other.T


def _without_correction(model, side, emb):
  """The columns that similarity is of, scaled to be symmetric."""
  scorer = model.ranker.scorer
  part, weight = scorer.sparse, scorer.tower_weight
  tower, divisor = emb.dense[:, -4:], part.correction.divisor
  scale = weight**-0.5 if side == 'user' else weight**0.5
  power = 0.5 if side == 'user' else -0.5
  return facade.Embedded(
      emb.ids, tower * scale, emb.sparse * np.float32(divisor**power)
  )


@pytest.mark.parametrize('side', ['user', 'item'])
def test_neighbours_are_those_of_brute_force(model, side, monkeypatch):
  monkeypatch.setattr(facade.neighbours, '_BLOCK', 16)
  monkeypatch.setattr(facade.neighbours, '_QUERIES', 2)
  embed = getattr(model, f'embed_{side}s')
  search = getattr(model, f'similar_{side}s')
  asked = [f'{side[0]}2', 'stranger', f'{side[0]}5']
  every, some = (
      _without_correction(model, side, embed(ids)) for ids in (None, asked)
  )
  expected = _cosines(some, every)
  expected[0, 2] = expected[2, 5] = -np.inf  # nobody is her own neighbour
  found = search(asked, 4)
  assert found.column_names == [f'{side}_id', 'rank', 'similar_id', 'score']
  assert found.column(f'{side}_id').to_pylist() == [
      x for x in asked for _ in range(4)
  ]
  best = np.argsort(-expected, axis=1)[:, :4]
  np.testing.assert_allclose(
      _scores(found),
      np.take_along_axis(expected, best, 1).ravel(),
      rtol=1e-4,
      atol=1e-6,
  )
  ids = every.ids[best].ravel().tolist()
  assert found.column('similar_id').to_pylist() == ids
  assert len(search(asked, 99)) == 3 * len(every.ids) - 2


def test_the_audience_of_a_new_item(shop, model, monkeypatch):
  monkeypatch.setattr(facade.neighbours, '_BLOCK', 16)
  new = [{'item_id': 'x', 'tags': ['word1', 'word2']}, {'item_id': 'i3'}]
  item, user = model.embed_items(new), model.embed_users(None)
  scores = item.dense @ user.dense.T + (item.sparse @ user.sparse.T).toarray()
  met = shop.model.likes.toarray()[:, 3] > 0
  scores[1, met] = -np.inf
  found = model.audience(new, len(user.ids))
  assert found.column_names == ['item_id', 'rank', 'user_id', 'score']
  of_item = found.column('item_id').to_pylist()
  assert (of_item.count('x'), of_item.count('i3')) == (36, 36 - met.sum())
  order = np.argsort(-scores, axis=1)
  expected = [*user.ids[order[0]], *user.ids[order[1, : 36 - met.sum()]]]
  assert found.column('user_id').to_pylist() == expected
  told = model.audience(new, 36, history={'x': ['u1', 'u2']})
  assert len(told) == len(found) - 2
  everyone = model.audience(
      new, 36, history={'x': ['u1', 'u2']}, exclude_seen=False
  )
  assert len(everyone) == 2 * 36


def test_few_sizes_are_compiled_for(shop):
  """Another number of users, candidates or clicks is no new program."""
  scorer = dataclasses.replace(shop.model.scorer, sparse=None)
  model = facade.Recommender(dataclasses.replace(shop.model, scorer=scorer))
  every = shop.model.problem.item.ids.tolist()

  def ask(users, items):
    history = {user: every[: 1 + users] for user in ('a', 'b', 'c')[:users]}
    model.recommend([*history], 2, candidates=every[:items], history=history)
    model.similar_items(every[:users], 2)

  ask(3, 20)
  programs = (
      recommender_lib._score,
      recommender_lib.top_k._top_of_scores,
      facade.neighbours._score,
  )
  before = [program._cache_size() for program in programs]
  for users, items in ((1, 20), (2, 17), (3, 29)):
    ask(users, items)
  assert [program._cache_size() for program in programs] == before


def test_the_package_loads_a_run(shop, monkeypatch):
  load = {shop.run: shop.model}.__getitem__
  monkeypatch.setattr(recommender_lib, 'load', load)
  loaded = dropoutnet_jax.load(shop.run)
  assert isinstance(loaded, facade.Recommender)
  assert loaded.ranker is shop.model


def test_the_package_itself_is_cheap_to_import():
  code = (
      'import sys, dropoutnet_jax; '
      'print({"jax", "numpy", "pyarrow"} & {*sys.modules})'
  )
  ended = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert ended.stdout == 'set()\n'


class Case(NamedTuple):
  """A call that is a mistake, and what must be said of it."""

  call: Any
  message: str


CASES = {
    'k': Case(lambda m: m.recommend(['u1'], 0), 'k=0: it must be a whole num'),
    'k of neighbours': Case(
        lambda m: m.similar_users(['u1'], 2.5), 'k=2.5: it must be a whole nu'
    ),
    'one id': Case(
        lambda m: m.recommend('u1', 3), "users: 'u1' is no table; give a tabl"
    ),
    'twice': Case(
        lambda m: m.embed_users(['a', 'b', 'a']),
        "table: 1 user_id occur more than once, such as 'a' (table, row 1 and "
        'table, row 3). Keep one row for each.',
    ),
    'no id': Case(
        lambda m: m.embed_items([{'item_id': None, 'tags': ['a']}]),
        'table, row 1: item_id is missing',
    ),
    'a value': Case(
        lambda m: m.embed_users([{'user_id': 'n', 'age': 'old'}]),
        "table, row 1: age: 'old' is not a number. Correct it, or leave it em",
    ),
    'a width': Case(
        lambda m: m.embed_items([{'item_id': 'n', 'image': [1.0, 2.0]}]),
        "Column 'image' has 2 numbers per row, but had 3 in training.",
    ),
    'a history of others': Case(
        lambda m: m.recommend(['u1'], 3, history={'u2': ['i1']}),
        "history: none of its user_ids (such as 'u2') is among users (such as "
        "'u1'). Name the same ones.",
    ),
    'a history that is no list': Case(
        lambda m: m.embed_users(['u1'], {'u1': 'i1'}),
        "history: 'i1' of 'u1' is no list of item_ids; write {'u1': ['i1']}.",
    ),
    'a history without items': Case(
        lambda m: m.embed_users(['u1'], pa.table({'user_id': ['u1']})),
        "history: there is no column 'item_id', which config.data.tables.item_",
    ),
    'two rows to explain': Case(
        lambda m: m.explain(['u1', 'u2'], 'i1'),
        'user: 2 rows; one score is explained at a time.',
    ),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_mistakes(model, case):
  with pytest.raises(errors.UserError) as error:
    case.call(model)
  assert case.message in str(error.value)


def test_a_misspelt_column_is_warned_of(model):
  with pytest.warns(UserWarning, match="nothing reads column 'tag'. Did you"):
    model.embed_items([{'item_id': 'new', 'tag': ['word1']}])
