# SPDX-License-Identifier: Apache-2.0
"""How long a service takes to answer, and what it does when it is too much.

`run.py serve` in a process of its own, the load from another one: medians and
99th percentiles at several rates, a rate far beyond what it can answer, and the
way of an item from POST /items into a list among a million.

  python -m benchmarks.serve --folder=DIR

keeps the runs that it makes in DIR for another time.
"""

import argparse
import asyncio
from collections.abc import Iterator
import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import comparison
from benchmarks import load
from benchmarks import serve_run
from benchmarks import suite
from benchmarks import task
from dropoutnet_jax import errors

_RATES = (50, 100, 200)
_BEYOND = 1000  # requests per second: more than two cores can answer
_SECONDS = 20.0
_SECONDS_BEYOND = 5.0
_ITEMS, _MANY_ITEMS = 100_000, 1_000_000
_FRESH = 20  # items that are put and looked for
_P99_BAR = 100.0  # ms
_FRESH_BAR = 50.0  # ms
_PATIENCE = 600.0  # seconds until a service is ready


def run(data_dir: str | None) -> comparison.Comparison:
  """Makes runs, measures, and removes them; reads nothing of `data_dir`."""
  del data_dir
  with tempfile.TemporaryDirectory() as folder:
    return measure(pathlib.Path(folder))


def measure(folder: pathlib.Path) -> comparison.Comparison:
  """As `run`, in a folder that keeps the runs."""
  rows, notes = [], []
  sizes = serve_run.Sizes(items=_ITEMS)
  print(f'Making a run of {sizes.items:,} items ...', flush=True)
  workdir = serve_run.make(folder, sizes)
  with _service(workdir) as port:
    for rate in _RATES:
      found = _load(port, sizes.users, rate, _SECONDS)
      rows += _rows_of_rate(rate, found)
      notes.append(f'{rate} requests/s: {_describe(found)}.')
    found = _load(port, sizes.users, _BEYOND, _SECONDS_BEYOND)
    notes.append(f'Beyond capacity, {_BEYOND} requests/s: {_describe(found)}.')
  sizes = serve_run.Sizes(items=_MANY_ITEMS)
  print(f'Making a run of {sizes.items:,} items ...', flush=True)
  workdir = serve_run.make(folder, sizes)
  with _service(workdir) as port:
    spent = asyncio.run(_fresh_items(port))
  median = statistics.median(spent)
  rows.append(
      comparison.Row(
          f'ms from POST /items into a list, {sizes.items:,} items, median',
          median,
          _FRESH_BAR,
          _FRESH_BAR / median,
          1.0,
      )
  )
  notes.append(
      f'From POST /items to the list that holds the item, two requests: '
      f'{min(spent):.1f} to {max(spent):.1f} ms in {len(spent)} tries.'
  )
  return comparison.Comparison(
      f'Service with {_ITEMS:,} items, and with {_MANY_ITEMS:,}',
      'at most',
      rows,
      notes,
  )


def _rows_of_rate(rate: int, found: dict[str, Any]) -> list[comparison.Row]:
  failed = found['asked'] - found['statuses'].get('200', 0)
  return [
      comparison.Row(
          f'p99 ms at {rate}/s (median {found["median"]:.1f}, {failed} errors)',
          found['p99'],
          _P99_BAR,
          # What was not answered took longer than anybody waits.
          0.0 if failed else _P99_BAR / max(found['p99'], 1e-9),
          1.0,
      )
  ]


def _describe(found: dict[str, Any]) -> str:
  statuses = ', '.join(f'{n} of {s}' for s, n in found['statuses'].items())
  text = (
      f'median {found["median"]:.1f} ms, p99 {found["p99"]:.1f}, largest '
      f'{found["largest"]:.1f}; statuses {statuses}; '
      f'{found["served_per_second"]:.0f} lists/s'
  )
  if found['late'] > 1:
    text += f'; sent {found["late"]:.0f} ms late (median)'
  if found['refused_median']:
    text += f'; refused after {found["refused_median"]:.1f} ms (median)'
  return text


@contextlib.contextmanager
def _service(workdir: pathlib.Path) -> Iterator[int]:
  """Starts a service; yields its port when it is ready, and stops it."""
  with tempfile.TemporaryDirectory() as folder:
    log = pathlib.Path(folder, 'log.txt')
    command = [sys.executable, str(task.ROOT / 'run.py'), 'serve']
    command += [f'--workdir={workdir}', '--port=0', f'--state={folder}/state']
    with open(log, 'w', encoding='utf-8') as file:
      process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
      yield _wait(process, log)
    finally:
      process.terminate()
      process.wait()


def _wait(process: subprocess.Popen, log: pathlib.Path) -> int:
  deadline = time.monotonic() + _PATIENCE
  while 'Ready after' not in log.read_text(encoding='utf-8'):
    if process.poll() is not None or time.monotonic() > deadline:
      said = log.read_text(encoding='utf-8').strip()
      raise errors.UserError(f'The service is not ready: {said[-500:]}')
    time.sleep(0.1)
  found = re.search(r'Listening on http://[^ ]*:(\d+)', log.read_text())
  assert found is not None
  return int(found[1])


def _load(port: int, users: int, rate: float, seconds: float) -> dict[str, Any]:
  """What another process, `benchmarks.load`, found."""
  print(f'Asking {rate} times per second ...', flush=True)
  flags = [f'--port={port}', f'--users={users}', f'--rate={rate}']
  done = subprocess.run(
      [sys.executable, '-m', load.__name__, *flags, f'--seconds={seconds}'],
      cwd=task.ROOT,
      capture_output=True,
      text=True,
      check=False,
  )
  if done.returncode:
    raise errors.UserError(f'The load failed: {done.stderr.strip()[-500:]}')
  return json.loads(done.stdout)


async def _fresh_items(port: int) -> list[float]:
  """Milliseconds from each item's POST to the answer of the list it is in."""
  asking = load.Load(port)

  async def ask(path: str, body: dict[str, Any]) -> Any:
    status, text = await asking.ask(path, body)
    if status != 200:
      raise errors.UserError(f'{path} answered {status}: {text.decode()}')
    return json.loads(text)

  async def list_of(user: int) -> list[int]:
    body = {'users': [{'id': user}], 'k': 20}
    found = (await ask('/recommend', body))['lists'][0]['items']
    return [item['id'] for item in found]

  spent = []
  for user in range(_FRESH + 1):
    # An item like the one that she wants most.
    like = next(name for name in await list_of(user) if name < 10**9)
    item = {'id': 10**9 + user, 'content': serve_run.content('item', like)}
    begin = time.perf_counter()
    await ask('/items', {'items': [item]})
    listed = await list_of(user)
    spent.append(1000 * (time.perf_counter() - begin))
    if item['id'] not in listed:
      raise errors.UserError(f'Item {item["id"]} is not in the list.')
  asking.close()
  return spent[1:]  # the first one compiles


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--folder', help='keeps the runs, for another time')
  folder = parser.parse_args().folder
  suite.show(run(None) if folder is None else measure(pathlib.Path(folder)))


if __name__ == '__main__':
  try:
    main()
  except errors.UserError as error:
    sys.exit(f'benchmarks.serve: {error}')
