# SPDX-License-Identifier: Apache-2.0
"""What a score is made of: sums that are exact, and what is missed if gone."""

import copy
import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.serving import explain as explain_lib
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import told_preference


def _with_part(ranker, **changes):
  """A library whose sparse part is fitted with other settings."""
  settings = dataclasses.replace(ranker.cfg.model.sparse, **changes)
  part = sparse_fit.fit(ranker.problem, settings, seed=0)
  cfg = copy.deepcopy(ranker.cfg)
  cfg.model.sparse = settings
  part = part.with_teacher(cfg, ranker.problem)
  scorer = dataclasses.replace(ranker.scorer, sparse=part)
  return facade.Recommender(dataclasses.replace(ranker, scorer=scorer))


@pytest.fixture(name='model', scope='module')
def fixture_model(shop):
  """Histories cut to three items, and a second kernel."""
  model = _with_part(
      shop.model,
      history_size=3,
      length_power=0.5,
      landmarks=6,
      history_weight=0.4,
      predicted_weight=0.2,
      norm_power=0.4,
  )
  second = model.ranker.scorer.sparse.second
  assert second is not None and second.width
  return model


def _expecting(model):
  """The same where content of users lets expect histories."""
  return _with_part(
      model.ranker, history_size=3, history_weight=0.4, expected_weight=3.0
  )


def _score(model, user, item, history=None):
  found = model.recommend(
      [user], 1, candidates=[item], history=history, exclude_seen=False
  )
  return found.column('score')[0].as_py()


@pytest.mark.parametrize(
    'user, history',
    [
        ('u1', None),
        ('u1', {'u1': ['i2', 'i9']}),
        ({'user_id': 'n', 'age': 30}, {'n': ['i3', 'i4']}),
    ],
)
def test_parts_sum_to_the_score(model, user, history):
  item = {'item_id': 'fresh', 'tags': ['word1', 'word2', 'word3']}
  for one in ('i5', item):
    found = model.explain(user, one, history)
    score = _score(model, user, one, history)
    assert found.score == pytest.approx(score, rel=1e-4, abs=1e-5)
    assert found.score == pytest.approx(sum(found.parts.values()))
    assert set(found.parts) == {
        'towers',
        'tags',
        'correction',
        'itself',
        'teacher',
    }
    tags = sum(value for _, value in found.tags)
    assert tags == pytest.approx(found.parts['tags'], rel=1e-5, abs=1e-7)
    assert any(value for _, value in found.tags)
    shares = sum(share.value for share in found.history)
    sparse = sum(found.parts.values()) - found.parts['towers']
    assert shares + found.rest == pytest.approx(sparse, rel=1e-5, abs=1e-6)
    is_told = isinstance(user, dict)
    # Of what is told nothing is cut; of smoothed histories something is.
    assert (abs(found.rest) < 1e-6) == is_told
    if is_told:
      assert {share.item for share in found.history} == {'i3', 'i4'}
      assert all(share.met for share in found.history)


