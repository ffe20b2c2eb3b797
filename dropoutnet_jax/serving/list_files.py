# SPDX-License-Identifier: Apache-2.0
"""Lists as a file: a row for each user and rank, in any of the usual formats.

The rows are user_id, rank (from 1), item_id and score; of slates that a policy
has filled propensity and policy too. They are written as they come, beside the
target, which is replaced when all are there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import csv
import io
import json
import os
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from pyarrow import parquet

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.serving import explorer
from dropoutnet_jax.serving import recommender as recommender_lib

# Takes rows: users, ranks, items as places in the ids, scores, and what is
# beyond NAMES; all [N].
_Add = Callable[..., None]
NAMES = ('user_id', 'rank', 'item_id', 'score')
POLICY_NAMES = ('propensity', 'policy')  # of slates
_Lists = recommender_lib.Lists | explorer.Slates


def check(path: str, inputs: Sequence[str] = ()) -> None:
  """Raises UserError where lists cannot be written to a path.

  Args:
    path: of the file; one that is there is replaced in the end.
    inputs: files that are read while it is written.
  """
  _writer(path)
  check_place(path, inputs)


def check_place(path: str, inputs: Sequence[str]) -> None:
  """The same, whatever the format."""
  folder = os.path.dirname(path) or '.'
  if not os.path.isdir(folder):
    raise errors.UserError(
        f'--output={path}: there is no folder {folder}. Make it, or correct '
        'the path.'
    )
  if os.path.isdir(path):
    raise errors.UserError(f'--output={path} is a folder; name a file in it.')
  for other in inputs:
    if os.path.realpath(path) == os.path.realpath(other):
      raise errors.UserError(
          f'--output={path} is a file that is read; name another one.'
      )


def write(
    path: str,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    lists: Iterable[_Lists],
    policy: str | None = None,
) -> int:
  """Writes lists while they are made.

  Args:
    path: ends in .csv, .tsv, .json or .jsonl (an object per line), .parquet or
      .arrow.
    user_ids: int64 or str [N].
    item_ids: int64 or str [J], of the candidates.
    lists: of all users, in their order.
    policy: that has filled them, which are slates then; None for lists.

  Returns:
    How many rows that are.

  Raises:
    UserError: if the file can't be written; one that is there stays then.
  """
  open_writer, count = _writer(path), 0
  more = POLICY_NAMES if policy is not None else ()

  def fill(file: BinaryIO) -> None:
    nonlocal count
    with open_writer(file, user_ids, item_ids, more) as add:
      for part in lists:
        row, column = np.nonzero(part.item >= 0)
        places = np.arange(len(user_ids))[part.users][row]
        of_policy: list[np.ndarray] = []
        if isinstance(part, explorer.Slates):
          propensity = part.propensity[row, column]
          of_policy = [propensity, np.full(len(row), policy)]
        add(
            places,
            column + 1,
            part.item[row, column],
            part.score[row, column],
            *of_policy,
        )
        count += len(row)

  files.write(path, fill, '--output')
  return count


def _writer(
    path: str,
) -> Callable[..., Any]:
  """What opens a file of the format that a name ends in."""
  ending = os.path.splitext(path)[1].lower()
  if ending not in _WRITERS:
    raise errors.UserError(
        f'--output={path}: its name does not say the format; let it end in one '
        f'of {", ".join(_WRITERS)}.' + errors.did_you_mean(ending, _WRITERS)
    )
  return _WRITERS[ending]


@contextlib.contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
  lines = io.TextIOWrapper(file, encoding='utf-8', newline='')
  try:
    yield lines
    lines.flush()
  finally:
    lines.detach()  # who opened the file closes it


@contextlib.contextmanager
def _delimited(
    separator: str,
    file: BinaryIO,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    more: Sequence[str],
) -> Iterator[_Add]:
  with _text(file) as lines:
    writer = csv.writer(lines, delimiter=separator, lineterminator='\n')
    writer.writerow([*NAMES, *more])

    def add(
        user: np.ndarray,
        rank: np.ndarray,
        item: np.ndarray,
        *others: np.ndarray,
    ) -> None:
      texts = (column.astype(str) for column in others)
      columns = (user_ids[user], rank, item_ids[item], *texts)
      writer.writerows(zip(*(column.tolist() for column in columns)))

    yield add


@contextlib.contextmanager
def _json_lines(
    file: BinaryIO,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    more: Sequence[str],
) -> Iterator[_Add]:
  names = [json.dumps(one, ensure_ascii=False) for one in item_ids.tolist()]
  keys = [f', "{name}": ' for name in (NAMES[-1], *more)]

  def value(column: np.ndarray) -> list[str]:
    if column.dtype.kind == 'f':
      return column.astype(str).tolist()
    return [json.dumps(one) for one in column.tolist()]

  with _text(file) as lines:

    def add(
        user: np.ndarray,
        rank: np.ndarray,
        item: np.ndarray,
        *others: np.ndarray,
    ) -> None:
      columns = (user_ids[user], rank, item)
      rows = zip(*(column.tolist() for column in columns))
      for (one, number, place), *values in zip(rows, *map(value, others)):
        last = ''.join(key + text for key, text in zip(keys, values))
        lines.write(
            f'{{"user_id": {json.dumps(one, ensure_ascii=False)}, '
            f'"rank": {number}, "item_id": {names[place]}{last}}}\n'
        )

    yield add


@contextlib.contextmanager
def _arrow(
    open_file: Callable[[BinaryIO, pa.Schema], Any],
    file: BinaryIO,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    more: Sequence[str],
) -> Iterator[_Add]:
  """Parquet and Arrow, whose writers take tables."""
  users, items = pa.array(user_ids), pa.array(item_ids)
  kinds = (users.type, pa.int32(), items.type, pa.float32())
  kinds += (pa.float32(), pa.string())[: len(more)]
  schema = pa.schema(list(zip((*NAMES, *more), kinds)))
  with open_file(file, schema) as writer:

    def add(
        user: np.ndarray,
        rank: np.ndarray,
        item: np.ndarray,
        *others: np.ndarray,
    ) -> None:
      columns = [
          users.take(pa.array(user)),
          pa.array(rank, pa.int32()),
          items.take(pa.array(item)),
          *map(pa.array, others),
      ]
      writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    yield add


_WRITERS: dict[str, Callable[..., Any]] = {
    '.csv': lambda *arguments: _delimited(',', *arguments),
    '.tsv': lambda *arguments: _delimited('\t', *arguments),
    '.json': _json_lines,
    '.jsonl': _json_lines,
    '.parquet': lambda *arguments: _arrow(parquet.ParquetWriter, *arguments),
    '.arrow': lambda *arguments: _arrow(ipc.new_file, *arguments),
}
