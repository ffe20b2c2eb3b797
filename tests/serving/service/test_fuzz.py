# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent: an answer or a refusal of one shape, and never a 5xx.

A little of what schemathesis does with openapi.json (see BUILD.md): bodies that
the description allows, with parts of them replaced by any JSON.
"""

import json

import hypothesis
from hypothesis import strategies as st
import pytest

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(['u1', 'i1', 'nix', '', '\x00', '\ud800', 'x' * 300])
)
_ANY = st.recursive(
    _SCALARS,
    lambda inside: st.lists(inside, max_size=3)
    | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=6,
)
_ID = st.sampled_from(['u1', 'i1', 'i2', 'other', 7]) | _ANY
_OF_USERS = {
    'region': 'strings',
    'age': 'number',
    'about': 'strings',
    'visits': 'sequences',
    'income': 'number',
    'zip': 'number',
}
_OF_ITEMS = {
    'tags': 'tags',
    'image': 'vectors',
    'colours': 'tags',
    'prices': 'tags',
    'main': 'strings',
    'price': 'number',
    'weight': 'number',
}
_VALUE = st.sampled_from(
    ['north', 31, 1e30, ['word1'], [1, 2, 3], {'word1': -1e38}, [], {}]
)
_CONTENT = st.dictionaries(
    st.sampled_from([*_OF_USERS, *_OF_ITEMS, 'x']), _VALUE | _ANY, max_size=4
)
# Nothing but what openapi.json allows, so that the rules of features are met.
_NUMBER = st.sampled_from([-3, -1, 0, 11, 11.5, 2**40, 1e20, -3e38, 3e38])
_WEIGHTS = st.dictionaries(
    st.sampled_from(['red', ' red', 'online', 'word1']), _NUMBER, max_size=3
)
_TEXT = st.sampled_from(['north', 'online', ''])
_OF_KIND = {
    'number': _NUMBER,
    'strings': _TEXT,
    'tags': _WEIGHTS | st.lists(_TEXT, max_size=2),
    'vectors': st.lists(_NUMBER, min_size=3, max_size=3),
    'sequences': st.lists(_TEXT, max_size=2),
}
_USER = st.fixed_dictionaries(
    {}, optional={'id': _ID, 'content': _CONTENT, 'history': st.lists(_ID)}
)
_ITEM = st.fixed_dictionaries({}, optional={'id': _ID, 'content': _CONTENT})
_PAIR = st.fixed_dictionaries(
    {'user': _ID, 'item': _ID}, optional={'label': _ANY}
)


def _body(**fields):
  """Some of the fields, each of its kind or anything else."""
  return st.fixed_dictionaries(
      {}, optional={name: kind | _ANY for name, kind in fields.items()}
  )


BODIES = {
    '/recommend': _body(
        users=st.lists(_USER, max_size=3),
        k=st.integers(1, 20),
        candidates=st.sampled_from(['all', 'new', 'known']),
        exclude_seen=st.booleans(),
    ),
    '/embed': _body(
        users=st.lists(_USER, max_size=3), items=st.lists(_ITEM, max_size=3)
    ),
    '/items': _body(items=st.lists(_ITEM, max_size=3)),
    '/interactions': _body(interactions=st.lists(_PAIR, max_size=3)),
    '/page/audience': _body(content=_CONTENT, k=st.integers(1, 5)),
    '/page/warm_up': _body(user=_ID, revealed=st.integers(0, 9)),
}


@pytest.fixture(scope='module', name='running')
def fixture_running(start, ruled_shop, tmp_path_factory):
  path = tmp_path_factory.mktemp('fuzz') / 'state.sqlite'
  with start(path, model=ruled_shop.model) as running:
    yield running


def _send(running, path, body):
  """The status of an answer that has the right shape."""
  answer = running.client.post(
      path,
      content=json.dumps(body),
      headers={'Content-Type': 'application/json'},
  )
  assert answer.status_code < 500, answer.text
  found = answer.json()
  if answer.status_code != 200:
    assert found['error'].keys() == {'code', 'message', 'where'}
    assert found['error']['message']
  return answer.status_code


@pytest.mark.parametrize('path', BODIES)
def test_any_body(running, path):
  @hypothesis.settings(max_examples=60)
  @hypothesis.given(st.one_of(BODIES[path], _ANY))
  def check(body):
    _send(running, path, body)

  check()
  assert running.lists({})[0]  # it goes on, whatever was put


def _content(kinds):
  return st.fixed_dictionaries(
      {}, optional={name: _OF_KIND[kind] for name, kind in kinds.items()}
  )


def test_the_columns_are_those_of_the_run(running):
  types = running.service.engine.rows.types
  for side, kinds in (('user', _OF_USERS), ('item', _OF_ITEMS)):
    assert {name: kind.kind for name, kind in types[side].items()} == kinds


@pytest.mark.parametrize(
    'path, kinds, make',
    [
        ('/items', _OF_ITEMS, lambda x: {'items': [{'id': 'x', 'content': x}]}),
        (
            '/embed',
            _OF_ITEMS,
            lambda x: {'items': [{'id': 'i1'}, {'content': x}]},
        ),
        ('/page/audience', _OF_ITEMS, lambda x: {'content': x, 'k': 2}),
        ('/recommend', _OF_USERS, lambda x: {'users': [{}, {'content': x}]}),
    ],
)
def test_any_content_of_the_right_types(running, path, kinds, make):
  statuses = set()

  @hypothesis.settings(max_examples=60)
  @hypothesis.given(_content(kinds))
  def check(content):
    statuses.add(_send(running, path, make(content)))

  check()
  assert statuses == {200, 422}


def test_any_path(running):
  @hypothesis.settings(max_examples=60)
  @hypothesis.given(st.text(max_size=12), st.sampled_from(['GET', 'DELETE']))
  def check(name, method):
    name = name.encode('utf-8', 'surrogatepass')
    quoted = ''.join(f'%{byte:02x}' for byte in name)
    for path in (
        f'/items/{quoted}',
        f'/{quoted}',
        f'/page/users?start={quoted}',
    ):
      answer = running.client.request(method, path)
      assert answer.status_code < 500, answer.text

  check()
