# SPDX-License-Identifier: Apache-2.0
"""Requests at a steady rate, whether the service keeps up or not.

  python -m benchmarks.load --port=8000 --users=20000 --rate=100 --seconds=10

prints JSON: how long answers took, and how many there were of each status.
Requests go out when they are due, not when the one before was answered, and
their time counts from then; so a service that stalls is not spared what it
would have got meanwhile. Knows HTTP and nothing of the package.
"""

import argparse
import asyncio
from collections.abc import Mapping
import dataclasses
import json
import random
import statistics
import time
from typing import Any

_HEAD = (
    'POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n'
    'Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n'
)
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclasses.dataclass
class Load:
  """Requests to one service, over as many connections as are needed."""

  port: int
  idle: list[_Connection] = dataclasses.field(default_factory=list)

  async def ask(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
    """Status and body of an answer; status 0 where there is none."""
    text = json.dumps(body).encode()
    head = _HEAD.format(path=path, length=len(text)).encode()
    try:
      while self.idle:  # one that the service has closed is none
        reader, writer = self.idle.pop()
        if not reader.at_eof():
          break
      else:
        reader, writer = await asyncio.open_connection('127.0.0.1', self.port)
      writer.write(head + text)
      lines = (await reader.readuntil(b'\r\n\r\n')).decode().split('\r\n')
      headers = {
          name.lower(): value
          for name, _, value in (line.partition(': ') for line in lines[1:])
      }
      found = await reader.readexactly(int(headers['content-length']))
    except (OSError, asyncio.IncompleteReadError):
      return 0, b''
    if headers.get('connection') == 'close':
      writer.close()
    else:
      self.idle.append((reader, writer))
    return int(lines[0].split()[1]), found

  def close(self) -> None:
    """Ends all connections."""
    for _, writer in self.idle:
      writer.close()


async def run(
    port: int, users: int, rate: float, seconds: float, seed: int = 0
) -> dict[str, Any]:
  """Asks for lists of users of the run at a steady rate.

  Args:
    port: of the service.
    users: have the ids from 0 to users - 1.
    rate: requests per second.
    seconds: for how long.
    seed: of the users.

  Returns:
    'asked', 'statuses' (counts), 'served_per_second', and in milliseconds
    'median', 'p99' and 'largest' of answers with status 200,
    'refused_median' of others, and 'late', how late requests went out
    (median): a load that cannot keep up measures itself.
  """
  load, rng = Load(port), random.Random(seed)
  times: dict[int, list[float]] = {}
  sent: list[float] = []

  async def one(due: float) -> None:
    body = {'users': [{'id': rng.randrange(users)}], 'k': 20}
    sent.append(1000 * (time.perf_counter() - due))
    status, _ = await load.ask('/recommend', body)
    spent = 1000 * (time.perf_counter() - due)
    times.setdefault(status, []).append(spent)

  begin = time.perf_counter()
  tasks = []
  for number in range(int(rate * seconds)):
    due = begin + number / rate
    await asyncio.sleep(max(due - time.perf_counter(), 0))
    tasks.append(asyncio.create_task(one(due)))
  await asyncio.gather(*tasks)
  elapsed = time.perf_counter() - begin
  load.close()
  served = sorted(times.get(200, []))
  refused = [x for status, part in times.items() if status != 200 for x in part]
  return {
      'asked': len(tasks),
      'statuses': {str(status): len(part) for status, part in times.items()},
      'served_per_second': len(served) / elapsed,
      'median': statistics.median(served) if served else 0.0,
      'p99': served[int(0.99 * (len(served) - 1))] if served else 0.0,
      'largest': served[-1] if served else 0.0,
      'late': statistics.median(sent) if sent else 0.0,
      'refused_median': statistics.median(refused) if refused else 0.0,
  }


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name, kind in (('port', int), ('users', int), ('rate', float)):
    parser.add_argument(f'--{name}', type=kind, required=True)
  parser.add_argument('--seconds', type=float, default=10.0)
  given = parser.parse_args()
  found = asyncio.run(run(given.port, given.users, given.rate, given.seconds))
  print(json.dumps(found))


if __name__ == '__main__':
  main()
