# SPDX-License-Identifier: Apache-2.0
"""What policies need beside the model, made while lists are answered.

Calibrations take up to a minute and passes have to be compiled. The first
request that needs them starts both on a thread of its own, waits with those
like it, and holds up nobody else.
"""

from concurrent import futures
import threading

from dropoutnet_jax import errors
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving.service import limits


class Preparing:
  """Prepares an explorer once for one of `plans.SPREADS`."""

  def __init__(self, explorer: explorer_lib.Explorer, spread: str):
    """Starts nothing yet."""
    self._explorer, self._spread = explorer, spread
    self._lock = threading.Lock()
    self._future: futures.Future | None = None

  def start(self) -> futures.Future:
    """Of the preparation, which begins with the first call.

    What a run lacks, it lacks for ever; after another failure, such as a full
    memory, the next call begins anew.
    """
    with self._lock:
      future = self._future
      if future is not None and future.done():
        failure = future.exception()
        if failure is not None and not isinstance(failure, errors.UserError):
          future = None
      if future is None:
        future = futures.Future()
        future.set_running_or_notify_cancel()  # not to be cancelled any more
        self._future = future
        threading.Thread(
            target=self._prepare, args=(future,), name='policies'
        ).start()
      return future

  def _prepare(self, future: futures.Future) -> None:
    try:
      self._explorer.prepare(limits.SIZES, self._spread)
    except Exception as error:  # who waits is told
      future.set_exception(error)
    else:
      future.set_result(None)
