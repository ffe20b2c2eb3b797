# SPDX-License-Identifier: Apache-2.0
"""The key, the size, the queue's bound and the headers of all answers."""

import asyncio
import json
import threading

import pytest

from dropoutnet_jax.serving.service import limits
from tests.serving.service import test_refusals

KEY = 'a-long-secret'


@pytest.fixture(scope='module', name='locked')
def fixture_locked(start, tmp_path_factory):
  path = tmp_path_factory.mktemp('locked') / 'state.sqlite'
  with start(path, key=KEY) as running:
    yield running


@pytest.mark.parametrize(
    'headers',
    [
        {},
        {'X-API-Key': ''},
        {'X-API-Key': KEY[:-1]},
        {'X-API-Key': KEY + 'x'},
        {'X-API-Key': 'ä'.encode('latin-1')},
        {'Authorization': f'Basic {KEY}'},
        {'Authorization': f'Bearer {KEY}x'},
    ],
)
def test_without_the_key(locked, headers):
  for method, path in (
      ('post', '/recommend'),
      ('get', '/metrics'),
      ('get', '/openapi.json'),
      ('get', '/page/about'),
      ('delete', '/items/i1'),
      ('get', '/nothing'),
  ):
    answer = locked.client.request(method, path, headers=headers)
    test_refusals.check(answer, 401, '', 'X-API-Key')
    assert answer.headers['WWW-Authenticate'] == 'Bearer'


def test_with_the_key(locked):
  for headers in ({'X-API-Key': KEY}, {'Authorization': f'Bearer {KEY}'}):
    answer = locked.client.post(
        '/recommend', json={'users': [{}]}, headers=headers
    )
    assert answer.status_code == 200


def test_what_is_open_to_all(locked):
  for path in ('/', '/docs', '/health'):
    assert locked.client.get(path).status_code == 200


def test_every_answer_says_what_browsers_may_do(fresh):
  for path in ('/health', '/', '/docs', '/nothing', '/metrics'):
    headers = fresh.client.get(path).headers
    assert headers['X-Content-Type-Options'] == 'nosniff'
    assert headers['Cache-Control'] == 'no-store'
    assert "default-src 'none'" in headers['Content-Security-Policy']
    assert "frame-ancestors 'none'" in headers['Content-Security-Policy']
    assert 'Access-Control-Allow-Origin' not in headers


@pytest.mark.parametrize(
    'path, status',
    [
        ('/', 200),
        ('/docs', 200),
        ('/health', 200),
        ('/openapi.json', 200),
        ('/page/about', 200),
        ('/page/users?start=u3', 200),
        ('/shown', 200),
        ('/shown?limit=0', 422),
        ('/nothing', 404),
    ],
)
def test_head_is_get_without_its_body(fresh, path, status):
  expected, found = fresh.client.get(path), fresh.client.head(path)
  assert found.status_code == expected.status_code == status
  assert found.headers == expected.headers
  if path != '/shown':  # which has nothing to tell yet
    assert int(found.headers['Content-Length']) > 2
  assert found.content == b''


def test_all_that_can_be_got_has_a_head(fresh):
  described = fresh.client.get('/openapi.json').json()['paths']
  for path, methods in described.items():
    assert 'head' not in methods
    answer = fresh.client.head(path)
    assert answer.content == b''
    if 'get' in methods:
      assert answer.status_code == 200
    elif '{' not in path:
      assert answer.status_code == 405
      assert answer.headers['Allow'] == 'POST'
  assert 'method="HEAD",path="/shown"' in fresh.client.get('/metrics').text


def test_refusals_before_the_service_have_a_head_too(locked):
  answer = locked.client.head('/metrics')
  assert (answer.status_code, answer.content) == (401, b'')
  assert answer.headers['WWW-Authenticate'] == 'Bearer'
  assert locked.client.head('/health').status_code == 200


