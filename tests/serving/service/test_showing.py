# SPDX-License-Identifier: Apache-2.0
"""Slates by a policy: with chances, logged in the state, read again."""

from concurrent import futures
import json
import threading

import numpy as np
import pytest

from dropoutnet_jax import errors

_THOMPSON = {'kind': 'thompson', 'passes': 4, 'seed': 5, 'spread': 'masks'}
_COLUMNS = [
    'number',
    'slate',
    'time',
    'user_id',
    'rank',
    'item_id',
    'score',
    'propensity',
    'policy',
    'reward',
]


@pytest.fixture(scope='module', name='running')
def fixture_running(start, tmp_path_factory):
  with start(tmp_path_factory.mktemp('shown') / 'state.sqlite') as running:
    yield running


def _log(running, **asked):
  answer = running.client.get('/shown', params=asked)
  assert answer.status_code == 200, answer.text
  assert answer.headers['content-type'].startswith('application/x-ndjson')
  return [json.loads(line) for line in answer.text.splitlines()]


def _slates(running, *users, k=3, **asked):
  return running.post('/recommend', users=list(users), k=k, **asked)['lists']


def test_a_greedy_policy_shows_the_list_and_says_that_it_is_sure(running):
  users = [{'id': 'u1'}, {'history': ['i4']}]
  expected = running.lists(*users, k=6)
  found = _slates(running, *users, k=6, policy='greedy')
  for one, wanted in zip(found, expected, strict=True):
    assert [item['id'] for item in one['items']] == wanted
    assert {item['propensity'] for item in one['items']} == {1.0}


@pytest.mark.parametrize('which', ['all', 'new', 'known'])
def test_slates_keep_to_the_candidates_and_to_what_is_unseen(
    shop, running, which
):
  (allowed,) = running.lists({'id': 'u3'}, candidates=which)
  (one,) = _slates(
      running,
      {'id': 'u3'},
      k=30,
      candidates=which,
      policy=_THOMPSON | {'epsilon': 0.2, 'new_share': 0.5},
  )
  names = [item['id'] for item in one['items']]
  assert sorted(names) == sorted(allowed)
  chances = [item['propensity'] for item in one['items']]
  assert all(0 < chance <= 1 for chance in chances) and chances[-1] == 1


def test_a_seed_gives_the_same_slate_again(running):
  draw = lambda **more: [
      item['id']
      for item in _slates(running, {'id': 'u2'}, k=10, policy=_THOMPSON | more)[
          0
      ]['items']
  ]
  assert draw() == draw()
  assert len({tuple(draw(seed=seed)) for seed in range(5)}) > 1


def test_lists_are_answered_while_policies_are_prepared(
    start, tmp_path, monkeypatch
):
  with start(tmp_path / 'state.sqlite') as running:
    explorer = running.service.showing.explorer
    begun, may_go_on, prepare = threading.Event(), threading.Event(), []

    def slowly(counts, spread):
      prepare.append(spread)
      begun.set()
      assert may_go_on.wait(60)
      type(explorer).prepare(explorer, counts, spread)

    monkeypatch.setattr(explorer, 'prepare', slowly)
    with futures.ThreadPoolExecutor(2) as pool:
      ask = lambda: _slates(running, {'id': 'u1'}, policy=_THOMPSON)
      waiting = [pool.submit(ask) for _ in range(2)]
      try:
        assert begun.wait(60)
        assert running.lists({'id': 'u1'}, k=3)[0]
        assert _slates(running, {'id': 'u1'}, policy='epsilon')
        assert not any(one.done() for one in waiting)
      finally:
        may_go_on.set()
      assert all(one.result()[0]['items'] for one in waiting)
    assert len(prepare) == 1


def test_what_cannot_be_prepared_is_refused_and_else_tried_again(
    start, tmp_path, monkeypatch
):
  with start(tmp_path / 'state.sqlite') as running:
    failures = [MemoryError(), errors.UserError('No spread.')]

    def fail(counts, spread):
      del counts, spread
      raise failures.pop(0)

    monkeypatch.setattr(running.service.showing.explorer, 'prepare', fail)
    ask = lambda: running.client.post(
        '/recommend', json={'users': [{}], 'policy': 'ucb'}
    )
    assert ask().status_code == 500
    for _ in range(2):  # and not prepared again
      answer = ask()
      assert answer.status_code == 422, answer.text
      assert answer.json()['error']['message'] == 'No spread.'


