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

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.serving import embed_request
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import row_sources
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_files
from dropoutnet_jax.training import telemetry


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
    told = told_files.Told(request.interactions, side, model)
  source = row_sources.of(getattr(request, f'{side}s'), side, model)
  part = source.part(*parallel.which_process())
  notes: list[str] = []
  progress = _Progress(source.total if part is None else len(part), side)

  def embedded() -> Iterator[embedding_files.Embedded]:
    yield from progress.watch(_embed(model, side, source.read(part), told))
    agree()
    notes.extend(source.notes())
    if told is not None:
      notes.extend(told.check())

  with _folder_of(path):
    num_rows = embedding_files.write(
        path,
        getattr(model.cfg.data.tables, f'{side}_id'),
        embedded(),
        {'side': side, 'step': model.step, 'run': model.cfg.name},
    )
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
    told: told_files.Told | None,
) -> Iterator[embedding_files.Embedded]:
  """Embeddings of some rows after those of others."""
  embed = model.embed_users if side == 'user' else model.embed_items
  for rows in parts:
    if told is not None:
      rows, _ = told.add(rows)
    yield embedding_files.on_host(rows.ids, embed(rows))


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
