# SPDX-License-Identifier: Apache-2.0
"""A service on the shop, called without a network."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
from typing import Any

from fastapi import testclient
import pytest

from dropoutnet_jax.serving import explorer
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.service import app as app_lib
from dropoutnet_jax.serving.service import core
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import model_thread
from dropoutnet_jax.serving.service import showing as showing_lib
from dropoutnet_jax.serving.service import state_file
from dropoutnet_jax.serving.service import stories as stories_lib
from tests import compilation


def _build(ids, embedding):
  return factory.build('exact', ids, embedding)


CLIENT = testclient.TestClient


@dataclasses.dataclass
class Running:
  """A service, and whoever calls it."""

  service: core.Service
  client: Any

  def post(self, path: str, **body: Any) -> Any:
    """The JSON of an answer that must be one."""
    answer = self.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()

  def lists(self, *users: dict[str, Any], k: int = 100, **asked: Any) -> Any:
    """The ids of each list."""
    found = self.post('/recommend', users=list(users), k=k, **asked)
    return [[item['id'] for item in one['items']] for one in found['lists']]


Start = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture(scope='session', name='start')
def fixture_start(shop) -> Iterator[Start]:
  """Starts a service on the shop, or on another model.

  Its state may be there already.
  """

  @contextlib.contextmanager
  def start(path: Any, key: str | None = None, model: Any = None, **sizes: int):
    state = state_file.StateFile(str(path), 'shop')
    thread = model_thread.ModelThread(**sizes)
    try:
      engine = engine_lib.Engine(model or shop.model, state, _build)
      stories = stories_lib.Stories(engine, _build)
      showing = showing_lib.Showing(
          engine, state, explorer.Explorer(engine.ranker)
      )
      service = core.Service(engine, stories, showing, thread)
      service.start().result()
      client = CLIENT(app_lib.make(service, key), raise_server_exceptions=False)
      yield Running(service, client)
    finally:
      thread.close()
      state.close()

  with pytest.MonkeyPatch.context() as patch, compilation.quick_compilation():
    patch.setattr(limits, 'SIZES', (8,))  # each is compiled for
    yield start


@pytest.fixture(scope='module', name='ruled')
def fixture_ruled(start, ruled_shop, tmp_path_factory) -> Iterator[Running]:
  """One on the shop with rules of values."""
  path = tmp_path_factory.mktemp('ruled') / 'state.sqlite'
  with start(path, model=ruled_shop.model) as running:
    yield running


@pytest.fixture(scope='module', name='fresh')
def fixture_fresh(start, tmp_path_factory) -> Iterator[Running]:
  """One for the tests of a file that change nothing."""
  with start(tmp_path_factory.mktemp('state') / 'state.sqlite') as running:
    yield running
