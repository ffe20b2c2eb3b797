# SPDX-License-Identifier: Apache-2.0
"""Users or items that are asked about, block by block: of a run or of a file.

Memory does not grow with the file.
"""

from collections.abc import Iterator

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_blocks
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib

BLOCK = 16384  # rows at a time


class Run:
  """All users or items of the run.

  Attributes:
    total: how many rows there are; None where only reading tells.
  """

  def __init__(self, side: str, model: recommender_lib.Ranker):
    self._rows = model.users() if side == 'user' else model.items()
    self.total: int | None = len(self._rows)

  def part(self, number: int, count: int) -> range | None:
    """The rows of one of several processes; None is all, for a single one.

    Raises:
      UserError: if they cannot be shared.
    """
    if count == 1:
      return None
    assert self.total is not None
    return range(
        self.total * number // count, self.total * (number + 1) // count
    )

  def read(self, part: range | None = None) -> Iterator[rows_lib.Rows]:
    """The rows of a part, or all, in their order, in blocks."""
    part = range(len(self._rows)) if part is None else part
    for begin in range(part.start, part.stop, BLOCK):
      yield self._rows.select(slice(begin, min(begin + BLOCK, part.stop)))

  def notes(self) -> list[str]:
    """What there was and what is missing, once all is read."""
    return []


class File(Run):
  """The users or items of a file."""

  def __init__(
      self,
      path: str,
      side: str,
      model: recommender_lib.Ranker,
      distinct: bool = False,
  ):
    """Looks for the file, and at no row.

    Args:
      path: a file, folder, glob or URL.
      side: 'user' or 'item'.
      model: of the run.
      distinct: whether an id must not come twice. New ones are compared within
        a block alone: to know all of them would take the memory of all.

    Raises:
      UserError: if nothing is there.
    """
    super().__init__(side, model)
    self._side, self._model, self._distinct = side, model, distinct
    self._source = request_files.source(path, side, model)
    self._reader = request_tables.Reader(side, model)
    self.total = request_blocks.count_rows(self._source)

  def part(self, number: int, count: int) -> range | None:
    if count > 1 and self.total is None:
      raise errors.UserError(
          f'--{self._side}s={self._source.pattern}: several processes share '
          'the rows of Parquet files alone. Make it one, or start one process.'
      )
    if count > 1 and self.total is not None and self.total < count:
      raise errors.UserError(
          f'--{self._side}s={self._source.pattern} has {self.total} rows for '
          f'{count} processes; start one process.'
      )
    return super().part(number, count)

  def read(self, part: range | None = None) -> Iterator[rows_lib.Rows]:
    """The rows of a part, or all, in their order, in blocks.

    Raises:
      UserError: for what is wrong with the file.
    """
    settings = request_tables.settings(self._model, self._side)
    is_read = np.zeros(len(self._rows), bool)
    for table in request_blocks.read(self._source, settings, BLOCK, part):
      rows = self._reader.rows(table, self._distinct)
      if self._distinct:
        _check_not_read(rows, is_read, table)
      yield rows

  def notes(self) -> list[str]:
    return self._reader.notes(self._source.pattern)


def _check_not_read(
    rows: rows_lib.Rows, is_read: np.ndarray, table: table_files.Table
) -> None:
  """Marks rows of the run; raises UserError for one that a block had."""
  places = np.flatnonzero(~rows.is_new())
  known = rows.row[places]
  again = is_read[known]
  if again.any():
    place = int(places[np.argmax(again)])
    raise errors.UserError(
        f'{table.place(place)}: {rows.ids[place]!s} occurs more than once. '
        'Keep one row for each.'
    )
  is_read[known] = True


def of(
    path: str | None,
    side: str,
    model: recommender_lib.Ranker,
    distinct: bool = False,
) -> Run:
  """The rows of a file, or where there is none all of the run."""
  return File(path, side, model, distinct) if path else Run(side, model)
