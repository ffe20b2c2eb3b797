# SPDX-License-Identifier: Apache-2.0
"""What every request passes before the service sees it.

Its key, its size, how long its body takes, and the headers of its answer; each
is counted. The size of a body that does not say how large it is, is watched by
the application itself.
"""

import asyncio
import hmac
import time

import fastapi
from starlette import datastructures
from starlette import types

from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import metrics as metrics_lib
from dropoutnet_jax.serving.service import model_thread
from dropoutnet_jax.serving.service import refusals

# Without a key: what tells nothing of users and items.
_OPEN = ('/', '/health', '/docs')
_METHODS = ('GET', 'POST', 'DELETE', 'HEAD', 'OPTIONS', 'PUT', 'PATCH')
_ASKING = ('POST', 'DELETE')  # the model
_HEADERS = {
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
  """An ASGI application around another one."""

  def __init__(
      self,
      app: types.ASGIApp,
      *,
      key: str | None,
      metrics: metrics_lib.Metrics,
      thread: model_thread.ModelThread,
      body_bytes: int = limits.BODY_BYTES,
  ):
    """Guards `app`; without a key it lets everybody in."""
    self._app, self._metrics, self._most = app, metrics, body_bytes
    self._thread, self._number = thread, 0
    self._key = None if key is None else key.encode()

  async def __call__(
      self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    begin, status = time.perf_counter(), 500
    self._number += 1

    async def send_on(message: types.Message) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
        headers = datastructures.MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
      elif scope['method'] == 'HEAD':  # what the headers tell of stays here
        message = {**message, 'body': b''}
      await send(message)

    try:
      refusal = self._refuse(scope)
      if refusal is not None:
        await refusal.answer()(scope, receive, send_on)
      else:
        await self._app(scope, _in_time(receive), send_on)
    finally:
      self._number -= 1
      route = scope.get('route')
      path = getattr(route, 'path', 'other') if route else 'other'
      method = scope['method'] if scope['method'] in _METHODS else 'other'
      seconds = time.perf_counter() - begin
      self._metrics.count(method, path, status, seconds)

  def _refuse(self, scope: types.Scope) -> refusals.Refusal | None:
    headers = datastructures.Headers(scope=scope)
    if self._key is not None and scope['path'] not in _OPEN:
      given = headers.get('x-api-key', '')
      scheme, _, token = headers.get('authorization', '').partition(' ')
      if not given and scheme.lower() == 'bearer':
        given = token.strip()
      # Takes the same time wherever the two differ.
      if not hmac.compare_digest(given.encode(), self._key):
        return refusals.Refusal(
            'This service wants its key, in the header X-API-Key.',
            status=401,
            headers={'WWW-Authenticate': 'Bearer'},
        )
    if scope['method'] in _ASKING:
      # Before anything of it is read: a crowd must cost next to nothing.
      refusal = self._thread.refusal()
      if refusal is None and self._number > limits.REQUESTS:
        refusal = refusals.Refusal(
            f'{self._number:,} requests are being answered; try again later.',
            status=503,
            code='busy',
            headers={'Retry-After': str(limits.RETRY_SECONDS)},
        )
      if refusal is not None:
        return refusal
    length = headers.get('content-length', '0')
    if not length.isascii() or not length.isdigit():
      return refusals.Refusal('Content-Length is no number.', status=400)
    if int(length[:20]) > self._most:
      return too_large(self._most)
    return None


def _in_time(receive: types.Receive) -> types.Receive:
  """Ends the wait for a body: who sends half of one has a place of all."""
  end = asyncio.get_running_loop().time() + limits.BODY_SECONDS
  is_whole = False

  async def receive_on() -> types.Message:
    nonlocal is_whole
    if is_whole:  # and whoever waits now wants to hear of the end
      return await receive()
    try:
      async with asyncio.timeout_at(end):
        message = await receive()
    except TimeoutError:
      raise fastapi.HTTPException(
          408,
          f'The body did not come within {limits.BODY_SECONDS:g} s.',
          {'Connection': 'close'},
      ) from None
    is_whole = not message.get('more_body', False)
    return message

  return receive_on


def too_large(most: int) -> refusals.Refusal:
  """Of a body of more than so many bytes."""
  return refusals.Refusal(
      f'The body has more than {most:,} bytes; send it in parts.',
      status=413,
      headers={'Connection': 'close'},
  )