@pytest.mark.parametrize('path', ['/', '/docs', '/health', '/metrics'])
@pytest.mark.parametrize('method', ['OPTIONS', 'PUT', 'POST', 'DELETE'])
def test_other_methods_are_told_what_is_allowed(fresh, path, method):
  answer = fresh.client.request(method, path)
  test_refusals.check(answer, 405, '', f'{path} does not take {method}.')
  assert {*answer.headers['Allow'].split(', ')} == {'GET', 'HEAD'}


def test_a_wrong_length_is_refused(fresh):
  for length in ('x', '-1', str(limits.BODY_BYTES + 1), '9' * 30):
    answer = fresh.client.post(
        '/recommend', content=b'{}', headers={'Content-Length': length}
    )
    assert answer.status_code in (400, 413)


@pytest.mark.parametrize('parts', [0, 1, 5])
def test_a_body_that_does_not_come_is_waited_for_so_long(
    fresh, monkeypatch, parts
):
  """Not for its whole length each part that does."""
  monkeypatch.setattr(limits, 'BODY_SECONDS', 0.2)
  sent, left = [], iter(range(parts))

  async def receive():
    await asyncio.sleep(60 if next(left, None) is None else 0.05)
    return {'type': 'http.request', 'body': b' ', 'more_body': True}

  async def send(message):
    sent.append(message)

  scope = {
      'type': 'http',
      'method': 'POST',
      'path': '/recommend',
      'headers': [(b'content-type', b'application/json')],
      'query_string': b'',
  }
  asyncio.run(fresh.client.app(scope, receive, send))
  head, body = sent
  assert head['status'] == 408 and (b'connection', b'close') in head['headers']
  assert (
      'did not come within 0.2 s'
      in json.loads(body['body'])['error']['message']
  )


def test_beyond_the_queue_comes_503_at_once(start, tmp_path):
  is_held, go = threading.Event(), threading.Event()

  def hold(requests):
    is_held.set()
    assert go.wait(20)
    return requests

  with start(tmp_path / 'state.sqlite', most_waiting=2) as running:
    thread = running.service.thread
    thread.submit('hold', hold, None)
    assert is_held.wait(20)
    waiting = [thread.submit('x', lambda x: x, None) for _ in range(2)]
    answer = running.client.post('/recommend', json={'users': [{}]})
    test_refusals.check(answer, 503, '', '2 requests are waiting')
    assert answer.headers['Retry-After'] == '1'
    assert 'dropoutnet_waiting 2.0' in running.client.get('/metrics').text
    assert running.client.get('/health').status_code == 200
    go.set()
    for future in waiting:
      future.result(20)
    assert len(running.lists({})[0])


def test_a_full_disk_changes_nothing(start, tmp_path, monkeypatch):
  with start(tmp_path / 'state.sqlite') as running:

    def fail(rows):
      raise OSError('disk full')

    with monkeypatch.context() as patch:
      patch.setattr(running.service.engine._state, 'put_items', fail)
      answer = running.client.post('/items', json={'items': [{'id': 'x'}]})
    test_refusals.check(answer, 503, '', 'state cannot be written')
    assert 'x' not in running.lists({})[0]


def test_a_defect_is_told_in_the_same_shape(start, tmp_path, monkeypatch):
  with start(tmp_path / 'state.sqlite') as running:
    with monkeypatch.context() as patch:
      patch.setattr(running.service.engine.catalogue, 'search', None)
      answer = running.client.post('/recommend', json={'users': [{}]})
    test_refusals.check(answer, 500, '', 'should not have happened')
    assert running.lists({})[0]


def test_before_it_is_ready(start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    running.service.status = 'starting'
    answer = running.client.get('/health')
    assert (answer.status_code, answer.json()) == (503, {'status': 'starting'})
    answer = running.client.post('/recommend', json={'users': [{}]})
    test_refusals.check(answer, 503, '', 'is starting')
    running.service.status = 'ready'
    assert running.client.get('/health').json() == {'status': 'ready'}
