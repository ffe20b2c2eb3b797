# SPDX-License-Identifier: Apache-2.0
"""From a run or an export to a service that answers: `run.py serve`."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import ipaddress
import os
import signal
import socket
import sys
import time

from starlette import types
import uvicorn

from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax.serving import exported
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.service import app as app_lib
from dropoutnet_jax.serving.service import catalogue
from dropoutnet_jax.serving.service import core
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import model_thread
from dropoutnet_jax.serving.service import showing as showing_lib
from dropoutnet_jax.serving.service import state_file
from dropoutnet_jax.serving.service import stories as stories_lib
from dropoutnet_jax.training import run_folder

KEY_VARIABLE = 'DROPOUTNET_API_KEY'
_KEEP_SECONDS = 75  # that a connection without requests stays open
_SWITCH_SECONDS = 0.0005
_WATCH_SECONDS = 0.05
_GRACE_SECONDS = 30  # for what is in flight when a signal comes


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is served how; the fields are the flags of that name.

  Attributes:
    host: name or address of an interface of this machine.
    port: 0 takes any that is free.
    state: file of SQLite; None is service.sqlite of the run folder.
    api_key: that requests need; None looks into the environment.
    index: kind of the index of items.
    keep_shown: places of slates by policies that the log keeps.
  """

  host: str = '127.0.0.1'
  port: int = 8000
  state: str | None = None
  api_key: str | None = None
  index: str = 'exact'
  keep_shown: int = state_file.KEPT

  def check(self, workdir: str | None) -> str:
    """The run folder.

    Raises:
      UserError: for what can be told before anything is read.
    """
    if workdir is None:
      raise errors.UserError(
          'serve needs a run or an export; write python run.py serve '
          '--workdir=RUN.'
      )
    if not 0 <= self.port < 2**16:
      raise errors.UserError(f'--port={self.port}: ports are 0 to 65535.')
    for name in ('host', 'state', 'api_key'):
      if getattr(self, name) == '':
        raise errors.UserError(f'--{name} is empty; leave it out, or fill it.')
    options_lib.check_kind(self.index)
    if self.keep_shown < 1:
      raise errors.UserError(
          f'--keep_shown={self.keep_shown}: at least 1 place is kept.'
      )
    if self.state:
      run_folder.check_not_owned(workdir, 'state', self.state)
    return workdir

  def key(self, environment: Mapping[str, str]) -> str | None:
    """The key that requests need, or None."""
    key = self.api_key or environment.get(KEY_VARIABLE) or None
    if key is not None and not (key.isascii() and key.isprintable()):
      raise errors.UserError(
          f'The API key (--api_key or {KEY_VARIABLE}) goes into a header: it '
          'must have printable ASCII characters alone.'
      )
    return key


def run(
    workdir: str | None, settings: Settings, say: Callable[[str], None]
) -> None:
  """Serves until a signal comes.

  Args:
    workdir: the run folder, of a training that is finished or not; or an
      export.
    settings: how.
    say: takes a line for the user.

  Raises:
    UserError: for whatever the user can mend; nothing has been served then.
    Interrupted: when a signal came and everything in flight was answered.
  """
  begin = time.perf_counter()
  workdir = settings.check(workdir)
  key = settings.key(os.environ)
  listener = _listen(settings)
  with listener:
    ranker = recommender_lib.load(workdir)
    path = settings.state or os.path.join(workdir, exported.STATE)
    state = state_file.StateFile(path, identity(ranker), settings.keep_shown)
    try:
      engine = engine_lib.Engine(
          ranker, state, _builder(settings.index, ranker)
      )
      _tell(workdir, path, engine, say)
      explorer = explorer_lib.Explorer(ranker, workdir)
      service = core.Service(
          engine,
          stories_lib.Stories(engine, _builder(settings.index)),
          showing_lib.Showing(engine, state, explorer),
          model_thread.ModelThread(),
      )
      _serve(service, key, listener, begin, say)
    finally:
      state.close()


def identity(ranker: recommender_lib.Ranker) -> str:
  """What tells a run from others: its configuration and its ids."""
  found = hashlib.sha256(config_tree.to_json(ranker.cfg).encode())
  for side in (ranker.problem.user, ranker.problem.item):
    found.update(str(side.ids.dtype).encode())
    found.update(side.ids.tobytes())
  return found.hexdigest()