def test_tags_and_items_by_the_definition(shop, model):
  """Of a user with a told history: products of contents, tag by tag."""
  ranker = model.ranker
  part = ranker.scorer.sparse
  content = ranker.problem.item.sparse.toarray().astype(np.float64)
  length = part.lengths.of(ranker.problem.item.sparse)
  found = model.explain({'user_id': 'n'}, 'i5', {'n': ['i3', 'i4']})
  profile = length[3] * content[3] + length[4] * content[4]
  of_fifth = ranker.problem.item.sparse[[5]]
  scale = part.item_scale(of_fifth)[0]
  assert scale != 1
  by_tag = profile * scale * length[5] * content[5] / part.correction.divisor
  names = ranker.encoders['item'].sparse_names
  tags = dict(found.tags)
  for name, value, own in zip(names, by_tag, content[5]):
    assert (name in tags) == (own > 0)
    assert tags.get(name, 0) == pytest.approx(value, rel=1e-4, abs=1e-7)
  dense = part.item_dense(ranker.problem.item.sparse)
  sign = np.where(np.arange(dense.shape[1]) < part.second.width, 1.0, -1.0)
  # By the normal equations of the teacher, of one like after the other.
  factors = ranker.problem.factors.item.astype(np.float64)
  own, settings = factors[[3, 4]], ranker.cfg.teacher
  matrix = factors.T @ factors + settings.confidence * own.T @ own
  matrix += settings.regularization * np.eye(len(matrix))
  of_item = part.teacher_columns(of_fifth, part.teacher.liked(np.array([5])))[0]
  shares = (1 + settings.confidence) * own @ np.linalg.solve(matrix, of_item)
  of_teacher = dict(zip([3, 4], shares))
  assert found.parts['teacher'] == pytest.approx(sum(of_teacher.values()))
  for share in found.history:
    other = int(share.item[1:])
    dot = length[other] * content[other] @ (length[5] * content[5])
    dot += (sign * dense[other]) @ dense[5]
    value = scale * dot / part.correction.divisor + of_teacher[other]
    assert share.value == pytest.approx(value, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize('told', [[], ['i3', 'i4']])
def test_items_that_content_lets_expect(model, told):
  """They make the score of a new user, and are none that she has met."""
  model = _expecting(model)
  user = {'user_id': 'n', 'age': 30}
  history = {'n': told} if told else None
  found = model.explain(user, 'i5', history)
  score = _score(model, user, 'i5', history)
  assert found.score == pytest.approx(score, rel=1e-4, abs=1e-5)
  shares = sum(share.value for share in found.history)
  sparse = found.score - found.parts['towers']
  assert shares == pytest.approx(sparse, rel=1e-4, abs=1e-6)
  assert abs(sparse) > 1e-3
  assert {share.item for share in found.history if share.met} == set(told)
  expected = {share.item for share in found.history if not share.met}
  assert len(expected - set(told)) > 0 and len(expected) <= 3


def test_they_are_of_the_content_and_less_with_likes(model):
  """A user of the run and one like her are told the same."""
  model = _expecting(model)
  ranker = model.ranker
  part, problem = ranker.scorer.sparse, ranker.problem
  likes = problem.like_counts()[0]
  known = int(np.flatnonzero(likes == 0)[0])
  twin = problem.user.ids[known]
  ages = {30: {'user_id': 'n', 'age': 30}, 60: {'user_id': 'o', 'age': 60}}
  sparse = model.embed_users([*ages.values()]).sparse
  assert abs(sparse[[0]] - sparse[[1]]).max() > 1e-3
  told = model.embed_users([twin], {twin: ['i3', 'i4']})
  rows = np.array([known])
  shown = scipy.sparse.csr_array(
      (np.ones(2, np.float32), ([0, 0], [3, 4])),
      shape=(1, len(problem.item.ids)),
  )
  content = problem.item.sparse
  other = part.with_histories(rows, shown, content, problem.user.dense[rows])
  expected = other.user_rows(rows, content)
  width = expected[0].shape[1]
  np.testing.assert_allclose(told.dense[:, :width], expected[0], atol=1e-5)
  np.testing.assert_allclose(
      told.sparse.toarray(), expected[1].toarray(), atol=1e-5
  )


def _dense_history(model, rows):
  """Their histories in the sparse part, as they are multiplied with content."""
  return model.ranker.user_parts(rows)[1].history.toarray()


@pytest.mark.parametrize('number', [0, 1])
def test_a_user_of_training_who_is_told_more(model, number):
  """Of whom less is expected than before, and no less than nothing."""
  model = _expecting(model)
  ranker = model.ranker
  part, problem = ranker.scorer.sparse, ranker.problem
  likes = problem.like_counts()[0]
  row = int(np.flatnonzero((likes > 0) == bool(number))[0])
  seen = set(problem.likes()[[row]].indices.tolist())
  new = [n for n in range(len(problem.item.ids)) if n not in seen][:2]
  name = problem.user.ids[row]
  rows = model._rows('user', [name], 'users', {name: [f'i{n}' for n in new]})
  found = _dense_history(model, rows[0])
  before, after = part.expected.share(np.array([likes[row], likes[row] + 2]))
  expected = part.expected(problem.user.dense[[row]]).toarray()
  expected = part.history[[row]].toarray() + (after - before) * expected * (
      part.lengths.of(problem.item.sparse)
  )
  expected[0, new] += part.lengths.of(problem.item.sparse)[new]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert before > after > 0 and found.min() > -1e-6


@pytest.mark.parametrize('told', [[], ['i3', 'i4']])
def test_content_that_is_read_again_expects_something_else(model, told):
  """Like that of a user of whom nothing else is known."""
  model = _expecting(model)
  problem = model.ranker.problem
  row = int(np.flatnonzero(problem.like_counts()[0] == 0)[0])
  history = {'n': told} if told else None
  rows, _ = model._rows('user', [{'user_id': 'n', 'age': 60}], '', history)
  same = dataclasses.replace(
      rows, row=np.array([row]), changed=np.array([True])
  )
  known = dataclasses.replace(same, changed=None)
  new, changed, old = (
      _dense_history(model, one) for one in (rows, same, known)
  )
  np.testing.assert_allclose(changed, new, atol=1e-6)
  assert np.abs(changed - old).max() > 1e-3


def _loss(found, side, kind, name):
  (loss,) = [
      loss.value
      for loss in found.without
      if (loss.side, loss.kind, loss.name) == (side, kind, name)
  ]
  return loss


def test_features_that_are_missed(model):
  """As if the user or item had come without the column."""
  user = {
      'user_id': 'n',
      'region': 'north',
      'age': 30,
      'about': 'loud music',
      'visits': ['word1', 'word2'],
  }
  item = {'item_id': 'x', 'tags': ['word1', 'word4'], 'image': [1.0, 0, 2]}
  found = model.explain(user, item)
  assert {loss.name for loss in found.without if loss.side == 'user'} == {
      *user
  } - {'user_id'}
  towers = found.parts['towers']
  for side, row in (('user', user), ('item', item)):
    for name in {*row} - {f'{side}_id'}:
      pair = {'user': user, 'item': item}
      pair[side] = {key: row[key] for key in row if key != name}
      without = model.explain(pair['user'], pair['item']).parts['towers']
      loss = _loss(found, side, 'feature', name)
      assert loss == pytest.approx(towers - without, rel=1e-3, abs=1e-4)
  values = [abs(loss.value) for loss in found.without]
  assert values == sorted(values, reverse=True)


def _towers_when_told(model, row, met):
  """The towers' score of a cold user and i5 by the way of the evaluation."""
  ranker, number = model.ranker, len(model.ranker.problem.item.ids)
  cold = np.array([row])

  def score(known):
    history = scipy.sparse.csr_array(
        np.isin(np.arange(number), known)[None].astype(np.float32)
    )
    preference = told_preference.preference(
        ranker.cfg,
        ranker.problem,
        ranker.scorer.tables,
        'user',
        history,
        np.array([True]),
    )
    told = ranker.scorer.with_reactions('user', cold, np.array([len(met)]))
    emb = told.with_told('user', cold, preference).all_embeddings()
    return ranker.scorer.tower_weight * (emb['user'][row] @ emb['item'][5])

  return score


def test_items_of_a_history_that_are_missed(model, monkeypatch):
  row = int(model.ranker.problem.split.evaluation['cold_user'].user[0])
  user = model.ranker.problem.user.ids[row].item()
  trained = model.ranker.problem.split.train_rows()[1]
  cold = model.ranker.problem.split.evaluation['cold_item'].candidates[0]
  met = [*trained[:3].tolist(), int(cold)]
  found = model.explain(user, 'i5', {user: [f'i{n}' for n in met]})
  score = _towers_when_told(model, row, met)
  for item in met:
    loss = _loss(found, 'user', 'history', f'i{item}')
    without = score([n for n in met if n != item])
    assert loss == pytest.approx(score(met) - without, rel=1e-3, abs=1e-5)
  # The teacher knows nothing of an item that nobody met in training.
  assert _loss(found, 'user', 'history', f'i{cold}') == 0
  monkeypatch.setattr(explain_lib, '_MOST', 2)
  few = model.explain(user, 'i5', {user: [f'i{n}' for n in met]})
  kept = [loss.name for loss in few.without if loss.kind == 'history']
  own = model.embed_items(None).dense[:, -4:]
  order = sorted(met, key=lambda n: -(own[n] @ own[5]))
  assert {*kept} == {f'i{n}' for n in order[:2]}


def test_the_only_item_of_a_history_is_all_factors(model):
  """Statistics stay in both cases, and count as they do without factors."""
  told = {'n': ['i3']}
  found = model.explain({'user_id': 'n', 'age': 30}, 'i5', told)
  item = _loss(found, 'user', 'history', 'i3')
  assert abs(item) > 1e-3
  factors = _loss(found, 'user', 'preference', 'factors')
  assert factors == pytest.approx(item, rel=1e-5)


def test_of_a_forgotten_user_what_is_told_alone_counts(model):
  """As of a new row, though training knew her."""
  ranker = model.ranker
  row = np.argmax(np.diff(ranker.likes.indptr), keepdims=True)
  known = {*ranker.likes.indices[slice(*ranker.likes.indptr[row[0] :][:2])]}
  trained = ranker.problem.split.train_rows()[1].tolist()
  met = sorted([n for n in trained if n not in known][:2] + [min(known)])
  history = np.zeros((1, len(ranker.problem.item.ids)), np.float32)
  history[0, met] = 1
  user = dataclasses.replace(
      ranker.users().select(row),
      history=scipy.sparse.csr_array(history),
      forgotten=np.ones(1, bool),
  )
  item = ranker.items().select(np.array([5]))
  found = explain_lib.explain(ranker, user, item)
  read = ranker.row_tables.read('user', user).table
  item_emb = ranker.embed_items(item).dense[0, -4:]

  def score(kept):
    some = history.copy()
    some[0, [n for n in met if n not in kept]] = 0
    value, present, trust = told_preference.preference(
        ranker.cfg,
        ranker.problem,
        ranker.scorer.tables,
        'user',
        scipy.sparse.csr_array(some),
        np.array([True]),
    )
    table = dataclasses.replace(
        read, preference=value, present=present, trust=trust
    )
    tower = ranker.embed_table('user', table)[0]
    return float(ranker.scorer.tower_weight * (tower @ item_emb))

  assert found.parts['towers'] == pytest.approx(score(met), rel=1e-3, abs=1e-5)
  losses = [loss for loss in found.without if loss.kind == 'history']
  assert {loss.name for loss in losses} == {f'i{n}' for n in met}
  for n in met:
    expected = score(met) - score([x for x in met if x != n])
    loss = _loss(found, 'user', 'history', f'i{n}')
    assert loss == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize('preference', ['none', 'file'])
def test_without_a_teacher_of_its_own_no_item_is_missed(shop, preference):
  """Factors from elsewhere are of no history, and features have none."""
  ranker = shop.model
  kind = 'none' if preference == 'none' else 'factors'
  cfg = dataclasses.replace(
      ranker.cfg,
      features=dataclasses.replace(ranker.cfg.features, preference=kind),
      teacher=dataclasses.replace(ranker.cfg.teacher, source='file'),
  )
  model = facade.Recommender(dataclasses.replace(ranker, cfg=cfg))
  assert not [
      x for x in model.explain('u1', 'i5').without if x.kind == 'history'
  ]
  told = model.explain({'user_id': 'n'}, 'i5', {'n': ['i3']}).without
  kinds = [loss for loss in told if loss.kind == 'history']
  assert bool(kinds) == (preference == 'file')  # of whom they know nothing


def test_towers_alone(shop):
  """No sparse part, and nothing that could be said of it."""
  scorer = dataclasses.replace(shop.model.scorer, sparse=None)
  model = facade.Recommender(dataclasses.replace(shop.model, scorer=scorer))
  found = model.explain('u1', 'i5')
  assert (found.user, found.item) == ('u1', 'i5')
  assert found.score == pytest.approx(_score(model, 'u1', 'i5'), rel=1e-4)
  assert (found.tags, found.history, found.rest) == ([], [], 0)
  assert found.parts == {'towers': found.score} and found.without
