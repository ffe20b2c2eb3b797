# SPDX-License-Identifier: Apache-2.0
"""Kills a service in a stream of writes, again and again: what is lost?

  python -m tests.serving.service.kills --workdir=RUN --kills=20

starts `run.py serve` on a run, writes items and interactions from several
threads, kills it at a random moment, starts it again and asks for all that was
acknowledged. Two writers wait for each other's turns, so that writes are in
every stage when the signal comes. `start` says how a service is started.
"""

import argparse
from collections.abc import Callable
import http.client
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from tests.serving.service import processes

_WRITERS = 3
_SECONDS = (0.05, 0.6)  # from a write of each kind to the kill
_LONGEST = 30.0  # seconds until there was one of each, on the busiest machine
_USERS = 7  # who meet what is written


class Stream:
  """Writes until the service is gone, and remembers what was acknowledged."""

  def __init__(self) -> None:
    self.items: set[str] = set()
    self.deleting: set[str] = set()  # acknowledged or not
    self.deleted: set[str] = set()
    self.pairs: set[tuple[str, str]] = set()
    self._count = 0
    self._lock = threading.Lock()
    self._is_deleted = threading.Event()

  def run_and_kill(self, server: Any, seconds: float) -> None:
    """Writes to a service, for so long after a deletion, then kills it."""
    self._is_deleted.clear()
    threads = [
        threading.Thread(target=self._write, args=(server,))
        for _ in range(_WRITERS)
    ]
    for thread in threads:
      thread.start()
    self._is_deleted.wait(_LONGEST)
    time.sleep(seconds)
    server.kill()
    for thread in threads:
      thread.join()

  def _write(self, server: Any) -> None:
    while True:
      with self._lock:
        number = self._count
        self._count += 1
      item, user = f'kill-{number}', f'killed-user-{number % _USERS}'
      try:
        server.ask('/items', {'items': [{'id': item}]})
        self.items.add(item)
        pair = {'user': user, 'item': item}
        server.ask('/interactions', {'interactions': [pair]})
        self.pairs.add((user, item))
        if number % 5 == 0:
          self.deleting.add(item)
          server.ask(f'/items/{item}', method='DELETE')
          self.deleted.add(item)
          self._is_deleted.set()
      except (OSError, http.client.HTTPException):
        return

  def check(self, server: Any) -> None:
    """Raises AssertionError if something that was acknowledged is missing."""
    embed = {'items': [{'id': name} for name in self.items - self.deleting]}
    for begin in range(0, len(embed['items']), 200):
      server.ask('/embed', {'items': embed['items'][begin : begin + 200]})
    for number in range(_USERS):
      user = f'killed-user-{number}'
      ask = {'users': [{'id': user}], 'k': 1000, 'candidates': 'new'}
      listed = self._listed(server, ask)
      whole = self._listed(server, ask | {'exclude_seen': False})
      met = {item for name, item in self.pairs if name == user}
      assert not met & listed, 'an interaction is lost'
      if len(whole) < ask['k']:
        missing = self.items - self.deleting - whole
        assert not missing, f'items are lost: {missing}'
      assert not self.deleted & whole, 'a deletion is lost'

  def _listed(self, server: Any, ask: dict[str, Any]) -> set[str]:
    (found,) = server.ask('/recommend', ask)['lists']
    return {str(item['id']) for item in found['items']}


def run(start: Callable[[], Any], kills: int, seed: int = 0) -> Stream:
  """Kills so often; raises AssertionError if something is lost.

  Args:
    start: starts a service, always on the same state, that is ready.
    kills: how often.
    seed: of the moments.
  """
  stream, moments = Stream(), random.Random(seed)
  server = start()
  for _ in range(kills):
    stream.run_and_kill(server, moments.uniform(*_SECONDS))
    server = start()
    stream.check(server)
  server.kill()
  return stream


class _Command(processes.Server):
  """As somebody would start it, in a process of its own."""

  def __init__(self, workdir: str, state: str, log: pathlib.Path):
    self._log, self.port = log, 0
    command = [sys.executable, str(processes.ROOT / 'run.py'), 'serve']
    command += [f'--workdir={workdir}', f'--state={state}', '--port=0']
    with open(log, 'w', encoding='utf-8') as file:
      self._popen = subprocess.Popen(command, stdout=file, stderr=file)
    self.process = self  # of which is_alive() is asked
    self.wait()

  def is_alive(self) -> bool:
    return self._popen.poll() is None

  def kill(self) -> None:
    self._popen.kill()
    self._popen.wait()


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--kills', type=int, default=20)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    log = pathlib.Path(folder, 'log.txt')
    state = str(pathlib.Path(folder, 'state.sqlite'))
    found = run(lambda: _Command(given.workdir, state, log), given.kills)
  print(
      f'{given.kills} kills: {len(found.items):,} items, '
      f'{len(found.pairs):,} interactions and {len(found.deleted):,} deletions '
      'were acknowledged, and all were there.'
  )


if __name__ == '__main__':
  main()
