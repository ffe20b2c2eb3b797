# SPDX-License-Identifier: Apache-2.0
"""Likes of a few users, and one half-step of ALS: slow, and as it is."""

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import normal_equations

# Most tests share these sizes, and so what is compiled for them.
USERS, ITEMS, RANK = 24, 40, 6


def likes_of(lengths, num_columns, seed, weighted=True):
  """csr_array with so many likes per row; some of the weights are 0."""
  rng = np.random.default_rng(seed)
  columns = [rng.choice(num_columns, n, replace=False) for n in lengths]
  total = sum(lengths)
  weight = rng.choice([0.0, 0.1, 1.0, 7.5], total) if weighted else 1.0
  data = np.full(total, weight, np.float32)
  indptr = np.r_[0, np.cumsum(lengths)]
  flat = np.concatenate([*columns, []]).astype(np.int32)
  return scipy.sparse.csr_array(
      (data, flat, indptr), shape=(len(lengths), num_columns)
  )


def some_likes(seed=0, weighted=True):
  """USERS x ITEMS; users 1 and 4 like nothing, the others up to 8 items."""
  lengths = np.random.default_rng(seed).integers(2, 9, USERS)
  lengths[[1, 4]] = 0
  return likes_of(lengths.tolist(), ITEMS, seed, weighted)


def slow_solve(factors, likes, confidence, regularization):
  """Every row alone, over all columns, in float64: the formula of the paper."""
  factors = np.asarray(factors, np.float64)
  solved = np.zeros((likes.shape[0], factors.shape[1]))
  for row in range(likes.shape[0]):
    start, stop = likes.indptr[row], likes.indptr[row + 1]
    if start == stop:
      continue
    preference, count = np.zeros(likes.shape[1]), np.ones(likes.shape[1])
    preference[likes.indices[start:stop]] = 1
    count[likes.indices[start:stop]] += confidence * likes.data[start:stop]
    left = factors.T @ np.diag(count) @ factors
    left += regularization * np.eye(factors.shape[1])
    solved[row] = np.linalg.inv(left) @ factors.T @ (count * preference)
  return solved


def fast_solve(factors, likes, confidence, regularization, num_rows=0):
  plan = normal_equations.make_plan(likes, confidence, factors.shape[1])
  fixed = normal_equations.whiten(
      jnp.asarray(factors), regularization, num_rows
  )
  return np.asarray(normal_equations.solve(fixed, plan))


def draw_factors(num_rows, rank, seed, scale=0.3):
  normal = np.random.default_rng(seed).normal(0, scale, (num_rows, rank))
  return normal.astype(np.float32)
