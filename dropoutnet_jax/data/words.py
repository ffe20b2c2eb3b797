# SPDX-License-Identifier: Apache-2.0
"""Texts as counts of their words.

A word is a run of letters and digits, in lower case, with apostrophes inside
("don't"); underscores separate. Accents count: composed and decomposed forms
are made the same first. Nothing here knows weights, vocabularies or languages.
"""

import collections
from collections.abc import Sequence
import re
import unicodedata

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import schema

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def split_words(text: str) -> list[str]:
  """The words of a text in their order, repeated ones repeatedly."""
  composed = unicodedata.normalize("NFC", text.replace("\u2019", "'"))
  return _WORD.findall(composed.lower())


def count_words(texts: Sequence[Sequence[str]]) -> schema.Tags:
  """Counts the words of N texts; the columns are in alphabetical order."""
  counts = [collections.Counter(words) for words in texts]
  names = sorted(set().union(*counts))
  number = {name: column for column, name in enumerate(names)}
  column = [number[word] for count in counts for word in count]
  value = [times for count in counts for times in count.values()]
  row = np.repeat(np.arange(len(texts)), [len(count) for count in counts])
  matrix = scipy.sparse.csr_array(
      (np.array(value, np.float32), (row, np.array(column, np.int32))),
      shape=(len(texts), len(names)),
  )
  # Objects: a str array would give all words the length of the longest.
  return schema.Tags(matrix, np.array(names, object))
