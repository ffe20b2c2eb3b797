# SPDX-License-Identifier: Apache-2.0
"""What the page asks: the run, audiences and warm-ups; reasons of lists."""

import numpy as np
import pytest

from tests.serving import conftest as shop_lib
from tests.serving.service import test_paths


def test_what_the_page_is_made_from(fresh):
  about = fresh.client.get('/page/about').json()
  assert (about['name'], about['users']) == ('shop', shop_lib.USERS)
  user = {column['name']: column for column in about['columns']['user']}
  item = {column['name']: column for column in about['columns']['item']}
  assert user['region']['values'] == ['north', 'south']
  assert user['region']['kind'] == 'strings' and not user['region']['text']
  assert user['about']['text'] and not user['about']['values']
  low, high = user['age']['range']
  assert low < 40 < high
  assert set(item['tags']['values']) <= set(shop_lib.WORDS)
  assert (item['image']['kind'], item['image']['width']) == ('vectors', 3)
  offered = about['some_users']
  assert len(offered) > 5 and all(u['interactions'] >= 5 for u in offered)
  assert {u['trained'] for u in offered} == {True, False}
  assert all('tags=' in x['about'] for x in about['some_items'] if x['about'])


def test_users_are_found_by_how_their_ids_begin(fresh):
  ask = lambda start: [
      user['id']
      for user in fresh.client.get(f'/page/users?start={start}').json()
  ]
  assert ask('u3') == ['u3', *(f'u{n}' for n in range(30, 36))]
  assert ask('nobody') == []
  assert len(ask('')) == 20


def test_an_audience_is_who_scores_highest(shop, fresh):
  content = test_paths.CONTENT
  found = fresh.post('/page/audience', content=content, k=5)
  emb = {
      'users': fresh.post(
          '/embed', users=[{'id': x} for x in shop.model.problem.user.ids]
      ),
      'items': fresh.post('/embed', items=[{'content': content}]),
  }
  user, item = (_matrix(x['embeddings']) for x in emb.values())
  scores = (user @ item.T)[:, 0]
  order = np.argsort(-scores)[:5]
  ids = shop.model.problem.user.ids[order].tolist()
  assert [one['id'] for one in found['users']] == ids
  np.testing.assert_allclose(
      [one['score'] for one in found['users']], scores[order], rtol=1e-4
  )
  assert found['lists'] == shop_lib.USERS  # all are asked in a small run
  places = _places(fresh, shop.model.problem.user.ids, scores)
  assert [one['place'] for one in found['users']] == [places[n] for n in order]
  assert found['landing']['10'] == sum(place <= 10 for place in places)
  assert found['landing']['100'] == shop_lib.USERS


def _matrix(rows):
  width = 1 + max(max(row['sparse']['columns'], default=0) for row in rows)
  width = max(width, 100)
  found = []
  for row in rows:
    sparse = np.zeros(width)
    sparse[row['sparse']['columns']] = row['sparse']['values']
    found.append(np.concatenate([row['dense'], sparse]))
  return np.array(found)


def _places(fresh, users, scores):
  """Where a score stands in the list of each user."""
  asked = [{'id': name} for name in users]
  lists = fresh.post('/recommend', users=asked, k=100)['lists']
  return [
      1 + sum(item['score'] > score for item in one['items'])
      for one, score in zip(lists, scores, strict=True)
  ]


