# SPDX-License-Identifier: Apache-2.0
"""An engine behind its thread: what the handlers of all paths share."""

import asyncio
from collections.abc import Sequence
from concurrent import futures
import logging
from typing import Any, Literal

from dropoutnet_jax import errors
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import model_thread
from dropoutnet_jax.serving.service import preparing
from dropoutnet_jax.serving.service import read_asks
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import showing as showing_lib
from dropoutnet_jax.serving.service import stories as stories_lib

Status = Literal['starting', 'ready', 'stopping']
_LOG = logging.getLogger('dropoutnet_jax.service')


class Service:
  """An engine behind its thread; what the handlers of all paths share.

  Attributes:
    engine: what the thread works with.
    stories: what it works with for the page.
    showing: what it works with for policies.
    thread: the queue before it.
    read: checks what requests say.
    status: 'starting', 'ready' or 'stopping'.
  """

  def __init__(
      self,
      engine: engine_lib.Engine,
      stories: stories_lib.Stories,
      showing: showing_lib.Showing,
      thread: model_thread.ModelThread,
  ):
    """Takes what `start` sets going."""
    self.engine, self.stories, self.thread = engine, stories, thread
    self.showing = showing
    self._preparing = {
        spread: preparing.Preparing(showing.explorer, spread)
        for spread in plans.SPREADS
    }
    self.read = read_asks.Reader(engine.rows)
    self.status: Status = 'starting'

  def start(self) -> futures.Future:
    """Begins to compile; `status` is 'ready' when the future is done."""
    return self.thread.submit('warm', self._warm, None)

  def _warm(self, requests: Sequence[None]) -> Sequence[None]:
    self.engine.warm()
    self.status = 'ready'
    return requests

  async def ask(
      self, kind: Any, handle: model_thread.Handler, request: Any, size: int
  ) -> Any:
    """The answer of the model's thread.

    Raises:
      Refusal: what it answers, or 503 where nothing more can wait.
    """
    self._check_started()
    future = self.thread.submit(kind, handle, request, size)
    try:
      return await asyncio.wrap_future(future)
    except errors.UserError as error:  # something in the request, then
      raise refusals.Refusal(f'{error}') from error
    except OSError as error:  # the disk is full, or worse
      _LOG.error('%s', error)
      raise refusals.Refusal(
          'The state cannot be written; nothing has changed.',
          status=503,
          code='state',
          headers={'Retry-After': str(limits.RETRY_SECONDS)},
      ) from error

  async def prepare(self, spread: str) -> None:
    """Returns when policies that look at a spread have what they need.

    Args:
      spread: one of `plans.SPREADS`.

    Raises:
      Refusal: if the run has nothing that they need, or it is starting.
    """
    self._check_started()
    try:
      await asyncio.wrap_future(self._preparing[spread].start())
    except errors.UserError as error:
      raise refusals.Refusal(str(error), where='policy') from error
    if spread == 'belief':  # of a long log: in turns with all others
      while not self.showing.is_ready:
        await self.ask('read_on', self.showing.read_on, None, 1)

  def _check_started(self) -> None:
    if self.status == 'starting':
      raise refusals.Refusal(
          'The service is starting; GET /health says when it is ready.',
          status=503,
          code='starting',
          headers={'Retry-After': str(limits.RETRY_SECONDS)},
      )

  def close(self) -> None:
    """Answers what waits, and no more."""
    self.status = 'stopping'
    self.thread.close()
