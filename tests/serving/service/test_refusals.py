# SPDX-License-Identifier: Apache-2.0
"""Bad requests: each gets a 4xx, in one shape, that says what and where."""

import json

import pytest

from dropoutnet_jax.serving.service import limits

NAN = float('nan')
_USER = {'users': [{}]}


def _user(**fields):
  return {'users': [fields]}


_UCB = {'kind': 'ucb'}


def _policy(policy):
  return {'users': [{}], 'policy': policy}


def _content(**columns):
  return {'users': [{'content': columns}]}


def _item(**columns):
  return {'items': [{'id': 'x', 'content': columns}]}


# path, body, status, place, message
BAD = [
    ('recommend', {}, 422, 'users', 'users: Field required'),
    ('recommend', [], 422, '', 'send an object of JSON'),
    ('recommend', 'text', 422, '', 'send an object of JSON'),
    ('recommend', {'users': []}, 422, 'users', 'at least 1 item'),
    ('recommend', {'users': {}}, 422, 'users', 'valid list'),
    ('recommend', {'users': [{}] * 257}, 422, 'users', 'at most 256'),
    ('recommend', _USER | {'k': 0}, 422, 'k', 'greater than or equal to 1'),
    ('recommend', _USER | {'k': 1001}, 422, 'k', 'less than or equal'),
    ('recommend', _USER | {'k': '5'}, 422, 'k', 'valid integer'),
    ('recommend', _USER | {'k': True}, 422, 'k', 'valid integer'),
    ('recommend', _USER | {'kk': 5}, 422, 'kk', 'not permitted'),
    ('recommend', _USER | {'candidates': 'old'}, 422, 'candidates', "'all'"),
    ('recommend', _USER | {'exclude_seen': 1}, 422, 'exclude_seen', 'boolean'),
    (
        'recommend',
        {'users': [{}] * 30, 'k': 1000},
        422,
        'k',
        '30 lists of 1000 items are 30,000 items; at most 20,000',
    ),
    (
        'recommend',
        {'users': [{}], 'k': 51, 'reasons': True},
        422,
        'reasons',
        'at most 50 items',
    ),
    ('recommend', _policy('tompson'), 422, 'policy.kind', "'thompson'"),
    ('recommend', _policy(3), 422, 'policy', 'valid dictionary'),
    ('recommend', _policy({}), 422, 'policy.kind', 'required'),
    ('recommend', _policy(_UCB | {'p': 1}), 422, 'policy.p', 'not permitted'),
    (
        'recommend',
        _policy(_UCB | {'epsilon': 1.5}),
        422,
        'policy.epsilon',
        'less than or equal to 1',
    ),
    (
        'recommend',
        _policy(_UCB | {'new_share': -0.1}),
        422,
        'policy.new_share',
        'greater than or equal to 0',
    ),
    (
        'recommend',
        _policy(_UCB | {'half_life': 0}),
        422,
        'policy.half_life',
        'greater than 0',
    ),
    (
        'recommend',
        _policy(_UCB | {'passes': 0}),
        422,
        'policy.passes',
        'greater than or equal to 1',
    ),
    (
        'recommend',
        _policy(_UCB | {'passes': 65}),
        422,
        'policy.passes',
        'less than or equal to 64',
    ),
    (
        'recommend',
        {'users': [{}] * 65, 'policy': _UCB | {'passes': 64}},
        422,
        'policy.passes',
        '65 users under 64 passes are 4,160 rows; at most 4,096',
    ),
    ('recommend', _policy(_UCB | {'seed': -1}), 422, 'policy.seed', 'greater'),
    (
        'recommend',
        _policy(_UCB | {'spread': 'mask'}),
        422,
        'policy.spread',
        "'belief' or 'masks'",
    ),
    ('recommend', _user(id=1.5), 422, 'users[0].id', 'an id is a string of'),
    ('recommend', _user(id=True), 422, 'users[0].id', 'an id is a string of'),
    ('recommend', _user(id=''), 422, 'users[0].id', 'an id is a string of'),
    ('recommend', _user(id=2**63), 422, 'users[0].id', 'an id is a string of'),
    ('recommend', _user(id='x' * 257), 422, 'users[0].id', 'an id is a'),
    ('recommend', _user(id='a\x00'), 422, 'users[0].id', 'for control'),
    ('recommend', _user(id='\ud800'), 422, 'users[0].id', 'for control'),
    ('recommend', _user(history='i1'), 422, 'users[0].history', 'list'),
    ('recommend', _user(history=[None]), 422, 'users[0].history[0]', 'an id'),
    (
        'recommend',
        _user(history=['i1', 'nix']),
        404,
        'users[0].history[1]',
        "Item 'nix' is not known",
    ),
    (
        'recommend',
        _user(history=['i1'] * 1001),
        422,
        'users[0].history',
        'at most 1000',
    ),
    (
        'recommend',
        _content(regoin='x'),
        422,
        'users[0].content.regoin',
        "Did you mean 'region'?",
    ),
    (
        'recommend',
        _content(region=3),
        422,
        'users[0].content.region',
        'region is 3, but it takes a string',
    ),
    (
        'recommend',
        _content(region='\udfff'),
        422,
        'users[0].content.region',
        'it takes a string',
    ),
    (
        'recommend',
        _content(age='old'),
        422,
        'users[0].content.age',
        "age is 'old', but it takes a finite number",
    ),
    ('recommend', _content(age=NAN), 422, 'users[0].content.age', 'finite'),
    ('recommend', _content(age=1e300), 422, 'users[0].content.age', 'finite'),
    ('recommend', _content(age=10**30), 422, 'users[0].content.age', 'finite'),
    ('recommend', _content(age=True), 422, 'users[0].content.age', 'finite'),
    (
        'recommend',
        _content(visits='x'),
        422,
        'users[0].content.visits',
        'a list of strings, or of whole numbers',
    ),
    (
        'recommend',
        _content(visits=['x', 1]),
        422,
        'users[0].content.visits',
        'a list of strings, or of whole numbers',
    ),
    (
        'recommend',
        {'users': [{'content': []}]},
        422,
        'users[0].content',
        'valid dictionary',
    ),
    ('embed', {}, 422, '', 'Give users or items, and not both'),
    ('embed', {'users': [{}], 'items': [{'id': 'i1'}]}, 422, '', 'not both'),
    ('embed', {'items': [{}]}, 422, 'items[0].id', 'needs an id, or content'),
    (
        'embed',
        {'items': [{'id': 'i1'}, {'id': 'nix'}]},
        404,
        'items[1].id',
        "Item 'nix' is not known",
    ),
    ('items', {'items': [{'content': {}}]}, 422, 'items[0].id', 'required'),
    (
        'items',
        {'items': [{'id': 'x'}, {'id': 'y'}, {'id': 'x'}]},
        422,
        'items[2].id',
        'comes twice, at 0 and 2',
    ),
    (
        'items',
        _item(tags='sea'),
        422,
        'items[0].content.tags',
        'a list of strings, or an object of strings and their weights',
    ),
    ('items', _item(tags=['sea', 3]), 422, 'items[0].content.tags', 'a list'),
    ('items', _item(tags={'sea': 'x'}), 422, 'items[0].content.tags', 'a list'),
    (
        'items',
        _item(image=[1, 2]),
        422,
        'items[0].content.image',
        'a list of 3 finite numbers',
    ),
    ('items', _item(image=[1, 2, None]), 422, 'items[0].content.image', '3'),
    (
        'interactions',
        {'interactions': [{'user': 'u'}]},
        422,
        'interactions[0].item',
        'required',
    ),
    (
        'interactions',
        {'interactions': [{'user': 'u', 'item': 'nix'}]},
        404,
        'interactions[0].item',
        "Item 'nix' is not known",
    ),
    (
        'interactions',
        {'interactions': [{'user': 'u', 'item': 'i1', 'label': -1}]},
        422,
        'interactions[0].label',
        'greater than or equal to 0',
    ),
    (
        'interactions',
        {'interactions': [{'user': 'u', 'item': 'i1', 'label': NAN}]},
        422,
        'interactions[0].label',
        '',
    ),
    ('page/audience', {'content': {'x': 1}}, 422, 'content.x', 'not read'),
    ('page/audience', {'content': {}, 'k': 51}, 422, 'k', 'less than'),
    ('page/warm_up', {'user': 'nobody'}, 404, 'user', 'no user'),
    ('page/warm_up', {'user': 'u1', 'revealed': -1}, 422, 'revealed', ''),
    ('nothing', {}, 404, '', "There is nothing at '/nothing'"),
    ('health', {}, 405, '', '/health does not take POST'),
]


