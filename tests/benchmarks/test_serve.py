# SPDX-License-Identifier: Apache-2.0
"""The load on a service, on a small run: what is asked, counted and said."""

import asyncio
import contextlib
import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from benchmarks import load
from benchmarks import serve
from benchmarks import serve_run
from dropoutnet_jax import errors
from dropoutnet_jax.serving import recommender
from tests import compilation
from tests.serving.service import processes

SIZES = serve_run.Sizes(users=50, items=120, rank=4, hidden=4)


@contextlib.contextmanager
def _replies(statuses):
  """A server that gives each request the next of some statuses."""
  asked, rest = [], iter(statuses)

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
      length = int(self.headers['Content-Length'])
      asked.append((self.path, json.loads(self.rfile.read(length))))
      status = next(rest)
      self.send_response(status)
      self.send_header('Content-Length', '2')
      if status != 200:
        self.send_header('Connection', 'close')
      self.end_headers()
      self.wfile.write(b'{}')

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield server.server_address[1], asked
  finally:
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_requests_are_sent_when_due_and_counted_by_status():
  with _replies([200, 503, *[200] * 8]) as (port, asked):
    found = asyncio.run(load.run(port, users=7, rate=200, seconds=0.05))
  assert found['asked'] == len(asked) == 10
  assert found['statuses'] == {'200': 9, '503': 1}
  assert 0 < found['median'] <= found['p99'] <= found['largest']
  assert found['refused_median'] > 0
  assert {path for path, _ in asked} == {'/recommend'}
  assert all(body['users'][0]['id'] < 7 for _, body in asked)


def test_nobody_there_is_counted_as_such():
  with _replies([]) as (port, _):
    pass
  found = asyncio.run(load.run(port, users=7, rate=100, seconds=0.02))
  assert found['statuses'] == {'0': 2} and found['median'] == 0.0


@pytest.fixture(scope='module', name='folder')
def fixture_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('bench')
  with compilation.quick_compilation():
    serve_run.make(folder, SIZES)
  return folder


def test_a_run_without_training_is_what_its_tables_say(folder):
  with compilation.quick_compilation():
    workdir = serve_run.make(folder, SIZES)  # which is there already
    model = recommender.load(str(workdir))
  assert (len(model.users()), len(model.items())) == (50, 120)
  told = serve_run.content('item', 17)
  encoder = model.encoders['item']
  assert set(told) == set(encoder.columns)
  row = model.problem.item.ids.tolist().index(17)
  dense = model.problem.item.dense[row]
  vector = np.array(told['vector'])
  near = dense[: serve_run.WIDTH] / vector  # scaled by row
  np.testing.assert_allclose(near, near[0], rtol=1e-4)


@pytest.fixture(name='server')
def fixture_server(folder, tmp_path):
  """A real service on the run, in a process that is quick to start."""
  log, state = tmp_path / 'log.txt', tmp_path / 'state.sqlite'
  workdir = serve_run.make(folder, SIZES)
  server = processes.Server(workdir, log, f'--state={state}').wait()
  yield server
  server.kill()


def test_the_whole_bench_on_a_small_run(folder, server, monkeypatch):
  for name, value in (
      ('_RATES', (20,)),
      ('_SECONDS', 0.5),
      ('_SECONDS_BEYOND', 0.1),
      ('_BEYOND', 50),
      ('_ITEMS', SIZES.items),
      ('_MANY_ITEMS', SIZES.items),
      ('_FRESH', 2),
      ('_service', lambda workdir: contextlib.nullcontext(server.port)),
  ):
    monkeypatch.setattr(serve, name, value)
  monkeypatch.setattr(serve_run, 'Sizes', lambda items: SIZES)
  found = serve.measure(folder)
  assert [row.measure.split(' (')[0] for row in found.rows] == [
      'p99 ms at 20/s',
      'ms from POST /items into a list, 120 items, median',
  ]
  assert found.rows[0].measure.endswith(', 0 errors)')
  assert all(row.ours > 0 for row in found.rows)
  assert '10 of 200' in found.notes[0]
  assert found.notes[1].startswith('Beyond capacity, 50 requests/s: ')


def test_a_service_that_does_not_start_says_why(tmp_path):
  log = tmp_path / 'log.txt'
  log.write_text('run.py: nothing is no run folder\n')
  process = subprocess.Popen([sys.executable, '-S', '-c', 'exit(2)'])
  process.wait()
  with pytest.raises(errors.UserError, match='not ready: run.py: nothing is'):
    serve._wait(process, log)
  log.write_text('Listening on http://127.0.0.1:4711; x\nReady after 1 s.\n')
  assert serve._wait(process, log) == 4711
