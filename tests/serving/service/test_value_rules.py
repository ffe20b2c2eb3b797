# SPDX-License-Identifier: Apache-2.0
"""Content of the right types that no feature of the run can use."""

import asyncio
import threading

import numpy as np
import pytest

from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import refusals
from tests.serving.service import test_refusals


def _content(**columns):
  return {'users': [{'content': columns}]}


def _item(**columns):
  return {'items': [{'id': 'x', 'content': columns}]}


def _each(column, value, where, message):
  """All paths that take content of items."""
  content, good = {column: value}, {'id': 'good', 'content': {}}
  return [
      (
          'items',
          {'items': [good, {'id': 'x', 'content': content}]},
          f'items[1].content{where}',
          message,
      ),
      (
          'embed',
          {'items': [{'content': content}]},
          f'items[0].content{where}',
          message,
      ),
      ('page/audience', {'content': content}, f'content{where}', message),
  ]


# path, body, place, message
RULED = [
    (
        'recommend',
        {'users': [{}, {'content': {'income': -1}}]},
        'users[1].content.income',
        'income is -1: this run cannot use a number <= -1, which transform=',
    ),
    ('embed', _content(income=-1.0), 'users[0].content.income', 'is -1.0'),
    *(
        (
            'recommend',
            _content(zip=value),
            'users[0].content.zip',
            f'zip is {value}: this run cannot use a category that is no whole '
            'number below 2**53. Leave out',
        )
        for value in (30.5, 2**24 + 0.5, 2**53, 2.0**53, 2**60, 1e20)
    ),
    (
        'recommend',
        {'users': [{'content': {'zip': 2**30}}, {'content': {'zip': 1e20}}]},
        'users[1].content.zip',
        'zip is 1e+20',
    ),
    *_each('colours', {'red': -1}, '.colours', '< 0 in a log'),
    *_each('prices', {'online': -1}, '.prices', '< 0 or above 1e+30'),
    *_each('prices', {'online': 1e38}, '.prices', '< 0 or above 1e+30'),
    *_each('tags', {'a': 3e38, ' a': 3e38}, '.tags', 'infinite'),
    (
        'items',
        _item(price=-6, weight=2),
        'items[0].content',
        'worth, as computed: this run cannot use a number <= -1',
    ),
]


@pytest.mark.parametrize('path, body, place, message', RULED)
def test_values_that_no_feature_can_use(ruled, path, body, place, message):
  answer = ruled.client.post(f'/{path}', json=body)
  test_refusals.check(answer, 422, place, message)
  assert 'good' not in ruled.lists({})[0]


def test_values_that_the_features_can_use(ruled):
  users = [
      {'content': {'zip': value, 'income': -0.5}}
      for value in (11, 11.0, 2**30, 2**30 + 1.0, 2**53 - 1, -2, None)
  ]
  found = ruled.post('/embed', users=users)['embeddings']
  assert found[0] == found[1]
  alone = [ruled.post('/embed', users=[user])['embeddings'] for user in users]
  for one, (other,) in zip(found, alone, strict=True):
    np.testing.assert_allclose(one['dense'], other['dense'], atol=1e-6)


def test_what_the_model_finds_out_is_refused_alone(ruled):
  # Past the checks, in one turn with others.
  service, put = ruled.service, ruled.service.engine.put_items
  is_busy, is_free = threading.Event(), threading.Event()

  def wait(requests):
    is_busy.set()
    return [is_free.wait(60)] * len(requests)

  service.thread.submit('wait', wait, None)
  assert is_busy.wait(60)  # and waits in the queue no more

  async def ask_all():
    asked = [
        service.ask('put', put, [asks.PutItem(name, content)], 1)
        for name, content in (
            ('bad', {'colours': {'red': -1}}),
            ('fine', {'colours': {'red': 1}}),
        )
    ]
    tasks = [asyncio.create_task(one) for one in asked]
    await asyncio.sleep(0)
    assert len(service.thread) == 2
    is_free.set()
    return await asyncio.gather(*tasks, return_exceptions=True)

  refusal, answer = asyncio.run(ask_all())
  assert isinstance(refusal, refusals.Refusal)
  assert refusal.status == 422 and '< 0 in a log' in str(refusal)
  assert answer == {'put': 1, 'new': 1}
  assert {'fine', 'bad'} & set(ruled.lists({})[0]) == {'fine'}
  assert ruled.client.delete('/items/fine').status_code == 200
