# SPDX-License-Identifier: Apache-2.0
"""Texts as counts of their words.

A word is a run of letters and digits, in lower case, with apostrophes inside
("don't"); underscores separate. Accents count: composed and decomposed forms
are made the same first. Nothing here knows weights, vocabularies or languages.
"""

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
  if not any(texts):  # which the library takes for a mistake
    empty = scipy.sparse.csr_array((len(texts), 0), dtype=np.float32)
    return schema.Tags(empty, np.zeros(0, object))
  # Costs a start some seconds, and most runs read no texts.
  from sklearn.feature_extraction import text as sklearn_text

  # The texts are lists of words already.
  counter = sklearn_text.CountVectorizer(analyzer=list, dtype=np.float32)
  matrix = scipy.sparse.csr_array(counter.fit_transform(texts))
  return schema.Tags(matrix, counter.get_feature_names_out())
