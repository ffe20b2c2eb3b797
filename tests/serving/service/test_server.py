# SPDX-License-Identifier: Apache-2.0
"""`python run.py serve`: what it refuses, kills, and the end by a signal."""

import dataclasses
import pathlib
import shutil
import signal
import socket
import sqlite3
import threading
import time

import pytest

from dropoutnet_jax.serving import recommender
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import server as server_lib
from dropoutnet_jax.serving.service import state_file
from tests import command_line
from tests.serving.service import kills
from tests.serving.service import processes


@pytest.fixture(name='run')
def fixture_run(finished) -> pathlib.Path:
  """A finished run in the current folder."""
  return finished


@pytest.mark.parametrize(
    'flags, message',
    [
        ((), 'serve needs a run or an export; write python run.py serve --wor'),
        (('--workdir=nothing',), 'nothing'),
        (('--workdir=export',), 'export/manifest.json is damaged ('),
        (('--workdir=run', '--port=70000'), '--port=70000: ports are 0 to'),
        (('--workdir=run', '--port=x'), '--port'),
        (('--workdir=run', '--keep_shown=0'), '--keep_shown=0: at least 1'),
        (('--workdir=run', '--state='), '--state is empty'),
        (('--workdir=run', '--api_key='), '--api_key is empty'),
        (('--workdir=run', '--host='), '--host is empty'),
        (('--workdir=run', '--host=no.such.host.invalid'), 'cannot listen'),
        (('--workdir=run', '--host=192.0.2.1'), 'cannot listen there'),
        (('--workdir=run', '--state=run/config.json'), 'is a file of the run'),
        (('--workdir=run', '--state=tiny.py'), 'is no SQLite file'),
        (('--workdir=run', '--state=no/s.sqlite'), 'cannot be used as --state'),
        (('--workdir=run', '--api_key=schlüssel'), 'printable ASCII'),
        (('--workdir=run', '--index=best'), "no index of kind 'best'"),
        (('--workdir=run', '--k=5'), 'leave out --k'),
        (('--workdir=run', '--config=tiny.py'), 'leave out --config'),
        (('--workdir=run', '--config.train.seed=1'), 'leave out --config'),
    ],
)
def test_what_is_refused(run, flags, message):
  (run.parent / 'export').mkdir()
  (run.parent / 'export' / 'manifest.json').touch()
  before = command_line.snapshot(run.parent)
  ended = command_line.call('serve', '--port=0', *flags)
  command_line.check(ended, 2, message)
  after = command_line.snapshot(run.parent)
  after.pop('run/service.sqlite', None)
  assert after == before


def test_a_port_that_is_taken(run):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    ended = command_line.call('serve', '--workdir=run', f'--port={port}')
  command_line.check(ended, 2, f'--port={port}: cannot listen there')


def test_the_state_of_another_run(run):
  ended = command_line.call
  ranker = recommender.load(str(run))
  cfg = dataclasses.replace(ranker.cfg, name='other')
  other = server_lib.identity(dataclasses.replace(ranker, cfg=cfg))
  assert other != server_lib.identity(ranker)
  assert server_lib.identity(recommender.load(str(run))) == (
      server_lib.identity(ranker)
  )
  server_lib.state_file.StateFile('other.sqlite', other).close()
  ended = command_line.call(
      'serve', '--workdir=run', '--port=0', '--state=other.sqlite'
  )
  command_line.check(ended, 2, 'other.sqlite is the state of another run')


def test_the_key_is_of_the_flag_or_of_the_environment():
  key = lambda flag, value: server_lib.Settings(api_key=flag).key(
      {server_lib.KEY_VARIABLE: value} if value is not None else {}
  )
  assert key('flag', 'variable') == 'flag'
  assert key(None, 'variable') == 'variable'
  assert key(None, '') is None and key(None, None) is None


@pytest.fixture(scope='module', name='served')
def fixture_served(tmp_path_factory):
  """Starts real processes on a finished run, and kills those that are left."""
  run = tmp_path_factory.mktemp('served') / 'run'
  shutil.copytree(command_line.finished_run(tmp_path_factory), run)
  logs = tmp_path_factory.mktemp('logs')
  started = []

  def start(*argv):
    log = logs / f'{len(started)}.txt'
    started.append(processes.Server(run, log, *argv))
    return started[-1].wait()

  yield start
  for server in started:
    if server.process.is_alive():
      server.kill()


def test_what_was_acknowledged_survives_kills(served):
  stream = kills.run(served, kills=2)
  assert stream.items and stream.pairs and stream.deleted


def _check_what_it_said(lines, port):
  first, second, third, last = lines
  assert first.endswith('run, step 4: 60 users, 80 items.')
  assert second.endswith(
      'state.sqlite: 0 item(s) put, 0 deleted, 0 interaction(s).'
  )
  where = f'Listening on http://127.0.0.1:{port}; compiling.'
  assert third.startswith(where)
  assert last.startswith('Ready after ')


def test_it_says_what_an_approximate_index_finds(shop, tmp_path):
  """Measured on users of the run, for each part of the catalogue."""
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  build = server_lib._builder('ivf', shop.model)
  state = state_file.StateFile(str(tmp_path / 'state.sqlite'), 'shop')
  said = []
  try:
    engine = engine_lib.Engine(shop.model, state, build)
    server_lib._tell('run', 'state', engine, said.append)
  finally:
    state.close()
  for part, line in zip(('known', 'new'), said[2:], strict=True):
    recall = engine.catalogue.parts[part].recall
    assert recall.of == 'users'
    assert line.startswith(f'The index of {part} items (ivf) finds ')
    assert f'of the best {recall.k} of {recall.queries} users.' in line
    assert 0 < recall.value <= 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_all_is_answered(served, number, tmp_path):
  state = tmp_path / 'state.sqlite'
  server = served(f'--state={state}')
  _check_what_it_said(server.output().splitlines(), server.port)
  acknowledged, begun = [], threading.Event()

  def write():
    for n in range(10_000):
      try:
        server.ask('/items', {'items': [{'id': f'n{n}'}]})
      except OSError:  # nobody listens any more
        return
      acknowledged.append(f'n{n}')
      begun.set()

  thread = threading.Thread(target=write)
  thread.start()
  assert begun.wait(60)
  time.sleep(0.1)
  assert server.stop(number) == 128 + number
  thread.join(60)
  name = signal.Signals(number).name
  assert server.output().endswith(
      f'{name} came; everything that was asked has been answered.\n'
  )
  assert 'Traceback' not in server.output()
  # The log was moved into the file, which holds all.
  assert sorted(x.name for x in tmp_path.iterdir()) == ['state.sqlite']
  sql = sqlite3.connect(state)
  kept = {name for (name,) in sql.execute('select id from items')}
  sql.close()
  assert set(acknowledged) <= kept
