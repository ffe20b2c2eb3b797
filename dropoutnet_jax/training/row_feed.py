# SPDX-License-Identifier: Apache-2.0
"""What steps read: tables that stay as they are, or with batches that come in.

Rows that are streamed are read by Grain in threads of its own, batch after
batch, each a pure function of the seed and the step: the state of the reader is
the number of the step, and it starts at any without a look at those before. A
process reads its own part of each batch. The next call's batches go to the
devices while these compute.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import row_file
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import step_batch

_THREADS = 4
_MOST_ROWS = 2**22  # that are read ahead, 17 bytes each


# Of a step: int32 [B], and bool [B] or None; see `step_batch.draw_places`.
Places = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def make_places(cfg: config.Config, num_rows: int) -> Places:
  """Which of so many rows a step trains on, compiled for the CPU."""

  def places(step: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    key = step_batch.step_key(cfg, step)
    return step_batch.draw_places(cfg, key, step, num_rows)

  return parallel.on_host(places)


class Feed(Protocol):
  """Tables for the calls of a training loop, in their order."""

  def tables(self, begin: int, end: int) -> tables_lib.Tables:
    """What the steps from `begin` to before `end` read, on the devices."""

  def close(self) -> None:
    """Ends what it has begun; must be called once."""


@dataclasses.dataclass(frozen=True)
class Resident:
  """The same tables for all steps."""

  placed: tables_lib.Tables

  def tables(self, begin: int, end: int) -> tables_lib.Tables:
    """See `Feed`."""
    del begin, end
    return self.placed

  def close(self) -> None:
    """See `Feed`."""


class Batches:
  """Batch n of rows in a file, for Grain: a source of one batch a record."""

  def __init__(
      self,
      places: Places,
      num_steps: int,
      part: slice,
      rows: row_file.RowFile,
  ):
    self._places, self._num_steps = places, num_steps
    self._part, self._rows = part, rows

  def __len__(self) -> int:
    return self._num_steps

  def __repr__(self) -> str:  # Grain shows it in messages
    return f'Batches({len(self._rows)} rows)'

  def __getitem__(self, step: Any) -> tables_lib.LabelledRows:
    """This process's part of the batch of a step."""
    place, is_real = self._places(np.asarray(step, np.int32))
    rows = self._rows.read(place[self._part])
    weight = rows['weight']
    if is_real is not None:
      is_real = is_real[self._part]
      weight = np.where(is_real, weight, np.float32(0))
    return tables_lib.LabelledRows(
        rows['user'], rows['item'], rows['label'], weight, is_real=is_real
    )


class Streaming:
  """Tables with the batches of each call, from a file."""

  def __init__(
      self,
      cfg: config.Config,
      placed: tables_lib.Tables,
      rows: row_file.RowFile,
      places: Places,
      mesh: parallel.Mesh,
      step: int,
  ):
    """Begins to read ahead.

    Args:
      cfg: the experiment.
      placed: what stays on the devices.
      rows: all training rows.
      places: what `make_places` makes for them.
      mesh: of the devices.
      step: the first one that will be asked for.
    """
    import grain  # pylint: disable=g-import-not-at-top  # half a second

    self._placed, self._mesh = placed, mesh
    self._size = cfg.train.batch_size
    self._most = min(cfg.train.steps_per_dispatch, cfg.train.num_steps)
    self._next = step
    part = parallel.rows_of_process(self._size, mesh)
    source = Batches(places, cfg.train.num_steps, part, rows)
    ahead = min(max(_MOST_ROWS // self._size, 2), 2 * self._most)
    self._batches = iter(
        grain.MapDataset.source(source)[step:].to_iter_dataset(
            grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
        )
    )
    self._batches.start_prefetch()

  def tables(self, begin: int, end: int) -> tables_lib.Tables:
    """See `Feed`.

    Raises:
      ValueError: if `begin` is not where the call before has ended.
    """
    if begin != self._next:
      raise ValueError(f'Step {begin} is not the next one, {self._next}.')
    self._next = end
    first = next(self._batches)
    empty = lambda x: np.zeros((self._most, *x.shape), x.dtype)
    window = jax.tree.map(empty, first)
    for number in range(end - begin):
      batch = next(self._batches) if number else first
      for all_rows, rows in zip(*map(jax.tree.leaves, (window, batch))):
        all_rows[number] = rows
    return dataclasses.replace(
        self._placed,
        rows=parallel.place_batches(window, self._size, self._mesh),
        first_step=jnp.int32(begin),
    )

  def close(self) -> None:
    """See `Feed`: ends the threads that read."""
    self._batches.close()
