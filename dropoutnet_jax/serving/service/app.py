# SPDX-License-Identifier: Apache-2.0
"""The service as an ASGI application: paths, and what stands behind them.

A request is checked where it arrives, so that a bad one costs the model
nothing; what is left goes to the model's thread, and its answer back.
"""

from typing import Annotated

import fastapi
from fastapi import exceptions
from fastapi import responses
from fastapi import routing
from starlette import exceptions as starlette_exceptions

from dropoutnet_jax.serving.service import core
from dropoutnet_jax.serving.service import docs_page
from dropoutnet_jax.serving.service import guards
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import metrics as metrics_lib
from dropoutnet_jax.serving.service import openapi
from dropoutnet_jax.serving.service import page_api
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import showing as showing_lib
from dropoutnet_jax.serving.service import wire

_After = Annotated[int, fastapi.Query(ge=0, lt=2**63)]
_Limit = Annotated[int, fastapi.Query(ge=1, le=limits.SHOWN)]


def make(
    service: core.Service,
    key: str | None = None,
    body_bytes: int = limits.BODY_BYTES,
) -> guards.Guard:
  """The application.

  Args:
    service: what answers.
    key: that requests need; None lets everybody in.
    body_bytes: of a request, at most.
  """
  app = fastapi.FastAPI(
      title='dropoutnet_jax',
      description=openapi.DESCRIPTION,
      version='1',
      docs_url=None,  # its page would load scripts from elsewhere
      redoc_url=None,
      max_body_size=body_bytes,
      redirect_slashes=False,
      responses=openapi.REFUSALS,
  )
  metrics = metrics_lib.Metrics()
  memory, engine = service.engine.memory, service.engine
  for name, what, read in (
      ('waiting', 'Requests that wait for the model.', service.thread.__len__),
      ('items', 'Items that can be recommended.', engine.catalogue.__len__),
      ('users', 'Users of the run.', engine.rows.users.row.__len__),
      ('met_users', 'Users with interactions since.', memory.met.__len__),
      ('changed_items', 'Items put since.', memory.content.__len__),
      ('interactions', 'Since the run.', lambda: memory.interactions),
  ):
    metrics.watch(name, what, read)
  _add_errors(app, body_bytes)
  _add_paths(app, service)

  @app.get(
      '/metrics',
      summary='Counts for Prometheus',
      response_class=responses.PlainTextResponse,
  )
  async def get_metrics() -> fastapi.Response:
    text = metrics.text()
    return fastapi.Response(text, media_type=metrics_lib.CONTENT_TYPE)

  page_api.add(app, service)
  openapi.describe(app, engine.rows.types, key is not None)
  docs_page.add(app)
  _answer_head(app)
  return guards.Guard(
      app,
      key=key,
      metrics=metrics,
      thread=service.thread,
      body_bytes=body_bytes,
  )


def _answer_head(app: fastapi.FastAPI) -> None:
  """Lets HEAD ask all that GET does; the guard leaves the body out.

  All paths must be there, and be described: HEAD is no operation of its own.
  """
  for route in app.routes:
    methods = route.methods if isinstance(route, routing.APIRoute) else None
    if methods and 'GET' in methods:
      methods.add('HEAD')


def _add_errors(app: fastapi.FastAPI, body_bytes: int) -> None:
  """All refusals in one shape."""

  @app.exception_handler(refusals.Refusal)
  async def on_refusal(
      request: fastapi.Request, error: refusals.Refusal
  ) -> fastapi.Response:
    del request
    return error.answer()

  @app.exception_handler(exceptions.RequestValidationError)
  async def on_invalid(
      request: fastapi.Request, error: exceptions.RequestValidationError
  ) -> fastapi.Response:
    del request
    return refusals.of_validation(error.errors()[0]).answer()

  @app.exception_handler(starlette_exceptions.HTTPException)
  async def on_status(
      request: fastapi.Request, error: starlette_exceptions.HTTPException
  ) -> fastapi.Response:
    if error.status_code == 413:
      return guards.too_large(body_bytes).answer()
    message = {
        400: _why_unread(error.__cause__),
        404: f'There is nothing at {ascii(request.url.path)[:200]}; GET /docs '
        'lists what there is.',
        405: f'{request.url.path} does not take {request.method}.',
    }.get(error.status_code, str(error.detail))
    return refusals.Refusal(
        message, status=error.status_code, headers=error.headers
    ).answer()

  @app.exception_handler(Exception)
  async def on_defect(
      request: fastapi.Request, error: Exception
  ) -> fastapi.Response:
    del request, error  # the server writes its traceback
    return refusals.Refusal(
        'This should not have happened; the log of the service says more.',
        status=500,
    ).answer()


