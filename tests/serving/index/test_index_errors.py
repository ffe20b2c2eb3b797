# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a call is said before anything changes."""

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.index import options as options_lib
from tests.serving.index import slow_index


def _rows(number, width=2, **options):
  return slow_index.embedding(np.ones((number, width)), **options)


def _build(ids=('a', 'b'), number=2):
  return factory.build('exact', ids, _rows(number))


@pytest.mark.parametrize(
    'call, message',
    [
        (
            lambda: factory.build('tree', [], _rows(0)),
            "no index of kind 'tree'",
        ),
        (lambda: factory.build('exat', [], _rows(0)), "Did you mean 'exact'"),
        (lambda: _build(['a', 'a']), "repeated: 'a'"),
        (lambda: _build(['a', 1]), 'all strings or all whole numbers'),
        (lambda: _build([1.5, 2]), 'all strings or all whole numbers'),
        (lambda: _build([True, 2]), 'all strings or all whole numbers'),
        (lambda: _build([2**63, 2]), 'of 64 bits'),
        (lambda: _build('ab'), 'a single string'),
        (lambda: _build(['a']), '1 ids and embeddings of 2 items'),
        (lambda: _build().upsert([1], _rows(1)), 'of the index are strings'),
        (lambda: _build().upsert(['c'], _rows(1, 3)), '3 dense and no sparse'),
        (
            lambda: _build().upsert(['c'], _rows(1, sparse=[[1.0]])),
            '2 dense and 1 sparse columns, and the index has 2 dense and no',
        ),
        (
            lambda: _build().upsert(['c'], slow_index.embedding([[np.nan, 0]])),
            'not finite',
        ),
        (
            lambda: _build().search(slow_index.embedding([[0, -2e15]]), 1),
            'of the users hold values that are not finite, or beyond 1e.15',
        ),
        (
            lambda: _build().upsert(['c'], slow_index.embedding([1.0])),
            r'\[N, R',
        ),
        (
            lambda: factory.build(
                'exact', ['a', 'b'], _rows(2, sparse=[[1.0]])
            ),
            '2 dense rows and 1 sparse',
        ),
        (lambda: _build().search(_rows(1), 0), 'k=0: '),
        (lambda: _build().search(_rows(1), 2.0), r'k=2\.0: '),
        (lambda: _build().search(_rows(1, 5), 1), 'The users have 5 dense'),
        (
            lambda: _build().search(_rows(2), 1, exclude=[['a']]),
            '1 lists for 2 users',
        ),
        (lambda: _build().search(_rows(1), 1, exclude=['a']), 'single string'),
        (lambda: _build().search(_rows(1), 1, allow='a'), 'single string'),
        (lambda: _build().delete('a'), 'single string'),
        (lambda: options_lib.Options(terms=0), 'terms of an index is 0'),
        (lambda: options_lib.Options(probes=-1), 'from 0 to'),
        (lambda: options_lib.Options(links=2.5), 'must be a whole number'),
    ],
)
def test_messages(call, message):
  with pytest.raises(errors.UserError, match=message):
    call()


def test_a_change_that_is_refused_changes_nothing():
  index = _build()
  with pytest.raises(errors.UserError):
    index.upsert(['c', 'c'], _rows(2))
  assert index.ids.tolist() == ['a', 'b']


def test_approximate_search_needs_a_dense_part():
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  items = slow_index.embedding(np.zeros((2, 0)), sparse=[[1.0], [2.0]])
  with pytest.raises(errors.UserError, match="Use kind 'exact'"):
    factory.build('flat', ['a', 'b'], items)
  index = factory.build('exact', ['a', 'b'], items)
  assert index.search(items, 1).ids.tolist() == [['b'], ['b']]
