# SPDX-License-Identifier: Apache-2.0
"""Dense and sparse parts score like one dense dot product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.model import embeddings
from tests import compilation


def _random_csr(rng, rows, columns, density):
  matrix = scipy.sparse.random_array(
      (rows, columns), density=density, rng=rng, dtype=np.float32
  )
  return scipy.sparse.csr_array(matrix)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
    'shape',
    [(1, 1, 1), (5, 7, 11), (20, 3, 50), (0, 2, 3), (3, 0, 2), (3, 2, 0)],
)
def test_sparse_scores_equal_dense_product(seed, shape):
  users, items, columns = shape
  rng = np.random.default_rng(seed)
  left = _random_csr(rng, users, columns, 0.3)
  right = _random_csr(rng, items, columns, 0.3)
  got = embeddings.sparse_scores(
      embeddings.sparse_rows(left), embeddings.sparse_rows(right)
  )
  expected = left.toarray() @ right.toarray().T
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_score_adds_both_parts():
  rng = np.random.default_rng(0)
  dense = [jnp.float32(rng.normal(size=(n, 4))) for n in (3, 5)]
  sparse = [_random_csr(rng, n, 9, 0.4) for n in (3, 5)]
  user, item = (
      embeddings.Embedding(d, embeddings.sparse_rows(s))
      for d, s in zip(dense, sparse, strict=True)
  )
  expected = dense[0] @ dense[1].T + sparse[0].toarray() @ sparse[1].toarray().T
  np.testing.assert_allclose(
      embeddings.score(user, item), expected, rtol=1e-5, atol=1e-6
  )


def test_without_sparse_part_it_is_the_dense_product():
  user = embeddings.Embedding(jnp.array([[1.0, 2.0]]))
  item = embeddings.Embedding(jnp.array([[3.0, 4.0], [0.0, 1.0]]))
  np.testing.assert_array_equal(embeddings.score(user, item), [[11.0, 2.0]])


def test_dense_products_are_exact_on_every_device():
  """Accelerators would otherwise round factors to fewer bits."""
  emb = embeddings.Embedding(jnp.ones((2, 3)))
  text = str(jax.make_jaxpr(embeddings.score)(emb, emb))
  assert text.count('dot_general') == 1
  assert 'Precision.HIGHEST' in text


def test_half_an_embedding_is_refused():
  rows = embeddings.sparse_rows(scipy.sparse.csr_array((1, 3), dtype='float32'))
  with_sparse = embeddings.Embedding(jnp.ones((1, 2)), rows)
  with pytest.raises(ValueError, match='Only one of the two'):
    embeddings.score(with_sparse, embeddings.Embedding(jnp.ones((1, 2))))


def test_chunks_share_one_program():
  rng = np.random.default_rng(0)
  score = jax.jit(embeddings.sparse_scores)
  right = embeddings.sparse_rows(_random_csr(rng, 6, 30, 0.2))
  for rows in (8, 7):
    left = _random_csr(rng, rows, 30, 0.2)
    got = score(embeddings.sparse_rows(left, num_rows=8), right)
    assert got.shape == (8, 6)
    assert not np.any(got[rows:])
  assert score._cache_size() == 1


def test_empty_rows_score_zero():
  empty = embeddings.sparse_rows(
      scipy.sparse.csr_array((2, 5), dtype='float32')
  )
  np.testing.assert_array_equal(embeddings.sparse_scores(empty, empty), 0)


@pytest.mark.parametrize('block_bytes', [1, 2**7, 2**9])
@pytest.mark.parametrize('seed', range(2))
def test_many_blocks_and_chunks_give_the_dense_product(
    monkeypatch, seed, block_bytes
):
  """Block edges within, at and between rows; rows without nonzeros."""
  monkeypatch.setattr(embeddings, '_BLOCK_BYTES', block_bytes)
  rng = np.random.default_rng(seed)
  left = _random_csr(rng, 13, 10, 0.5)
  left.data[left.indptr[3] : left.indptr[6]] = 0
  left.eliminate_zeros()
  right = _random_csr(rng, 9, 10, 0.4)
  got = embeddings.sparse_scores(
      embeddings.sparse_rows(left, num_rows=14), embeddings.sparse_rows(right)
  )
  expected = left.toarray() @ right.toarray().T
  np.testing.assert_allclose(got[:13], expected, rtol=1e-5, atol=1e-6)
  assert got.shape == (14, 9) and not np.any(got[13:])


def test_nonzeros_need_not_fill_their_chunks():
  """Lists of other lengths than `sparse_rows` makes, with repeated columns."""
  user = embeddings.SparseRows(
      jnp.array([0, 0, 2]), jnp.array([1, 1, 0]), jnp.array([1.0, 2, 5]), 3, 2
  )
  item = embeddings.SparseRows(
      jnp.array([1] * 5), jnp.array([1, 0, 0, 0, 0]), jnp.ones(5), 2, 2
  )
  np.testing.assert_array_equal(
      embeddings.sparse_scores(user, item), [[0, 3], [0, 0], [0, 20]]
  )


def _random_nonzeros(rng, rows, columns, count):
  return embeddings.SparseRows(
      jnp.asarray(np.sort(rng.integers(rows, size=count)), jnp.int32),
      jnp.asarray(rng.integers(columns, size=count), jnp.int32),
      jnp.ones(count),
      rows,
      columns,
  )


@pytest.mark.parametrize(
    'items, columns, count',
    [
        (17_000, 41_000, 2**18),  # as in citeulike-a
        (20_000, 500_000, 2**22),  # all at once: 8.7 GB
    ],
)
def test_memory_of_a_whole_chunk_of_users_is_bounded(items, columns, count):
  rng = np.random.default_rng(0)
  users = _random_nonzeros(rng, 512, columns, 2**20)
  right = _random_nonzeros(rng, items, columns, count)
  memory = (
      jax.jit(embeddings.sparse_scores)
      .lower(users, right)
      .compile(compilation.USUAL_CODE)
      .memory_analysis()
  )
  assert memory.temp_size_in_bytes < 2**26


def test_normalized_rows_and_gradient_at_zero():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(
      embeddings.normalized(x), [[0.6, 0.8], [0, 0]], rtol=1e-6
  )
  grad = jax.grad(lambda x: jnp.sum(embeddings.normalized(x)))(x)
  assert np.all(np.isfinite(grad))
  np.testing.assert_array_equal(grad[1], 0)
