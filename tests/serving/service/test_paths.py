# SPDX-License-Identifier: Apache-2.0
"""What a product calls: lists, embeddings, and changes that count at once."""

import numpy as np
import pytest

from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.service import asks
from tests.serving import conftest as shop_lib

CONTENT = {'tags': ['word1', 'word3'], 'image': [0.5, -1.0, 2.0]}


def _ranked(shop, users, items=None, k=30):
  """Lists of ids by the run's own ranking."""
  model = shop.model
  items = model.items() if items is None else items
  lists = next(iter(model.recommend(users, items, k)))
  return [
      [(items.ids[n], float(score)) for n, score in zip(row, scores) if n >= 0]
      for row, scores in zip(lists.item, lists.score)
  ]


def test_lists_are_those_of_the_run(shop, fresh):
  users = shop.model.users()
  expected = _ranked(shop, users)
  asked = [{'id': name} for name in users.ids]
  found = fresh.post('/recommend', users=asked, k=30, exclude_seen=False)
  assert found['step'] == shop.model.step
  for name, one, wanted in zip(
      users.ids, found['lists'], expected, strict=True
  ):
    assert one['user'] == name and one['known']
    scores = [item['score'] for item in one['items']]
    np.testing.assert_allclose(scores, [x for _, x in wanted], atol=1e-5)
    assert {x['id'] for x in one['items']} == {x for x, _ in wanted}
    assert one['items'][0]['id'] == wanted[0][0]


def test_known_items_leave_the_list_unless_asked_for(shop, fresh):
  trained = shop.model.likes.indices[: shop.model.likes.indptr[1]]
  met = {shop.model.problem.item.ids[n] for n in trained}
  user = {'id': shop.model.problem.user.ids[0]}
  (without,) = fresh.lists(user)
  (whole,) = fresh.lists(user, exclude_seen=False)
  assert met and set(whole) - set(without) == met
  assert [x for x in whole if x not in met] == without


def test_new_and_known_candidates_part_the_items(shop, fresh):
  user = {'id': 'somebody'}
  (everything,) = fresh.lists(user)
  (new,) = fresh.lists(user, candidates='new')
  (known,) = fresh.lists(user, candidates='known')
  is_trained = shop.model.is_trained(shop.model.items())
  assert set(new) == set(shop.model.problem.item.ids[~is_trained])
  assert sorted(new + known) == sorted(everything)
  assert [x for x in everything if x in set(new)] == new


def test_somebody_new_by_content_and_by_history(shop, fresh):
  content = {'region': 'north', 'age': 33, 'about': 'likes 1984'}
  bare, told, met = fresh.lists(
      {}, {'content': content}, {'history': ['i1', 'i2', 'i3']}
  )
  assert bare != told and bare != met
  assert not set(met) & {'i1', 'i2', 'i3'}
  answer = fresh.post('/recommend', users=[{'content': content}], k=3)
  assert answer['lists'][0]['user'] is None
  assert not answer['lists'][0]['known']


def test_the_company_of_a_user_changes_nothing(fresh):
  users = [{'id': 'u1'}, {'history': ['i4']}, {'content': {'region': 'south'}}]
  together = fresh.lists(*users)
  assert together == [fresh.lists(user)[0] for user in users]


def test_requests_of_any_size_compile_no_tower(shop, fresh):
  compiled = lambda: [
      shop.model.scorer.embedder._embed[side]._cache_size()
      for side in ('user', 'item')
  ]
  before = compiled()
  for size in (1, 2, 5, 8):
    fresh.lists(*[{'history': [f'i{n}', 'i2']} for n in range(size)])
    items = [{'content': CONTENT} for _ in range(size)]
    fresh.post('/embed', items=items)
  assert compiled() == before


def test_embeddings_score_as_lists_do(fresh):
  user = fresh.post('/embed', users=[{'id': 'u3'}])['embeddings'][0]
  items = [{'id': 'i5'}, {'content': CONTENT}]
  found = fresh.post('/embed', items=items)['embeddings']
  assert len(found) == 2

  def score(a, b):
    sparse = dict(zip(a['sparse']['columns'], a['sparse']['values']))
    return np.dot(a['dense'], b['dense']) + sum(
        sparse.get(column, 0) * value
        for column, value in zip(b['sparse']['columns'], b['sparse']['values'])
    )

  listed = fresh.post(
      '/recommend', users=[{'id': 'u3'}], k=30, exclude_seen=False
  )['lists'][0]['items']
  (wanted,) = [item['score'] for item in listed if item['id'] == 'i5']
  assert score(user, found[0]) == pytest.approx(wanted, rel=1e-4)


