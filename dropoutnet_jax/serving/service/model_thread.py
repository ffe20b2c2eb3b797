# SPDX-License-Identifier: Apache-2.0
"""The one thread that uses the model, and the bounded queue before it.

Requests wait in the order in which they came. Whenever the thread is free it
takes the first, and with it those right behind that ask for the same kind of
thing: several users are scored by one compiled call, several writes are flushed
to the disk together. Nobody waits for others to come. A request that finds the
queue full is refused at once.
"""

from collections.abc import Callable, Sequence
import collections
from concurrent import futures
import threading
from typing import Any, NamedTuple

from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import refusals

# Answers of requests of one kind, in their order; a Refusal for one of them.
Handler = Callable[[Sequence[Any]], Sequence[Any]]


class _Job(NamedTuple):
  """A request that waits.

  Attributes:
    kind: of the request; those of one kind may be answered together.
    handle: answers requests of this kind.
    request: what is asked.
    size: users or items in it.
    future: of the answer.
  """

  kind: Any
  handle: Handler
  request: Any
  size: int
  future: futures.Future


class ModelThread:
  """Answers requests one after the other, and together where it can.

  Attributes:
    late: seconds by which whoever reads requests is behind, who may say so.
  """

  def __init__(
      self, most_waiting: int = limits.WAITING, most_together: int = 256
  ):
    """Starts the thread.

    Args:
      most_waiting: users and items of all requests that wait.
      most_together: users and items that are answered by one call.
    """
    self._most_waiting, self._most_together = most_waiting, most_together
    self._jobs: collections.deque[_Job] = collections.deque()
    self._size = 0  # of all that wait
    self._changed = threading.Condition()
    self._is_closed = False
    self.late = 0.0
    self._thread = threading.Thread(target=self._work, name='model')
    self._thread.start()

  def __len__(self) -> int:
    """Requests that wait."""
    return len(self._jobs)

  def refusal(self, size: int = 1) -> refusals.Refusal | None:
    """503, if there is no room for so many more, or the service is stopping."""
    retry = {'Retry-After': str(limits.RETRY_SECONDS)}
    if self._is_closed:
      return refusals.Refusal(
          'The service is stopping.', status=503, code='stopping', headers=retry
      )
    if self.late > limits.LATE_SECONDS:
      return refusals.Refusal(
          f'Requests are read {self.late:.1f} s after they came. Try again '
          'later, and less often.',
          status=503,
          code='busy',
          headers=retry,
      )
    # One that is larger than the queue is served when nobody waits.
    if self._jobs and self._size + size > self._most_waiting:
      return refusals.Refusal(
          f'{len(self._jobs):,} requests are waiting, more than the model can '
          'answer soon. Try again later, and less often.',
          status=503,
          code='busy',
          headers=retry,
      )
    return None

  def submit(
      self, kind: Any, handle: Handler, request: Any, size: int = 1
  ) -> futures.Future:
    """Puts a request behind the others.

    Args:
      kind: requests of one kind, one after the other, are answered together.
      handle: takes them, and returns an answer or a Refusal for each.
      request: what `handle` gets.
      size: users or items in it.

    Raises:
      Refusal: 503, if there is no room for it, or the service is stopping.
    """
    with self._changed:
      refusal = self.refusal(size)
      if refusal is not None:
        raise refusal
      future: futures.Future = futures.Future()
      self._jobs.append(_Job(kind, handle, request, size, future))
      self._size += size
      self._changed.notify()
    return future

  def close(self) -> None:
    """Answers what waits, refuses what comes, and ends the thread."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join()

  def _take(self) -> list[_Job]:
    """The next requests of one kind; none when all is done."""
    with self._changed:
      while not self._jobs and not self._is_closed:
        self._changed.wait()
      taken: list[_Job] = []
      size = 0
      while self._jobs:
        job = self._jobs[0]
        if taken and (
            job.kind != taken[0].kind or size + job.size > self._most_together
        ):
          break
        taken.append(self._jobs.popleft())
        size += job.size
      self._size -= size
      return taken

  def _work(self) -> None:
    while jobs := self._take():
      jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
      for job, answer in zip(jobs, _answer(jobs), strict=True):
        if isinstance(answer, BaseException):
          job.future.set_exception(answer)
        else:
          job.future.set_result(answer)


def _answer(jobs: Sequence[_Job]) -> Sequence[Any]:
  """Answers or exceptions; what fails together is tried one by one."""
  if not jobs:
    return []
  try:
    return jobs[0].handle([job.request for job in jobs])
  except Exception as error:  # of this call; the thread goes on
    if len(jobs) == 1:
      return [error]
    return [_answer([job])[0] for job in jobs]