def check(answer, status, place, message):
  """One shape, whatever is wrong."""
  assert answer.status_code == status, answer.text
  body = answer.json()
  assert body.keys() == {'error'}
  assert body['error'].keys() == {'code', 'message', 'where'}
  assert body['error']['where'] == place
  assert message in body['error']['message']
  assert body['error']['message'].endswith(('.', '?'))
  assert len(body['error']['message']) < 600


@pytest.mark.parametrize('path, body, status, place, message', BAD)
def test_bad_bodies(fresh, path, body, status, place, message):
  text = json.dumps(body)  # also what is no JSON, such as NaN
  answer = fresh.client.post(
      f'/{path}', content=text, headers={'Content-Type': 'application/json'}
  )
  check(answer, status, place, message)


@pytest.mark.parametrize(
    'text, status, message',
    [
        (b'', 422, 'The body: send an object of JSON'),
        (b'{"users": [', 400, 'The body is no JSON'),
        (b'\xff\xfe', 400, 'The body is no JSON'),
        (b'"\xff"', 400, 'cannot be read as JSON'),
        (b'[' * 100_000, 400, 'its lists and objects are too deep'),
        (
            b'{"users": [{}], "k": ' + b'9' * 5000 + b'}',
            400,
            'holds a number of too many digits',
        ),
        (b'x' * (limits.BODY_BYTES + 1), 413, 'more than 1,048,576 bytes'),
    ],
)
def test_what_is_no_json(fresh, text, status, message):
  headers = {'Content-Type': 'application/json'}
  answer = fresh.client.post('/recommend', content=text, headers=headers)
  check(answer, status, '', message)


