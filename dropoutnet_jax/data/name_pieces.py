# SPDX-License-Identifier: Apache-2.0
"""Tags as the words or the runs of characters that their names are made of.

People write one thing in many ways: 'fMRI', 'fmri-analysis', 'fmri_data' are
three tags, none of which says anything of the other two. Their words do, and
so do their runs of characters, which also join 'network' and 'networks' or
'datamining' and 'data-mining' (character n-grams as in fastText: Bojanowski et
al., TACL 2017). A row has each piece as heavily as the tags that hold it, in
sum.
"""

from collections.abc import Callable
import itertools

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import words

LENGTH = 4  # of a run of characters


def split(tags: schema.Tags, pieces: str, field: str) -> schema.Tags:
  """Tags whose names are cut into pieces.

  Args:
    tags: of N rows, with names.
    pieces: 'words' or 'characters', or 'whole', which changes nothing.
    field: where the feature is in the configuration, for errors.

  Returns:
    Tags of N rows; the columns are in alphabetical order.

  Raises:
    UserError: if the tags have no names.
  """
  if pieces == 'whole':
    return tags
  if tags.names is None:
    raise errors.UserError(
        f"{field}.pieces is {pieces!r}, but its column's tags have numbers and "
        "no names to take apart. Use pieces='whole'."
    )
  take_apart = _TAKE_APART[pieces]
  # Only the tags that occur: one new item must not cost a vocabulary.
  used = np.unique(tags.matrix.indices)
  parts = [take_apart(str(name)) for name in tags.names[used]]
  names, piece = np.unique(
      list(itertools.chain.from_iterable(parts)), return_inverse=True
  )
  if not len(names):
    names = np.zeros(0, object)
  counts = np.zeros(tags.matrix.shape[1], np.int64)
  counts[used] = [len(found) for found in parts]
  starts = np.concatenate([[0], np.cumsum(counts)])
  ones = np.ones(len(piece), np.float32)
  holds = scipy.sparse.csr_array(
      (ones, piece.astype(np.int64), starts),
      shape=(len(counts), len(names)),
  )
  matrix = scipy.sparse.csr_array(tags.matrix @ holds, dtype=np.float32)
  matrix.sort_indices()
  matrix.eliminate_zeros()
  return schema.Tags(matrix, names.astype(object))


def _characters(name: str) -> list[str]:
  """Runs of letters and digits, '^' and '$' marking the two ends."""
  joined = '^' + ''.join(words.split_words(name)) + '$'
  if len(joined) <= LENGTH:
    return [joined] if len(joined) > 2 else []
  starts = range(len(joined) - LENGTH + 1)
  return [joined[start : start + LENGTH] for start in starts]


_TAKE_APART: dict[str, Callable[[str], list[str]]] = {
    'words': words.split_words,
    'characters': _characters,
}
