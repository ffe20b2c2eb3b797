# SPDX-License-Identifier: Apache-2.0
"""From a file of users or items to one of embeddings: `run.py embed`.

Rows are read, embedded and written block by block: memory grows neither with
the input nor with the output, but for the interactions, of which each pair
takes some bytes.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import os
import sys

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import embed_request
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_blocks
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.training import telemetry

_OTHER = {'user': 'item', 'item': 'user'}
_BLOCK = 16384  # rows at a time


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was written.

  Attributes:
    path: of the file.
    side: 'user' or 'item'.
    step: of the checkpoint.
    num_rows: of the file.
    dense_width: of the embeddings.
    sparse_width: of their sparse part; None without one.
    notes: what was left out or is missing, one sentence each.
  """

  path: str
  side: str
  step: int
  num_rows: int
  dense_width: int
  sparse_width: int | None
  notes: list[str]


def answer(workdir: str | None, request: embed_request.Request) -> Answer:
  """Embeds with the best checkpoint of a run folder, and writes the file.

  Args:
    workdir: the run folder, of a training that is finished or not.
    request: what is asked for.

  Raises:
    UserError: for whatever is wrong with the request, its files or the folder;
      no file is written or changed then.
  """
  place = parallel.which_process()
  with _all_or_none():
    folder, path, side = request.check(workdir, place)
  with _all_or_none() as agree:
    return _write(recommender_lib.load(folder), request, path, side, agree)


def _write(
    model: recommender_lib.Ranker,
    request: embed_request.Request,
    path: str,
    side: str,
    agree: Callable[[], None],
) -> Answer:
  """`answer` with what was checked; `agree` before the file is there."""
  told = None
  if request.interactions:
    told = _Told(request.interactions, side, model)
  file = getattr(request, f'{side}s')
  source = _File(file, side, model) if file else _Run(side, model)
  part = source.part(*parallel.which_process())
  progress = _Progress(source.total if part is None else len(part), side)

  def embedded() -> Iterator[embedding_files.Embedded]:
    yield from progress.watch(_embed(model, side, source.read(part), told))
    agree()
    if told is not None:
      told.check()

  with _folder_of(path):
    num_rows = embedding_files.write(
        path,
        getattr(model.cfg.data.tables, f'{side}_id'),
        embedded(),
        {'side': side, 'step': model.step, 'run': model.cfg.name},
    )
  notes = source.notes() + ([] if told is None else told.notes)
  total = parallel.total(num_rows)
  return Answer(path, side, model.step, total, *progress.widths, notes)


@contextlib.contextmanager
def _all_or_none() -> Iterator[Callable[[], None]]:
  """A block that ends well on all processes or on none.

  Yields:
    What the block may call where it would be the last to go wrong; else its
    end does.

  Raises:
    UserError: of the block, or where that of another process has failed.
  """
  is_asked = False

  def agree() -> None:
    nonlocal is_asked
    is_asked = True
    parallel.agree()

  try:
    yield agree
  except errors.UserError:
    if not is_asked:
      parallel.agree(is_well=False)
    raise
  if not is_asked:
    agree()


@contextlib.contextmanager
def _folder_of(path: str) -> Iterator[None]:
  """Makes the folder of a file, unless nothing comes into it.

  Raises:
    UserError: if it can't be made.
  """
  folder = os.path.dirname(path) or '.'
  is_made = not os.path.isdir(folder)
  try:
    if is_made:
      os.makedirs(folder, exist_ok=True)  # another process may be first
  except OSError as error:
    raise errors.UserError(
        f'--output={folder} cannot be made: {error.strerror}. Name another '
        'folder.'
    ) from error
  try:
    yield
  finally:
    if is_made:
      with contextlib.suppress(OSError):  # it is not empty, or gone
        os.rmdir(folder)


def _embed(
    model: recommender_lib.Ranker,
    side: str,
    parts: Iterable[rows_lib.Rows],
    told: '_Told | None',
) -> Iterator[embedding_files.Embedded]:
  """Embeddings of some rows after those of others."""
  embed = model.embed_users if side == 'user' else model.embed_items
  for rows in parts:
    if told is not None:
      rows = dataclasses.replace(rows, history=told.history(rows.ids))
    yield embedding_files.on_host(rows.ids, embed(rows))