def test_a_body_that_does_not_say_how_large_it_is(fresh):
  parts = (b'x' * 2**16 for _ in range(17))
  headers = {'Content-Type': 'application/json'}
  answer = fresh.client.post('/recommend', content=parts, headers=headers)
  check(answer, 413, '', 'more than 1,048,576 bytes')


def test_other_content_types_are_refused(fresh):
  for headers in ({'Content-Type': 'text/plain'}, {}):
    answer = fresh.client.post('/recommend', content=b'{}', headers=headers)
    check(answer, 422, '', 'Content-Type: application/json')


@pytest.mark.parametrize(
    'name, status, place',
    [('nix', 404, ''), ('', 422, 'item'), ('%00', 422, 'item')],
)
def test_deletions_that_are_refused(fresh, name, status, place):
  check(fresh.client.delete(f'/items/{name}'), status, place, '')


@pytest.mark.parametrize(
    'asked, place',
    [('after=-1', 'after'), ('limit=0', 'limit'), ('limit=10001', 'limit')],
)
def test_parts_of_the_log_that_are_refused(fresh, asked, place):
  check(fresh.client.get(f'/shown?{asked}'), 422, place, '')


def test_refused_writes_change_nothing(start, tmp_path):
  path = tmp_path / 'state.sqlite'
  with start(path) as running:
    before = running.lists({}, {'id': 'u1'})
    for name, body, status, _, _ in BAD:
      answer = running.client.post(
          f'/{name}',
          content=json.dumps(body),
          headers={'Content-Type': 'application/json'},
      )
      assert answer.status_code == status
    mixed = [{'user': 'u1', 'item': 'i1'}, {'user': 'u1', 'item': 'nix'}]
    answer = running.client.post('/interactions', json={'interactions': mixed})
    check(answer, 404, 'interactions[1].item', 'not known')
    assert running.lists({}, {'id': 'u1'}) == before
  with start(path) as running:
    assert running.lists({}, {'id': 'u1'}) == before


def test_numbers_beyond_the_model_are_refused(fresh):
  # A float32, but its square is none.
  answer = fresh.client.post(
      '/recommend', json={'users': [{'id': 'u1'}, {'content': {'age': 3e38}}]}
  )
  if answer.status_code != 200:
    check(answer, 422, 'users[1].content', 'no finite numbers')
