# SPDX-License-Identifier: Apache-2.0
"""Words of texts, and their counts against plain Python."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import words


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', []),
        (' .,;-- ', []),
        ('Toy Story, a STORY', ['toy', 'story', 'a', 'story']),
        ("Schindler's list", ["schindler's", 'list']),
        ('Schindler\u2019s', ["schindler's"]),
        ("'quoted'", ['quoted']),
        ('snake_case 12-inch', ['snake', 'case', '12', 'inch']),
        ('Mise\u0301rables', ['mis\u00e9rables']),
        ('\u6df1\u5c64\u5b66\u7fd2 jax', ['\u6df1\u5c64\u5b66\u7fd2', 'jax']),
    ],
)
def test_words_by_hand(text, expected):
  assert words.split_words(text) == expected


@hypothesis.given(
    st.lists(st.lists(st.sampled_from(['a', 'b', '\u00e9', 'zz'])), max_size=6)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_counts_match_lists(texts):
  tags = words.count_words(texts)
  names = sorted({word for text in texts for word in text})
  assert tags.names.tolist() == names
  expected = [[text.count(name) for name in names] for text in texts]
  shape = (len(texts), len(names))
  np.testing.assert_array_equal(
      tags.matrix.toarray(), np.reshape(expected, shape)
  )
  assert tags.matrix.shape == shape and tags.matrix.dtype == np.float32