def _why_unread(error: BaseException | None) -> str:
  """Of a body that looks like JSON to begin with."""
  if isinstance(error, RecursionError):
    return 'The body cannot be read: its lists and objects are too deep.'
  is_text = not isinstance(error, UnicodeError)
  if isinstance(error, ValueError) and is_text:  # of int, about digits
    return 'The body cannot be read: it holds a number of too many digits.'
  return 'The body cannot be read as JSON in UTF-8.'


def _add_paths(app: fastapi.FastAPI, service: core.Service) -> None:
  """What a product calls."""
  engine, read, showing = service.engine, service.read, service.showing

  @app.get('/health', summary='Whether requests are answered')
  async def get_health(response: fastapi.Response) -> wire.Health:
    if service.status != 'ready':
      response.status_code = 503
    return wire.Health(status=service.status)

  @app.post('/recommend', response_model=wire.Lists)
  async def recommend(body: wire.Recommend) -> fastapi.Response:
    """The best items of users: known ones, new ones, or mere histories.

    With a policy slates that also show what is to be learnt about; they are
    logged, see GET /shown.
    """
    ask = read.recommend(body)
    if ask.plan is not None and ask.plan.policy.needs_passes:
      await service.prepare(ask.plan.spread)
    kind = ('recommend', ask.candidates, ask.plan is not None)
    # Every item of a list has its reasons: so many rows to embed.
    size = len(ask.users) * (ask.k if ask.reasons else 1)
    handle = engine.recommend if ask.plan is None else showing.recommend
    lists = await service.ask(kind, handle, ask, size)
    return responses.JSONResponse({'step': engine.ranker.step, 'lists': lists})

  @app.get('/shown', summary='What policies have shown')
  async def get_shown(
      after: _After = 0, limit: _Limit = 1000
  ) -> fastapi.Response:
    """A line of JSON for each place of each slate, the oldest first.

    `after` is the `number` of the last line that is there already.
    """
    part = showing_lib.LogPart(after, limit)
    text = await service.ask('shown', showing.log, part, 1)
    return fastapi.Response(text, media_type=openapi.LINES)

  @app.post('/embed', response_model=wire.Embeddings)
  async def embed(body: wire.Embed) -> fastapi.Response:
    """What the towers make of users or items, known or new."""
    ask = read.embed(body)
    found = await service.ask('embed', engine.embed, ask, len(ask.rows))
    return responses.JSONResponse(
        {'step': engine.ranker.step, 'embeddings': found.as_json()}
    )

  @app.post('/items', response_model=wire.ItemsPut)
  async def put_items(body: wire.PutItems) -> fastapi.Response:
    """Adds items, or changes them; the very next lists may hold them."""
    items = read.items(body)
    answer = await service.ask('put', engine.put_items, items, len(items))
    return responses.JSONResponse(answer)

  @app.post('/interactions', response_model=wire.InteractionsPut)
  async def put_interactions(body: wire.PutInteractions) -> fastapi.Response:
    """Histories grow: lists of these users are others from now on."""
    pairs = read.interactions(body)
    answer = await service.ask(
        'interactions', showing.put_interactions, pairs, len(pairs)
    )
    return responses.JSONResponse(answer)

  @app.delete('/items/{item:path}', response_model=wire.Deleted)
  async def delete_item(item: str) -> fastapi.Response:
    """Takes an item out of all lists, one of the run too."""
    name = engine.rows.items.read(item, 'item')
    answer = await service.ask('delete', engine.delete_items, name, 1)
    return responses.JSONResponse(answer)
