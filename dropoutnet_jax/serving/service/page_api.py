# SPDX-License-Identifier: Apache-2.0
"""The page at / and the paths that it alone uses, below /page.

The page is one file without anything from elsewhere; page_policy.py sees to it.
"""

import importlib.resources
from typing import Annotated, Any

import fastapi
import pydantic

from dropoutnet_jax.serving.service import core
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import page_policy
from dropoutnet_jax.serving.service import stories as stories_lib
from dropoutnet_jax.serving.service import wire

_FILE = 'page.html'
_K = Annotated[int, pydantic.Field(strict=True, ge=1, le=50)]
_Start = Annotated[str, fastapi.Query(max_length=limits.ID_LENGTH)]


class Audience(wire.Body):
  """Asks who would want an item of this content, and where it lands."""

  content: wire.ItemContent
  k: _K = 10


class WarmUp(wire.Body):
  """Asks for a user's list if no more was known than so many interactions."""

  user: wire.Id
  revealed: int = pydantic.Field(0, strict=True, ge=0, le=limits.HISTORY)
  k: _K = 10


def add(app: fastapi.FastAPI, service: core.Service) -> None:
  """Adds the page and its paths to the application."""
  package = importlib.resources.files(__package__ or '')
  page = (package / _FILE).read_text(encoding='utf-8')
  stories = service.stories

  @app.get('/', include_in_schema=False)
  async def get_page() -> fastapi.Response:
    return page_policy.answer(page)

  @app.get('/page/about', summary='What the page is made from')
  async def about() -> dict[str, Any]:
    """Counts, the columns of content, and some users and items."""
    return stories.about_run()

  @app.get('/page/users', summary='Users whose ids begin like this')
  async def find_users(start: _Start = '') -> list[dict[str, Any]]:
    """At most 20, with how many interactions are known of each."""
    return stories.find_users(start)

  @app.post('/page/audience', summary='Who would want a new item')
  async def audience(body: Audience) -> dict[str, Any]:
    """The first k users, and how many lists of others it would be in."""
    content = service.read.content('item', body.content)
    ask = stories_lib.Audience(content, body.k)
    return await service.ask('audience', stories.audience, ask, limits.BATCH)

  @app.post('/page/warm_up', summary='A user with a part of her history')
  async def warm_up(body: WarmUp) -> dict[str, Any]:
    """Her list, and which of the interactions that stay hidden are in it."""
    user = service.engine.rows.users.read(body.user, 'user')
    ask = stories_lib.WarmUp(user, body.revealed, body.k)
    return await service.ask('warm_up', stories.warm_up, ask, 1)
