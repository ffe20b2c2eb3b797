# SPDX-License-Identifier: Apache-2.0
"""What process 0 has all processes do while the others wait for it.

In `parallel.on_writer` process 0 works, for hours maybe, and the others follow:
they wait for what it asks of them. That is an object which each process makes,
and calls of its methods, such as content ridge on the devices of all. They hear
of it after barriers of the coordinator, for which no process can be too late.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import contextvars
import itertools
import json
import pkgutil
from typing import Any, Generic, NamedTuple, TypeVar
import weakref

from jax.experimental import multihost_utils
import numpy as np
from orbax.checkpoint import multihost

from dropoutnet_jax import errors

_Made = TypeVar('_Made')
_Result = TypeVar('_Result')
# Collectives on CPUs give up after 30 s; preparing a large data set takes
# longer, so it is waited for at a barrier of the coordinator.
_BARRIER_MS = 24 * 3600 * 1000
_ORDER_BYTES = 1 << 12  # one size, so that one program sends all orders
_MOST_FORGOTTEN = 100  # in one order, which they must fit into
_barrier_numbers = itertools.count()
_object_numbers = itertools.count()
_objects: dict[int, Any] = {}  # what this process has made for process 0
_forgotten: list[int] = []  # numbers of objects that others may forget too
_is_open = contextvars.ContextVar('_is_open', default=False)


class _Order(NamedTuple):
  """What those do next that follow.

  Attributes:
    forgotten: numbers of objects that are no longer needed.
    number: of the object that is made or called.
    function: 'module:name' of what makes it or is called with it; '' where
      process 0 has finished.
    given: further arguments, numbers.
    failed: whether process 0 has finished in vain.
  """

  forgotten: list[int]
  number: int = -1
  function: str = ''
  given: Sequence[Any] = ()
  failed: bool = False


class Joint(Generic[_Made]):
  """An object on each process, of which all call a method at the same time.

  Process 0 makes and calls it in `parallel.on_writer`; those that follow do the
  same with one of their own, and forget it when it is gone here. Elsewhere, and
  of one process, it is an object like any other.

  Functions are those of a module or a class: the others find them by name. None
  may raise on one process before all have done what they do together.
  """

  def __init__(self, make: Callable[..., _Made], *given: Any, own: Any):
    """Makes it on each process.

    Args:
      make: of (*given, own).
      *given: the same everywhere; a few numbers.
      own: what process 0 has; None on the others.
    """
    self._number, self._is_everywhere = next(_object_numbers), is_open()
    if self._is_everywhere:
      weakref.finalize(self, _forgotten.append, self._number)
      _tell(self._number, make, given)
    self._object = make(*given, own)

  def __call__(
      self, method: Callable[..., _Result], *given: Any, own: Any
  ) -> _Result:
    """What method(object, *given, own) returns here; arguments as above."""
    if self._is_everywhere:
      assert is_open(), 'nobody follows'
      _tell(self._number, method, given)
    return method(self._object, *given, own)


def is_open() -> bool:
  """Whether all processes do together what process 0 asks for."""
  return _is_open.get()


def lead(work: Callable[[], _Result]) -> _Result:
  """Work of process 0 while each of the others is in `follow`."""
  try:
    with _opened():
      result = work()
  except errors.UserError:
    _tell(failed=True)
    raise
  _tell()
  return result


def follow() -> bool:
  """Does what process 0 asks for until it has finished; whether in vain."""
  with _opened():
    while True:
      order = _heard()
      for number in order.forgotten:
        _objects.pop(number, None)
      if not order.function:
        return order.failed
      function = pkgutil.resolve_name(order.function)
      if order.number in _objects:
        function(_objects[order.number], *order.given, None)
      else:
        _objects[order.number] = function(*order.given, None)


@contextlib.contextmanager
def _opened() -> Iterator[None]:
  token = _is_open.set(True)
  try:
    yield
  finally:
    _is_open.reset(token)


def _tell(
    number: int = -1,
    function: Callable[..., Any] | None = None,
    given: tuple[Any, ...] = (),
    failed: bool = False,
) -> None:
  """Has the others do this, or go on where there is no function."""
  few = min(len(_forgotten), _MOST_FORGOTTEN)
  forgotten = [_forgotten.pop() for _ in range(few)]
  name = f'{function.__module__}:{function.__qualname__}' if function else ''
  text = json.dumps(_Order(forgotten, number, name, given, failed))
  data = text.ljust(_ORDER_BYTES).encode()
  _passed_on(np.frombuffer(data, np.uint8))


def _heard() -> _Order:
  data = _passed_on(np.zeros(_ORDER_BYTES, np.uint8))
  return _Order(*json.loads(data.tobytes()))


def _passed_on(data: np.ndarray) -> np.ndarray:
  """Bytes of process 0 on all, once all are here."""
  key = f'dropoutnet_jax_{next(_barrier_numbers)}'
  multihost.get_barrier_sync_fn()(key=key, timeout_ms=_BARRIER_MS)
  return np.asarray(multihost_utils.broadcast_one_to_all(data), np.uint8)
