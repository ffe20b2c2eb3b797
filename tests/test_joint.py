# SPDX-License-Identifier: Apache-2.0
"""What process 0 asks of the others, where the other one is a thread.

Of real processes: tests/training/test_two_runs.py.
"""

import concurrent.futures
import queue

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax import joint
from dropoutnet_jax import parallel


class Counter:
  """Adds up, and remembers what was its own."""

  def __init__(self, start, own):
    self.value, self.owned = start, [own]
    MADE.append(self)

  def add(self, number, own):
    self.value += number
    self.owned.append(own)
    return self.value


MADE: list[Counter] = []


@pytest.fixture
def follower(monkeypatch):
  """Starts it; orders go through a queue."""
  orders = queue.Queue()

  def pass_on(data):
    if not data.any():
      return orders.get(timeout=20)
    orders.put(data)
    return data

  monkeypatch.setattr(joint, '_passed_on', pass_on)
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    yield lambda: executor.submit(joint.follow)
  assert not joint._objects


def test_all_make_call_and_forget_an_object(follower):
  MADE.clear()
  other = follower()

  def work():
    assert joint.is_open()
    counter = joint.Joint(Counter, 5, own='large')
    assert counter(Counter.add, 2, own='larger') == 7
    another = joint.Joint(Counter, 0, own='other')
    assert another(Counter.add, 1, own=np.ones(3)) == 1
    return counter

  kept = joint.lead(work)
  assert other.result(timeout=20) is False
  assert not joint.is_open()
  assert len(MADE) == 4
  theirs = [x for x in MADE if x.owned == [None, None]]
  assert [x.value for x in theirs] == [7, 1]
  # It lives as long as that of process 0, and the next message tells its end.
  assert list(joint._objects.values()) == theirs[:1]
  del kept
  other = follower()
  joint.lead(lambda: None)
  assert other.result(timeout=20) is False
  assert not joint._objects


def test_they_are_told_of_the_end_of_a_failure(follower):
  other = follower()

  def refuse():
    joint.Joint(Counter, 5, own=None)
    raise errors.UserError('Full disk.')

  with pytest.raises(errors.UserError, match='Full disk.'):
    joint.lead(refuse)
  assert other.result(timeout=20) is True
  assert joint.lead(lambda: 3) == 3  # which the next one follows
  assert follower().result(timeout=20) is False


def test_alone_it_is_an_object_like_any_other():
  counter = joint.Joint(Counter, 5, own='large')
  assert counter(Counter.add, 2, own='larger') == 7
  assert not joint.is_open() and not joint._objects
  assert parallel.joint_mesh() == parallel.local_mesh()