def test_an_audience_follows_interactions(start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    ask = lambda: running.post(
        '/page/audience', content=test_paths.CONTENT, k=50
    )
    before = ask()
    assert len(before['users']) == shop_lib.USERS
    pairs = [{'user': 'newcomer', 'item': f'i{n}'} for n in range(4)]
    running.post('/interactions', interactions=pairs)
    after = ask()
    assert {x['id'] for x in after['users']} == {
        'newcomer',
        *(x['id'] for x in before['users']),
    }
  with start(tmp_path / 'state.sqlite') as running:
    again = running.post('/page/audience', content=test_paths.CONTENT, k=50)
    assert 'newcomer' in {x['id'] for x in again['users']}


def test_a_user_who_is_forgotten_is_a_new_one(shop, fresh):
  model = shop.model
  row = int(np.argmax(np.diff(model.likes.indptr)))
  name = str(model.problem.user.ids[row])
  ask = lambda revealed: fresh.post(
      '/page/warm_up', user=name, revealed=revealed, k=30
  )
  nothing = ask(0)
  assert nothing['revealed'] == [] and nothing['hidden'] == nothing['total']
  (known,) = fresh.lists({'id': name}, k=30, exclude_seen=False)
  assert [x['id'] for x in nothing['items']] != known
  hits = [x['id'] for x in nothing['items'] if x['hit']]
  assert nothing['hits'] == len(hits) == nothing['total']  # all 30 are listed
  trained = {
      str(model.problem.item.ids[n])
      for n in model.likes.indices[slice(*model.likes.indptr[row : row + 2])]
  }
  assert trained <= set(hits)
  some = ask(3)
  shown = [x['id'] for x in some['revealed']]
  assert len(shown) == 3 and not set(shown) & {x['id'] for x in some['items']}
  assert [x['id'] for x in ask(4)['revealed']][:3] == shown
  assert some['items'] != nothing['items']


def test_a_bare_user_of_the_run_scores_as_one_of_her_content(shop, fresh):
  """What is forgotten leaves no trace: the same as a new row's embedding."""
  model = shop.model
  row = int(np.argmax(np.diff(model.likes.indptr)))
  users = shop.rows('users.csv') if hasattr(shop, 'rows') else []
  header, *rows = users
  content = dict(zip(header, rows[row]))
  told = {'region': content['region'] or None, 'about': content['about']}
  if content['age']:
    told['age'] = int(content['age'])
  if content['visits']:
    told['visits'] = content['visits'].split('|')
  name = content['user_id']
  forgotten = fresh.post('/page/warm_up', user=name, revealed=0, k=30)
  bare = fresh.post('/recommend', users=[{'content': told}], k=30)
  wanted = {x['id']: x['score'] for x in bare['lists'][0]['items']}
  for item in forgotten['items']:
    assert item['score'] == pytest.approx(wanted[item['id']], abs=1e-5)


def test_reasons_of_a_list(fresh):
  found = fresh.post(
      '/recommend', users=[{'id': 'u1', 'history': ['i3']}], k=4, reasons=True
  )
  items = found['lists'][0]['items']
  assert all(item['reasons'] for item in items)
  for item in items:
    values = [x['value'] for x in item['reasons'] if x['kind'] != 'history']
    assert values == sorted(values, key=abs, reverse=True)
    assert len(values) <= 3 and len(item['reasons']) <= 6
  kinds = {x['kind'] for item in items for x in item['reasons']}
  assert 'history' in kinds and kinds & {'tag', 'feature', 'preference'}
  plain = fresh.post('/recommend', users=[{'id': 'u1'}], k=1)
  assert plain['lists'][0]['items'][0].keys() == {'id', 'score'}


def test_the_pages_load_nothing_from_elsewhere(fresh):
  for path in ('/', '/docs'):
    answer = fresh.client.get(path)
    policy = answer.headers['Content-Security-Policy']
    assert "connect-src 'self'" in policy and 'unsafe' not in policy
    assert 'http' not in policy
    assert answer.text.count('<html lang="en">') == 1
    for word in ('src="http', 'href="http', '@import', 'url(http'):
      assert word not in answer.text


def test_docs_have_every_path_and_the_columns_of_the_run(fresh):
  tree = fresh.client.get('/openapi.json').json()
  text = fresh.client.get('/docs').text
  for path in tree['paths']:
    assert path in text
  assert {'/recommend', '/embed', '/items', '/interactions'} <= {*tree['paths']}
  columns = tree['components']['schemas']['ItemContent']['properties']
  assert set(columns) == {'tags', 'image'}
  assert 'visits' in text


@pytest.mark.parametrize('path', ['/shown', '/metrics', '/health'])
def test_media_types_are_those_of_openapi(fresh, path):
  tree = fresh.client.get('/openapi.json').json()
  responses = tree['paths'][path]['get']['responses']
  for status, asked in ((200, path), (422, '/shown?limit=0')):
    answer = fresh.client.get(asked)
    assert answer.status_code == status
    (documented,) = responses[str(status)]['content']
    assert answer.headers['content-type'].split(';')[0] == documented