class _Run:
  """All users or items of the run, as a source of rows."""

  def __init__(self, side: str, model: recommender_lib.Ranker):
    self._rows = model.users() if side == 'user' else model.items()
    self.total: int | None = len(self._rows)

  def part(self, number: int, count: int) -> range | None:
    """The rows of one of several processes; None is all, for a single one."""
    if count == 1:
      return None
    assert self.total is not None
    return range(
        self.total * number // count, self.total * (number + 1) // count
    )

  def read(self, part: range | None) -> Iterator[rows_lib.Rows]:
    part = range(len(self._rows)) if part is None else part
    for begin in range(part.start, part.stop, _BLOCK):
      yield self._rows.select(slice(begin, min(begin + _BLOCK, part.stop)))

  def notes(self) -> list[str]:
    return []


class _File(_Run):
  """The users or items of a file."""

  def __init__(self, path: str, side: str, model: recommender_lib.Ranker):
    super().__init__(side, model)
    self._side, self._model = side, model
    self._source = request_files.source(path, side, model)
    self.total = request_blocks.count_rows(self._source)
    self._count = self._new = 0
    self._names: dict[str, None] = {}

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

  def read(self, part: range | None) -> Iterator[rows_lib.Rows]:
    settings = request_tables.settings(self._model, self._side)
    for table in request_blocks.read(self._source, settings, _BLOCK, part):
      rows, _ = request_tables.rows_of(
          table, self._side, self._model, distinct=False
      )
      self._count += len(rows)
      self._new += int(rows.is_new().sum())
      self._names |= dict.fromkeys(table.names)
      yield rows

  def notes(self) -> list[str]:
    """What there was, and columns that no block has; once all is read."""
    name = self._source.pattern
    count, new = parallel.total(self._count), parallel.total(self._new)
    notes = [
        f'{name}: {count:,} {self._side}(s), {new:,} of them new to the run.'
    ]
    wanted = self._model.encoders[self._side].columns if self._new else ()
    for column in wanted:
      if column not in self._names:
        near = table_files.nearest(column, [*self._names])
        notes.append(
            f'{name} has no column {column!r}, which features read: it counts '
            f'as missing.{near}'
        )
    return notes


class _Told:
  """Histories of whoever comes, from a file of pairs.

  Attributes:
    notes: on what is left out.
  """

  def __init__(self, path: str, side: str, model: recommender_lib.Ranker):
    pairs = request_files.read_pairs(path, model)
    other = _OTHER[side]
    self._own = getattr(pairs, side)
    run_ids = getattr(model.problem, other).ids
    row = own_ids.find(getattr(pairs, other), run_ids)
    self.notes = request_files.check_known(
        getattr(pairs, other), row >= 0, f'the {other}s of the run'
    )
    number = len(self._own.found.values)
    shape = (number, len(run_ids))
    self._met = pairs.likes().met(side, np.arange(number), row, shape)
    self._side, self._is_found = side, False

  def history(self, ids: np.ndarray) -> scipy.sparse.csr_array:
    """What each of some users or items met: csr_array [N, M]."""
    distinct, place = np.unique(ids, return_inverse=True)
    code = np.full(len(distinct), -1)
    found = own_ids.find(self._own, distinct)
    known = np.flatnonzero(found >= 0)
    code[found[known]] = known
    self._is_found |= len(known) > 0
    return blocks.take_rows(self._met, code[place])

  def check(self) -> None:
    """Raises UserError if nobody who was asked about has met anything."""
    if not parallel.anywhere(self._is_found):
      is_known = np.zeros(len(self._own.found.values), bool)
      whose = f'the {self._side}s that are asked about'
      request_files.check_known(self._own, is_known, whose)


class _Progress:
  """A bar of embeddings on the standard error.

  Attributes:
    widths: of the dense and of the sparse part; None without the latter.
  """

  def __init__(self, total: int | None, side: str):
    self._total, self._side = total, side
    self.widths: tuple[int, int | None] = (0, None)

  def watch(
      self, parts: Iterable[embedding_files.Embedded]
  ) -> Iterator[embedding_files.Embedded]:
    """The same, while the bar shows how far they are."""
    bar = telemetry.Bar('embed', self._side, self._total, file=sys.stderr)
    done = 0
    try:
      for part in parts:
        sparse = None if part.sparse is None else part.sparse.shape[1]
        self.widths = part.dense.shape[1], sparse
        yield part
        done += len(part.ids)
        bar.show(done, lambda rate: f'{rate:,.0f} {self._side}s/s')
    finally:
      bar.close()
