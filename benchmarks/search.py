# SPDX-License-Identifier: Apache-2.0
"""Exact lists of a large catalogue: the index of this package against FAISS.

Both rank a million random items for a batch of users, in turns, on the same
cores. FAISS as it comes multiplies no matrices for a batch of this size but
scores one user after the other (its threshold is a product of users and
columns); told to, it does, and that is what the bar is held against. The second
measure is what a service does: an item is put in, and found by a query for a
user who wants it most.
"""

from collections.abc import Callable
import statistics
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks import task
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.index import item_index
from dropoutnet_jax.serving.index import nearest
from dropoutnet_jax.serving.index import workers

_ITEMS, _WIDTH, _USERS, _K = 1_000_000, 128, 256, 100
_ROUNDS = 7
_UPSERTS = 50
_CHUNK = 100_000  # items drawn at a time
_BAR = 1.0
_SOON = 50.0  # milliseconds from upsert to found, at most


def run(data_dir: str | None) -> comparison.Comparison:
  """Measures both; the items are random, so no data is read."""
  del data_dir
  faiss = nearest.load_faiss()
  rng = np.random.default_rng(0)
  items, users = _draw(rng, _ITEMS), _draw(rng, _USERS)
  flat = faiss.IndexFlatIP(_WIDTH)
  flat.add(items)
  index = factory.build('exact', np.arange(_ITEMS), _embedding(items))
  del items
  asked = _embedding(users)
  found: dict[str, np.ndarray] = {}

  def ours() -> None:
    found['ours'] = index.search(asked, _K).ids

  def theirs(threshold: int) -> Callable[[], None]:
    def search() -> None:
      faiss.cvar.distance_compute_blas_threshold = threshold
      found['theirs'] = flat.search(users, _K)[1]

    return search

  default = faiss.cvar.distance_compute_blas_threshold
  threads = _use_fastest_threads(faiss, theirs(0))
  seconds = _in_turns((ours, theirs(0)), _ROUNDS)
  as_it_comes = statistics.median(_in_turns((theirs(default),), 1)[0])
  same = float(np.mean(found['ours'] == found['theirs']))
  mine, other = (statistics.median(part) for part in seconds)
  upserts = upsert_seconds(index, rng)
  adds = _add_seconds(flat, rng)
  size = f'{_ITEMS:,} x {_WIDTH}'
  soon = 1000 * statistics.median(upserts)
  return comparison.Comparison(
      f'Exact search, {size} float32',
      'FAISS flat',
      [
          comparison.Row(
              f'seconds, top {_K} of {_USERS} users (FAISS: products by BLAS)',
              mine,
              other,
              statistics.median(b / a for a, b in zip(*seconds)),
              _BAR,
          ),
          comparison.Row(
              f'seconds, top {_K} of {_USERS} users (FAISS: as it comes)',
              mine,
              as_it_comes,
              as_it_comes / mine,
          ),
          comparison.Row(
              f'ms from upsert to found, one item and user, top {_K}',
              soon,
              1000 * statistics.median(adds),
              statistics.median(adds) / statistics.median(upserts),
          ),
          comparison.Row(
              'ms from upsert to found (reference: what is aimed at)',
              soon,
              _SOON,
              _SOON / soon,
              _BAR,
          ),
      ],
      [
          f'Medians of {_ROUNDS} rounds in turns, {workers.count()} of '
          f'{task.num_threads()} CPUs; FAISS is fastest here with {threads} of '
          f'them. {100 * same:.2f} % of the places of all lists hold the same '
          'item.',
          f'Upsert to found: {soon:.1f} ms at the median, '
          f'{1000 * max(upserts):.1f} ms at most, of {len(upserts)}.',
      ],
  )


def _use_fastest_threads(faiss: Any, search: Callable[[], None]) -> int:
  """Sets how many threads FAISS is fastest with; returns it.

  On a busy machine they wait for one another, and one may be the fastest.
  """
  seconds = {}
  for number in range(1, workers.count() + 1):
    faiss.omp_set_num_threads(number)
    seconds[number] = min(_in_turns((search,), 2)[0])
  fastest = min(seconds, key=lambda number: seconds[number])
  faiss.omp_set_num_threads(fastest)
  return fastest


def upsert_seconds(
    index: item_index.ItemIndex, rng: np.random.Generator
) -> list[float]:
  """From putting an item in to a list that it is first of, one by one."""
  seconds = []
  for number in range(_UPSERTS + 1):  # the first warms up
    user = _draw(rng, 1)
    wanted, longer = _embedding(user), _embedding(9 * user)
    name = -1 - number
    begin = time.perf_counter()
    index.upsert([name], longer)
    best = index.search(wanted, _K).ids[0, 0]
    seconds.append(time.perf_counter() - begin)
    if best != name:
      raise AssertionError(f'{name} was put in, and {best} was found.')
  return seconds[1:]


def _add_seconds(flat: object, rng: np.random.Generator) -> list[float]:
  """The same of FAISS, which knows no ids."""
  seconds = []
  for _ in range(_UPSERTS + 1):
    wanted = _draw(rng, 1)
    longer = wanted * np.float32(9)
    begin = time.perf_counter()
    flat.add(longer)  # type: ignore[attr-defined]
    flat.search(wanted, _K)  # type: ignore[attr-defined]
    seconds.append(time.perf_counter() - begin)
  return seconds[1:]


def _draw(rng: np.random.Generator, number: int) -> np.ndarray:
  """Random rows float32 [number, _WIDTH]."""
  rows = np.empty((number, _WIDTH), np.float32)
  for begin in range(0, number, _CHUNK):
    part = rows[begin : begin + _CHUNK]
    part[:] = rng.standard_normal(part.shape, np.float32)
  return rows


def _embedding(rows: np.ndarray) -> embeddings.Embedding:
  return embeddings.Embedding(jnp.asarray(rows, jnp.float32))


def _in_turns(
    sides: tuple[Callable[[], None], ...], num_rounds: int
) -> list[list[float]]:
  """Seconds of each side in each round, one more before them."""
  rounds: list[list[float]] = []
  for _ in range(num_rounds + 1):
    rounds.append([])
    for side in sides:
      begin = time.perf_counter()
      side()
      rounds[-1].append(time.perf_counter() - begin)
  return [list(times) for times in zip(*rounds[1:])]