def test_a_new_item_is_in_the_very_next_list(shop, start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    answer = running.post('/items', items=[{'id': 'fresh', 'content': CONTENT}])
    assert answer == {'put': 1, 'new': 1}
    for mode in ('all', 'new'):
      (found,) = running.lists({'id': 'u1'}, candidates=mode)
      assert 'fresh' in found
    # As the run itself ranks it, among its own items.
    new = rows_lib.Rows(
        np.array(['fresh']),
        np.array([-1]),
        running.service.engine.rows.of_items(
            [asks.Item('fresh', CONTENT)]
        ).entities,
    )
    users = shop.model.users().select(slice(1, 2))
    ((_, score),) = _ranked(shop, users, new, 1)[0]
    listed = running.post('/recommend', users=[{'id': users.ids[0]}], k=100)
    by_id = {x['id']: x['score'] for x in listed['lists'][0]['items']}
    assert by_id['fresh'] == pytest.approx(score, rel=1e-5)
    answer = running.post(
        '/items', items=[{'id': 'fresh', 'content': {}}, {'id': 'i0'}]
    )
    assert answer == {'put': 2, 'new': 0}
    listed = running.post('/recommend', users=[{'id': users.ids[0]}], k=100)
    after = {x['id']: x['score'] for x in listed['lists'][0]['items']}
    assert after['fresh'] != pytest.approx(score, rel=1e-3)


def test_content_of_a_known_item_is_replaced_and_its_preference_kept(
    shop, start, tmp_path
):
  encoder = shop.model.encoders['item']
  row = 3
  name = str(shop.model.problem.item.ids[row])
  with start(tmp_path / 'state.sqlite') as running:
    before = running.post('/embed', items=[{'id': name}])['embeddings'][0]
    running.post('/items', items=[{'id': name, 'content': CONTENT}])
    after = running.post('/embed', items=[{'id': name}])['embeddings'][0]
    bare = running.post('/embed', items=[{'content': CONTENT}])['embeddings'][0]
  assert after['sparse']['columns'] == bare['sparse']['columns']
  assert after['sparse'] != before['sparse']
  assert after['dense'] != bare['dense']  # it has preference, a new one none
  assert encoder.sparse_names


def test_interactions_count_at_once_and_survive(start, tmp_path):
  path = tmp_path / 'state.sqlite'
  pairs = [
      {'user': 'newcomer', 'item': 'i1'},
      {'user': 'newcomer', 'item': 'i2', 'label': 0},
      {'user': 'u1', 'item': 'i9', 'label': 2.5},
  ]
  with start(path) as running:
    (before,), (bare,) = running.lists({'id': 'newcomer'}), running.lists({})
    assert before == bare
    assert running.post('/interactions', interactions=pairs) == {'added': 3}
    (after,) = running.lists({'id': 'newcomer'})
    assert not {'i1', 'i2'} & set(after)
    assert after != [x for x in before if x not in ('i1', 'i2')]
    # What was shown in vain leaves the list and is no history.
    (told,) = running.lists({'history': ['i1']})
    assert [x for x in told if x != 'i2'] == after
    assert 'i9' not in running.lists({'id': 'u1'})[0]
    answer = running.post('/recommend', users=[{'id': 'newcomer'}], k=1)
    assert answer['lists'][0]['known']
    again = running.lists({'id': 'newcomer'}, {'id': 'u1'}, {'id': 'u2'})
  with start(path) as running:
    assert (
        running.lists({'id': 'newcomer'}, {'id': 'u1'}, {'id': 'u2'}) == again
    )


def test_interactions_warm_an_item_up(start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    running.post('/items', items=[{'id': 'fresh', 'content': CONTENT}])
    embed = lambda: running.post('/embed', items=[{'id': 'fresh'}])
    before = embed()
    pairs = [{'user': f'u{n}', 'item': 'fresh'} for n in range(5)]
    running.post('/interactions', interactions=pairs)
    assert embed() != before


def test_deleted_items_are_gone_until_they_are_put_again(start, tmp_path):
  path = tmp_path / 'state.sqlite'
  with start(path) as running:
    running.post('/items', items=[{'id': 'a/b c', 'content': CONTENT}])
    for name in ('i4', 'a/b c'):
      answer = running.client.delete(f'/items/{name}')
      assert answer.json() == {'deleted': name}
      assert running.client.delete(f'/items/{name}').status_code == 404
    assert not {'i4', 'a/b c'} & set(running.lists({})[0])
  with start(path) as running:
    assert not {'i4', 'a/b c'} & set(running.lists({})[0])
    running.post('/items', items=[{'id': 'i4', 'content': CONTENT}])
    assert 'i4' in running.lists({})[0]
  with start(path) as running:
    assert 'i4' in running.lists({})[0]


def test_counts_for_prometheus(start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    running.lists({})
    running.client.get('/nothing')
    running.post('/items', items=[{'id': 'fresh'}])
    text = running.client.get('/metrics').text
  assert (
      'dropoutnet_requests_total{method="POST",path="/recommend",status="200"}'
      ' 1.0'
  ) in text
  assert 'path="other",status="404"' in text
  assert 'dropoutnet_request_seconds_count{path="/items"} 1.0' in text
  assert f'dropoutnet_items {shop_lib.ITEMS + 1}.0' in text
  assert f'dropoutnet_users {shop_lib.USERS}.0' in text
  assert 'dropoutnet_waiting 0.0' in text
