# SPDX-License-Identifier: Apache-2.0
"""How much of the exact lists an approximate index finds."""

import dataclasses

import numpy as np

from dropoutnet_jax.serving.index import protocol


@dataclasses.dataclass(frozen=True)
class Recall:
  """A measured share.

  Attributes:
    value: of the k best items that were found, mean over queries.
    k: items of a query.
    queries: their number.
    of: 'users' that were given, or 'items', which stand for users where none
      were.
  """

  value: float
  k: int
  queries: int
  of: str


def share_found(found: protocol.Found, exact: protocol.Found) -> float:
  """Mean share of the exact lists that was found; 1 for empty ones.

  An item that is no list's but scores as its last one does counts: which of
  equals is in the list is no merit.
  """
  shares = []
  for mine, best in zip(found.scores, exact.scores, strict=True):
    best = best[np.isfinite(best)]
    if len(best):
      hits = np.count_nonzero(mine[: len(best)] >= best[-1])
      shares.append(hits / len(best))
  return float(np.mean(shares)) if shares else 1.0
