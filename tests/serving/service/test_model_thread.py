# SPDX-License-Identifier: Apache-2.0
"""The queue before the model: order, turns, the bound, and the end."""

import threading

import pytest

from dropoutnet_jax.serving.service import model_thread
from dropoutnet_jax.serving.service import refusals


class Held:
  """A thread whose first request waits until it is let go."""

  def __init__(self, **sizes):
    self.thread = model_thread.ModelThread(**sizes)
    self.turns = []
    self._go, self._is_held = threading.Event(), threading.Event()
    self.first = self.thread.submit('hold', self._hold, None)
    assert self._is_held.wait(10)

  def _hold(self, requests):
    self._is_held.set()
    assert self._go.wait(10)
    return requests

  def ask(self, kind, request, size=1):
    return self.thread.submit(kind, self._answer, request, size)

  def _answer(self, requests):
    self.turns.append(list(requests))
    return [refusals.Refusal('no') if x == 'bad' else f'{x}!' for x in requests]

  def let_go(self):
    self._go.set()

  def close(self):
    self.let_go()
    self.thread.close()


@pytest.fixture(name='held')
def fixture_held():
  held = Held(most_waiting=6, most_together=4)
  yield held
  held.close()


def test_neighbours_of_one_kind_share_a_turn(held):
  asked = [held.ask(kind, f'{kind}{n}') for n, kind in enumerate('aabba')]
  assert len(held.thread) == 5
  held.let_go()
  assert [x.result(10) for x in asked] == ['a0!', 'a1!', 'b2!', 'b3!', 'a4!']
  assert held.turns == [['a0', 'a1'], ['b2', 'b3'], ['a4']]


def test_a_turn_is_bounded(held):
  asked = [held.ask('a', n, 2) for n in range(3)]
  held.let_go()
  assert [x.result(10) for x in asked] == ['0!', '1!', '2!']
  assert held.turns == [[0, 1], [2]]


def test_beyond_the_bound_is_refused_at_once(held):
  asked = [held.ask('a', n, 2) for n in range(3)]
  with pytest.raises(refusals.Refusal) as caught:
    held.ask('a', 3)
  assert (caught.value.status, caught.value.code) == (503, 'busy')
  assert caught.value.headers == {'Retry-After': '1'}
  held.let_go()
  assert asked[-1].result(10) == '2!'
  assert held.ask('a', 'again').result(10) == 'again!'


def test_what_is_larger_than_the_queue_is_served_when_nobody_waits(held):
  large = held.ask('a', 'large', 100)
  held.let_go()
  assert large.result(10) == 'large!'


def test_a_refusal_is_of_one_request(held):
  good, bad = held.ask('a', 'good'), held.ask('a', 'bad')
  held.let_go()
  assert good.result(10) == 'good!'
  with pytest.raises(refusals.Refusal):
    bad.result(10)


def test_what_fails_together_is_tried_alone(held):
  def fragile(requests):
    return [10 / x for x in requests]

  asked = [held.thread.submit('f', fragile, x) for x in (1, 0, 5)]
  held.let_go()
  assert asked[0].result(10) == 10 and asked[2].result(10) == 2
  with pytest.raises(ZeroDivisionError):
    asked[1].result(10)
  assert held.ask('a', 'on').result(10) == 'on!'


def test_the_end_answers_what_waits_and_refuses_what_comes(held):
  waiting = held.ask('a', 'waiting')
  closer = threading.Thread(target=held.thread.close)
  closer.start()
  while not held.thread._is_closed:
    pass
  with pytest.raises(refusals.Refusal, match='stopping'):
    held.ask('a', 'late')
  held.let_go()
  closer.join(10)
  assert waiting.result(10) == 'waiting!'


def test_a_request_that_was_given_up_is_left_out(held):
  given_up, kept = held.ask('a', 'given up'), held.ask('a', 'kept')
  assert given_up.cancel()
  held.let_go()
  assert kept.result(10) == 'kept!'
  assert held.turns == [['kept']]
