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

from dropoutnet_jax import errors
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import row_sources
from dropoutnet_jax.serving import told_files
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import telemetry

SIDES = ('user', 'item')
_OTHER = {'user': 'item', 'item': 'user'}
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
    told = told_files.Told(request.interactions, side, model)
  source = row_sources.of(getattr(request, f'{side}s'), side, model)
  notes: list[str] = []
  progress = _Progress(source.total, side)
  with _folder_of(path):
    num_rows = embedding_files.write(
        path,
        getattr(model.cfg.data.tables, f'{side}_id'),
        progress.watch(_embed(model, side, source, told, notes)),
        {'side': side, 'step': model.step, 'run': model.cfg.name},
    )
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
    source: row_sources.Run,
    told: told_files.Told | None,
    notes: list[str],
) -> Iterator[embedding_files.Embedded]:
  """Embeddings of some rows after those of others; notes when all are made."""
  embed = model.embed_users if side == 'user' else model.embed_items
  for rows in source.read():
    if told is not None:
      rows, _ = told.add(rows)
    yield embedding_files.on_host(rows.ids, embed(rows))
  notes += source.notes()
  if told is not None:
    notes += told.check()


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
