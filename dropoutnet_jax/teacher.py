# SPDX-License-Identifier: Apache-2.0
"""Implicit-feedback ALS: preference factors from likes alone.

Knows likes as a sparse matrix, five numbers of the configuration and the mesh
that shares the rows; no content, file or split. The objective is that of Hu,
Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM
2008:

  sum over all u, i of c_ui (p_ui - x_u . y_i)^2 + lambda (|X|^2 + |Y|^2),

p = 1 and c = 1 + confidence * weight for a like, p = 0 and c = 1 for every
other pair. Users and items are solved for in turns (`normal_equations`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax import normal_equations
from dropoutnet_jax import parallel
from dropoutnet_jax import split_als
from dropoutnet_jax.data import schema

_ROWS = 1 << 16  # drawn at a time


def fold_in(
    factors: np.ndarray | jax.Array,
    likes: scipy.sparse.csr_array,
    config: config_lib.TeacherConfig,
) -> np.ndarray:
  """Factors of new users or items from their likes, by one exact solve.

  Args:
    factors: float32 [N, P] of the other side: items for new users.
    likes: float32 [B, N], weights of the likes of B new rows.
    config: as in training; gives the confidence and the regularisation.

  Returns:
    float32 [B, P]: what a half-step gives rows with these likes; zero without.

  Raises:
    UserError: a weight is negative or not finite.
    ValueError: likes has another number of columns than factors has rows.
  """
  if likes.shape[1] != len(factors):
    raise ValueError(
        f'likes has {likes.shape[1]} columns, but there are {len(factors)} '
        'rows of factors: give the factors of the other side.'
    )
  plan = normal_equations.make_plan(likes, config.confidence, factors.shape[1])
  fixed = normal_equations.whiten(jnp.asarray(factors), config.regularization)
  return np.asarray(normal_equations.solve(fixed, plan))


def first_factors(
    present: np.ndarray, config: config_lib.TeacherConfig, seed: int
) -> np.ndarray:
  """Small random factors [N, P] to start from; zero where not present [N]."""
  generator = np.random.default_rng(seed)
  factors = np.empty((len(present), config.rank), np.float32)
  for start in range(0, len(present), _ROWS):
    part = present[start : start + _ROWS, None]
    normal = generator.normal(0, 0.01, (len(part), config.rank))
    factors[start : start + _ROWS] = normal * part
  return factors


def _check_finite(
    factors: jax.Array, iteration: int, config: config_lib.TeacherConfig
) -> None:
  if not jnp.isfinite(jnp.sum(factors)):
    raise errors.UserError(
        f"The teacher's factors are not finite after iteration {iteration}: "
        f'config.teacher.regularization is {config.regularization}, too small '
        f'for rank {config.rank} and confidence {config.confidence} in '
        'float32. Raise it, or lower the confidence.'
    )


def train(
    interactions: schema.Interactions,
    num_users: int,
    num_items: int,
    config: config_lib.TeacherConfig,
    seed: int,
    mesh: parallel.Mesh | None = None,
) -> schema.Factors:
  """Factors of all users and items that occur in the interactions.

  Args:
    interactions: training likes only; what is held out must not be among them.
    num_users: rows of the user table.
    num_items: rows of the item table.
    config: rank, regularisation, confidence and number of iterations.
    seed: of the first item factors. The same seed gives the same factors.
    mesh: devices that share the rows, of several processes too, which must then
      all call this; None is all of this process.

  Returns:
    float32 factors; rows without interactions are zero and not present.

  Raises:
    UserError: a field of the config or a weight is out of range, there are no
      interactions, or the factors stop being finite.
  """
  config.validate()
  if not len(interactions):
    raise errors.UserError(
        'The teacher has no training interactions to learn from. Hold out less '
        "(config.data), or read factors (config.teacher.source='file')."
    )
  likes = interactions.matrix(num_users, num_items)
  liked_by = likes.T.tocsr()
  user_present = np.diff(likes.indptr) > 0
  item_present = np.diff(liked_by.indptr) > 0
  first = first_factors(item_present, config, seed)
  mesh = mesh or parallel.local_mesh()
  by_user: split_als.Side | _Side
  by_item: split_als.Side | _Side
  if mesh.size > 1:
    by_user, by_item = split_als.lay_out(likes, liked_by, config, mesh)
  else:
    by_user, by_item = (
        _Side(
            normal_equations.make_plan(side, config.confidence, config.rank),
            max(likes.shape),
            config,
        )
        for side in (likes, liked_by)
    )
  item = by_item.place(first)
  for iteration in range(1, config.num_iterations + 1):
    user = by_user.solve(item)
    item = by_item.solve(user)
    _check_finite(item, iteration, config)
  return schema.Factors(
      by_user.to_host(user), by_item.to_host(item), user_present, item_present
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
  """One side's likes on a single device; as `split_als.Side`.

  Attributes:
    plan: of its half-steps.
    num_rows: of a table; the same for both sides, which then share programs.
    settings: of the teacher.
  """

  plan: normal_equations.Plan
  num_rows: int
  settings: config_lib.TeacherConfig

  def place(self, factors: np.ndarray) -> jax.Array:
    return jnp.asarray(factors)

  def to_host(self, table: jax.Array) -> np.ndarray:
    return np.asarray(table)

  def solve(self, other: jax.Array) -> jax.Array:
    fixed = normal_equations.whiten(
        other, self.settings.regularization, num_rows=self.num_rows
    )
    return normal_equations.solve(
        fixed, self.plan, cg_steps=self.settings.cg_steps
    )
