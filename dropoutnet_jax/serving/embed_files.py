# SPDX-License-Identifier: Apache-2.0
"""From a file of users or items to one of embeddings: `run.py embed`.

Rows are read, embedded and written block by block: memory grows neither with
the input nor with the output, but for the interactions, of which each pair
takes some bytes.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import os
import sys

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_blocks
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import telemetry

SIDES = ('user', 'item')
_OTHER = {'user': 'item', 'item': 'user'}
_BLOCK = 16384  # rows at a time
_ENDING = '.parquet'


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for; the fields are the flags of that name.

  Attributes:
    output: a .parquet file, or a folder that gets one.
    side: 'user' or 'item'; None takes that of the file.
    users: file of users; None asks for all of the run.
    items: file of items, likewise.
    interactions: file of who met what, beside training; None for none.
  """

  output: str | None
  side: str | None = None
  users: str | None = None
  items: str | None = None
  interactions: str | None = None

  def check(self, workdir: str | None) -> tuple[str, str, str]:
    """The run folder, the file of the embeddings, and the side.

    Raises:
      UserError: for what can be told before anything is read.
    """
    names = ('output', 'side', 'users', 'items', 'interactions')
    empty = [name for name in names if getattr(self, name) == '']
    if empty:
      raise errors.UserError(f'--{empty[0]} is empty; give it a value.')
    if workdir is None or self.output is None:
      raise errors.UserError(
          'embed needs a run and a place for its embeddings; write python '
          'run.py embed --workdir=RUN --output=FILE.parquet --side=item.'
      )
    side = self._check_side()
    path = self._path(self.output, side)
    inputs = [self.users, self.items, self.interactions]
    folder = os.path.dirname(path)
    # One that is not there is made for the file, in another that is.
    is_made = path != self.output and not os.path.isdir(folder)
    place = folder if is_made else path
    list_files.check_place(place, [x for x in inputs if x])
    run_folder.check_not_owned(workdir, 'output', path)
    return workdir, path, side

  def _check_side(self) -> str:
    """Whose embeddings are asked for."""
    given = [side for side in SIDES if getattr(self, f'{side}s')]
    if self.side is None and len(given) != 1:
      found = 'both files' if given else 'neither --users nor --items'
      raise errors.UserError(
          f'embed got {found}; say with --side=user or --side=item whose '
          'embeddings are asked for.'
      )
    side = given[0] if self.side is None else self.side
    if side not in SIDES:
      raise errors.UserError(
          f'--side={side}: it must be one of {", ".join(SIDES)}.'
          + errors.did_you_mean(side, SIDES)
      )
    if getattr(self, f'{_OTHER[side]}s'):
      raise errors.UserError(
          f'--{_OTHER[side]}s names {_OTHER[side]}s, but --side={side} asks '
          f'for {side}s; leave out one of the two.'
      )
    return side

  def _path(self, output: str, side: str) -> str:
    """The file: the output itself, or one in the folder that it is."""
    ending = os.path.splitext(output)[1].lower()
    if ending == _ENDING and not os.path.isdir(output):
      return output
    is_folder = output.endswith(os.sep) or os.path.isdir(output) or not ending
    if not is_folder:
      raise errors.UserError(
          f'--output={output}: embeddings are written as Parquet; let the name '
          f'end in {_ENDING}, or name a folder.'
      )
    return os.path.join(output.rstrip(os.sep) or os.sep, f'{side}s{_ENDING}')


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


def answer(workdir: str | None, request: Request) -> Answer:
  """Embeds with the best checkpoint of a run folder, and writes the file.

  Args:
    workdir: the run folder, of a training that is finished or not.
    request: what is asked for.

  Raises:
    UserError: for whatever is wrong with the request, its files or the folder;
      no file is written or changed then.
  """
  folder, path, side = request.check(workdir)
  model = recommender_lib.load(folder)
  told = None
  if request.interactions:
    told = _Told(request.interactions, side, model)
  file = getattr(request, f'{side}s')
  source = _File(file, side, model) if file else _Run(side, model)
  progress = _Progress(source.total, side)
  with _folder_of(path):
    num_rows = embedding_files.write(
        path,
        getattr(model.cfg.data.tables, f'{side}_id'),
        progress.watch(_embed(model, side, source.read(), told)),
        {'side': side, 'step': model.step, 'run': model.cfg.name},
    )
  notes = source.notes() + ([] if told is None else told.notes)
  return Answer(path, side, model.step, num_rows, *progress.widths, notes)


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
      os.mkdir(folder)
  except OSError as error:
    raise errors.UserError(
        f'--output={folder} cannot be made: {error.strerror}. Name another '
        'folder.'
    ) from error
  try:
    yield
  finally:
    if is_made and not os.listdir(folder):
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
  if told is not None:
    told.check()


class _Run:
  """All users or items of the run, as a source of rows."""

  def __init__(self, side: str, model: recommender_lib.Ranker):
    self._rows = model.users() if side == 'user' else model.items()
    self.total: int | None = len(self._rows)

  def read(self) -> Iterator[rows_lib.Rows]:
    for begin in range(0, len(self._rows), _BLOCK):
      yield self._rows.select(slice(begin, begin + _BLOCK))

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

  def read(self) -> Iterator[rows_lib.Rows]:
    settings = request_tables.settings(self._model, self._side)
    for table in request_blocks.read(self._source, settings, _BLOCK):
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
    notes = [
        f'{name}: {self._count:,} {self._side}(s), {self._new:,} of them new '
        'to the run.'
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
    if not self._is_found:
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
