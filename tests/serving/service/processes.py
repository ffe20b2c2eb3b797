# SPDX-License-Identifier: Apache-2.0
"""Real processes of `python run.py serve`, and requests to them.

They are forked from one that has its imports done, as in tests/tiny_run.py,
and compile for one size alone.
"""

import atexit
from collections.abc import Sequence
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import runpy
import signal
import sys
import time
from typing import Any

import jax

from tests import spared

ROOT = pathlib.Path(__file__).resolve().parents[3]
_PATIENCE = 120.0  # seconds for anything that a process is waited for


class Server:
  """A process that serves a run, killed in the end if it is still there."""

  def __init__(self, workdir: pathlib.Path, log: pathlib.Path, *argv: str):
    self._log = log
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        [
            __name__,
            'dropoutnet_jax.commands',
            'dropoutnet_jax.serving.service.server',
        ]
    )
    arguments = ('serve', f'--workdir={workdir}', '--port=0', *argv)
    self.process = context.Process(
        target=_serve, args=(arguments, str(log)), daemon=True
    )
    self.process.start()
    self.port = 0

  def output(self) -> str:
    """All that it has printed."""
    return self._log.read_text() if self._log.exists() else ''

  def wait(self) -> 'Server':
    """Until it is ready."""
    deadline = time.monotonic() + _PATIENCE
    while 'Ready after' not in self.output():
      assert self.process.is_alive(), self.output()
      assert time.monotonic() < deadline, self.output()
      time.sleep(0.02)
    found = re.search(r'http://127\.0\.0\.1:(\d+)', self.output())
    assert found is not None
    self.port = int(found[1])
    return self

  def ask(self, path: str, body: Any = None, method: str = '') -> Any:
    """The JSON of an answer with status 200."""
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    try:
      text = None if body is None else json.dumps(body)
      headers = {'Content-Type': 'application/json'} if text else {}
      method = method or ('POST' if text else 'GET')
      connection.request(method, path, text, headers)
      answer = connection.getresponse()
      found = answer.read()
    finally:
      connection.close()
    assert answer.status == 200, found
    return json.loads(found)

  def kill(self) -> None:
    """At once, as the system does it when memory is short."""
    os.kill(self.process.pid, signal.SIGKILL)
    self.process.join(_PATIENCE)

  def stop(self, number: int = signal.SIGTERM) -> int:
    """By a signal; returns the status."""
    os.kill(self.process.pid, number)
    self.process.join(_PATIENCE)
    assert not self.process.is_alive(), self.output()
    return self.process.exitcode


def _serve(argv: Sequence[str], log: str) -> None:
  """Becomes `python run.py *argv`, with its output in a file."""
  from dropoutnet_jax.serving.service import limits

  limits.SIZES = (4,)
  with open(log, 'w', encoding='utf-8') as file:
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_disable_most_optimizations', True)
  spared.collect_rarely()
  sys.argv = ['run.py', *argv]
  # Not what the tests inherited: shells start jobs with it ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    runpy.run_path(str(ROOT / 'run.py'), run_name='__main__')
  finally:
    atexit._run_exitfuncs()  # which children of multiprocessing leave out
