# SPDX-License-Identifier: Apache-2.0
"""DropoutNet in JAX: one two-tower model for warm, half-known and new rows.

Shape letters used in every docstring:

  B  pairs in a batch                 U  users
  I  items                            N  rows of any table
  P  width of the preference factors  F  dense content features
  T  sparse content features (tags)   R  rank of the towers' embeddings
  K  ranking cut-off
"""

__version__ = '0.1.0'
