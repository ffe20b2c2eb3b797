# SPDX-License-Identifier: Apache-2.0
"""Eigenvectors by subspace iteration against LAPACK's."""

import numpy as np
import pytest

from dropoutnet_jax.evaluation import subspace


@pytest.mark.parametrize('rank', [1, 20, 200])
def test_leading_eigenvectors(rank):
  rng = np.random.default_rng(3)
  rows = rng.standard_normal((120, 90)) * np.geomspace(10, 0.1, 90)
  matrix = (rows @ rows.T).astype(np.float32)
  values, vectors = subspace.leading_eigenvectors(matrix, rank, 0)
  exact = np.linalg.eigvalsh(matrix.astype(np.float64))[-rank:]
  assert values.shape == (min(rank, 120),)
  assert vectors.shape == (120, min(rank, 120))
  scale = exact.max()
  np.testing.assert_allclose(values, exact, rtol=1e-3, atol=1e-4 * scale)
  gap = matrix @ vectors - vectors * values
  assert np.abs(gap).max() < 2e-2 * scale
  inner = vectors.T @ vectors
  np.testing.assert_allclose(inner, np.eye(len(inner)), atol=1e-3)
