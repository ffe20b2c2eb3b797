# SPDX-License-Identifier: Apache-2.0
"""Products of sparse matrices with dense ones, shared by threads."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.data import sparse_products


@pytest.mark.parametrize('threads', [1, 2, 3, 16])
@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_the_same_bits_whoever_shares_the_rows(monkeypatch, threads, kind):
  rng = np.random.default_rng(0)
  matrix = scipy.sparse.random_array((40, 30), density=0.1, rng=rng)
  matrix = scipy.sparse.csr_array(matrix, dtype=np.float32)
  matrix = scipy.sparse.csr_array(
      scipy.sparse.vstack([matrix, matrix[:0], 0 * matrix[:9], matrix])
  )
  dense = rng.normal(size=(30, 7)).astype(kind)
  monkeypatch.setattr(sparse_products, '_LEAST', 0)
  monkeypatch.setattr(sparse_products, 'cores', lambda: threads)
  found = sparse_products.times(matrix, dense)
  assert found.dtype == kind
  np.testing.assert_array_equal(found, matrix @ dense)
  np.testing.assert_allclose(found, matrix.toarray() @ dense, rtol=1e-5)


def test_few_or_no_rows(monkeypatch):
  monkeypatch.setattr(sparse_products, '_LEAST', 0)
  monkeypatch.setattr(sparse_products, 'cores', lambda: 4)
  dense = np.ones((3, 2), np.float32)
  for rows in (0, 1, 2):
    matrix = scipy.sparse.csr_array(np.eye(3, dtype=np.float32)[:rows])
    found = sparse_products.times(matrix, dense)
    np.testing.assert_array_equal(found, np.ones((rows, 2)))


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch):
  monkeypatch.setattr(sparse_products, '_LEAST', 0)
  monkeypatch.setattr(sparse_products, 'cores', lambda: 2)
  matrix = scipy.sparse.csr_array(np.eye(4, dtype=np.float32))
  with pytest.raises(ValueError, match='mismatch'):
    sparse_products.times(matrix, np.ones((3, 2), np.float32))
