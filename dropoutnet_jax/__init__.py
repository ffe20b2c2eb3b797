# SPDX-License-Identifier: Apache-2.0
"""DropoutNet in JAX: one two-tower model for warm, half-known and new rows.

Shape letters used in every docstring:

  B  pairs in a batch                 U  users
  I  items                            N  rows of any table
  P  width of the preference factors  F  dense content features
  T  sparse content features (tags)   R  rank of the towers' embeddings
  K  ranking cut-off
"""

import typing

if typing.TYPE_CHECKING:
  from dropoutnet_jax.serving import facade

__version__ = '0.1.0'


def load(workdir: str) -> 'facade.Recommender':
  """A trained run as a recommender: the best checkpoint of a run folder.

  Args:
    workdir: the run folder, of a training that is finished or not.

  Raises:
    UserError: if the folder holds no run or no checkpoint, or a file of it is
      damaged.
  """
  # The package itself is imported for its version, too, and by every module.
  from dropoutnet_jax.serving import facade  # pylint: disable=C0415

  return facade.load(workdir)