def test_every_slate_is_logged_and_clicks_become_rewards(start, tmp_path):
  path = tmp_path / 'state.sqlite'
  with start(path) as running:
    running.lists({'id': 'u1'})  # no policy, no log
    assert not _log(running)
    users = [{'id': 'u1'}, {'id': 'somebody'}, {}]
    policy = _THOMPSON | {'epsilon': 0.25}
    found = _slates(running, *users, policy=policy)
    log = _log(running)
    assert [list(row) for row in log] == [_COLUMNS] * 9
    for one in found:
      rows = [row for row in log if row['slate'] == one['slate']]
      assert [row['rank'] for row in rows] == [1, 2, 3]
      assert {row['user_id'] for row in rows} == {one['user']}
      for row, item in zip(rows, one['items'], strict=True):
        assert row['item_id'] == item['id']
        assert row['score'] == item['score']
        assert row['propensity'] == item['propensity']
        assert row['policy'] == 'thompson epsilon=0.25'
        assert row['reward'] == 0
    liked, ignored = (item['id'] for item in found[1]['items'][:2])
    pairs = [
        {'user': 'somebody', 'item': liked},
        {'user': 'somebody', 'item': ignored, 'label': 0},
        {'user': 'u1', 'item': 'i0'},
    ]
    running.post('/interactions', interactions=pairs)
    # A slate that comes after the click gets nothing of it.
    _slates(running, {'id': 'somebody'}, exclude_seen=False, policy=policy)
    log = _log(running)
    rewarded = [row for row in log if row['reward']]
    slate = found[1]['slate']
    assert [(x['slate'], x['item_id']) for x in rewarded] == [(slate, liked)]
    assert _log(running, after=log[4]['number'], limit=2) == log[5:7]
    counts = dict(running.service.showing.impressions)
  assert sum(counts.values()) == 12
  with start(path) as running:  # after a restart
    assert _log(running) == log
    assert running.service.showing.impressions == counts
    (one,) = _slates(running, {'id': 'u1'}, policy='greedy')
    assert one['slate'] == log[-1]['slate'] + 1


def test_the_quota_of_a_new_item_is_halved_by_its_impressions(start, tmp_path):
  """Of one item alone, which would never be shown otherwise."""
  with start(tmp_path / 'state.sqlite') as running:
    (new,) = running.lists({'id': 'u1'}, candidates='new')
    for name in new[1:]:
      running.client.delete(f'/items/{name}')
    policy = {'kind': 'greedy', 'new_share': 1.0, 'half_life': 1.0}
    chances = []
    for _ in range(5):
      (one,) = _slates(running, {'id': 'u1'}, k=1, policy=policy)
      (item,) = one['items']
      shown = item['id'] == new[0]
      seen = running.service.showing.impressions[new[0]] - shown
      (known,) = running.lists({'id': 'u1'}, k=1)
      if known[0] != new[0]:
        chance = 0.5**seen
        expected = chance if shown else 1 - chance
        assert item['propensity'] == pytest.approx(expected)
        chances.append(chance)
    assert len(chances) == 5 and chances[0] == 1 > chances[1]


def test_an_item_that_was_just_put_can_be_shown(running):
  content = {'tags': ['word1'], 'image': [0.1, 0.2, 0.3]}
  running.post('/items', items=[{'id': 'fresh', 'content': content}])
  (one,) = _slates(
      running, {'id': 'u4'}, k=40, candidates='new', policy=_THOMPSON
  )
  assert 'fresh' in [item['id'] for item in one['items']]


def test_reasons_come_with_slates_too(running):
  (one,) = _slates(running, {'id': 'u1'}, policy=_THOMPSON, reasons=True)
  assert all(item['reasons'] for item in one['items'])


def test_thompson_shows_more_than_the_list(running):
  shown = set()
  for seed in range(20):
    policy = _THOMPSON | {'seed': seed}
    (one,) = _slates(running, {'id': 'u5'}, k=1, policy=policy)
    shown.add(one['items'][0]['id'])
  (greedy,) = running.lists({'id': 'u5'}, k=1)
  assert len(shown) > 1 and np.isin(greedy, list(shown)).all()