def _listen(settings: Settings) -> socket.socket:
  """A socket of the host and the port."""
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM
    )[0]
    with contextlib.ExitStack() as stack:
      listener = stack.enter_context(socket.socket(family, kind, protocol))
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
      stack.pop_all()
      return listener
  except (OSError, UnicodeError) as error:
    raise errors.UserError(
        f'--host={settings.host} --port={settings.port}: cannot listen there: '
        f'{getattr(error, "strerror", None) or error}. Choose another port, or '
        'an address of this machine.'
    ) from error


def _tell(
    workdir: str,
    path: str,
    engine: engine_lib.Engine,
    say: Callable[[str], None],
) -> None:
  memory = engine.memory
  say(
      f'{workdir}, step {engine.ranker.step}: {len(engine.rows.users.row):,} '
      f'users, {len(engine.catalogue):,} items.'
  )
  say(
      f'State in {path}: {len(memory.content):,} item(s) put, '
      f'{len(memory.deleted):,} deleted, {memory.interactions:,} '
      'interaction(s).'
  )
  for part, index in engine.catalogue.parts.items():
    recall = getattr(index, 'recall', None)
    if recall is not None:
      say(
          f'The index of {part} items ({index.kind}) finds '
          f'{100 * recall.value:.1f} % of the best {recall.k} of '
          f'{recall.queries} {recall.of}.'
      )


class _Server(uvicorn.Server):
  """uvicorn, quiet and bounded, that says when it listens."""

  def __init__(
      self,
      app: types.ASGIApp,
      thread: model_thread.ModelThread,
      on_start: Callable[[], None],
  ):
    super().__init__(
        uvicorn.Config(
            app,
            log_level='warning',
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            lifespan='off',
        )
    )
    self._on_start, self._thread = on_start, thread

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets=sockets)
    self._watching = asyncio.create_task(self._watch())
    self._on_start()

  async def _watch(self) -> None:
    """Measures how late the loop is, which has nothing else to tell by.

    When it cannot read as fast as requests come, they wait where the queue of
    the model does not see them.
    """
    loop = asyncio.get_running_loop()
    while True:
      due = loop.time() + _WATCH_SECONDS
      await asyncio.sleep(_WATCH_SECONDS)
      self._thread.late = loop.time() - due


def _serve(
    service: core.Service,
    key: str | None,
    listener: socket.socket,
    begin: float,
    say: Callable[[str], None],
) -> None:
  """Answers requests until a signal comes, which it raises."""
  host, port = listener.getsockname()[:2]
  shown = f'[{host}]' if ':' in host else host
  failed: list[BaseException] = []

  def on_warm(future: futures.Future) -> None:
    error = future.exception()
    if error is not None:
      failed.append(error)
      server.should_exit = True
    else:
      say(f'Ready after {time.perf_counter() - begin:.1f} s.')

  def on_start() -> None:
    say(f'Listening on http://{shown}:{port}; compiling. Ctrl-C stops it.')
    if key is None and not ipaddress.ip_address(host).is_loopback:
      say(
          'Whoever reaches that address can read and change everything: set '
          f'--api_key or {KEY_VARIABLE} to ask for a key.'
      )
    service.start().add_done_callback(on_warm)

  # The model's thread and the one that reads requests take turns: shorter
  # ones than Python's, lest many requests wait unread.
  sys.setswitchinterval(_SWITCH_SECONDS)
  number = 0
  try:
    server = _Server(app_lib.make(service, key), service.thread, on_start)
    server.run(sockets=[listener])
  except KeyboardInterrupt as error:  # which uvicorn raises when it is done
    number = error.args[0] if error.args else signal.SIGINT
  finally:
    service.close()
  if failed:
    raise failed[0]
  name = signal.Signals(number or signal.SIGTERM).name
  say(f'{name} came; everything that was asked has been answered.')
  sys.stdout.flush()
  raise errors.Interrupted(number or signal.SIGTERM)


def _builder(
    kind: str, ranker: recommender_lib.Ranker | None = None
) -> catalogue.Build:
  """Makes indexes of one kind; with a run recall is that of its users."""
  options = options_lib.Options()
  users = None if ranker is None else factory.some_users(kind, ranker, options)
  return lambda ids, embedding: factory.build(
      kind, ids, embedding, options, queries=users
  )
