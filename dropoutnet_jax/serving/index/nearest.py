# SPDX-License-Identifier: Apache-2.0
"""Approximate candidates of the first J rows: FAISS, and inverted lists.

FAISS searches the dense part alone, which is not the whole score; with the
candidates of the sparse part beside its own, whoever asks scores both again.
Nothing here changes after it is made: what comes in later makes a new one of
it, so that searches go on meanwhile.
"""

import dataclasses
import types
from typing import Any

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.index import postings
from dropoutnet_jax.serving.index import vectors

_LIST = 39  # items of a list, at least: fewer say little of its centre (FAISS)
_PROBES = 8  # lists that a query reads, at least
_TRAINING = 64  # rows per list that centroids are fitted on, at most
# Users times columns from which on FAISS multiplies matrices. Its own 128,000
# has a thousand users of 128 columns scored one after the other, in ten times
# the time.
_PRODUCTS_FROM = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
  """Candidates among J rows.

  Attributes:
    kind: 'flat', 'ivf' or 'hnsw'.
    options: of the index.
    dense: the FAISS index of the dense part.
    sparse: inverted lists, or None.
  """

  kind: str
  options: options_lib.Options
  dense: Any
  sparse: postings.Postings | None

  def __len__(self) -> int:
    return int(self.dense.ntotal)

  def candidates(
      self,
      users: vectors.Vectors,
      k: int,
      allowed: np.ndarray | None,
      num_banned: int,
  ) -> np.ndarray:
    """Rows int64 [N, C] that may be among the best k; -1 fills up.

    Args:
      users: N.
      k: items that will be chosen.
      allowed: bool [J], rows that may be found; None: all.
      num_banned: of the candidates of a user that may be taken off again.
    """
    number = min(k * self.options.candidates + num_banned, len(self))
    found = self._dense(users.dense, number, allowed)
    if self.sparse is None or users.sparse is None:
      return found
    terms = self.options.terms
    more = self.sparse.candidates(users.sparse, terms, number, allowed)
    return np.hstack([found, more])

  def _dense(
      self, users: np.ndarray, number: int, allowed: np.ndarray | None
  ) -> np.ndarray:
    faiss = load_faiss()
    faiss.cvar.distance_compute_blas_threshold = _PRODUCTS_FROM
    settings: dict[str, Any] = {}
    if allowed is not None:
      bits = np.packbits(allowed, bitorder='little')
      settings['sel'] = faiss.IDSelectorBitmap(bits)
    if self.kind == 'ivf':
      kind = faiss.SearchParametersIVF
      settings['nprobe'] = self._probes()
    elif self.kind == 'hnsw':
      kind = faiss.SearchParametersHNSW
      settings['efSearch'] = max(self.options.search_breadth, number)
    else:
      kind = faiss.SearchParameters
    _, rows = self.dense.search(users, number, params=kind(**settings))
    return rows

  def _probes(self) -> int:
    lists = self.dense.nlist
    return min(self.options.probes or max(lists // 16, _PROBES), lists)

  def extended(self, items: vectors.Vectors) -> 'Nearest':
    """One of all rows of items, whose first J are those it has."""
    faiss = load_faiss()
    dense = faiss.clone_index(self.dense)
    dense.add(items.dense[len(self) :])
    sparse = None if items.sparse is None else postings.make(items.sparse)
    return dataclasses.replace(self, dense=dense, sparse=sparse)


def make(
    kind: str, options: options_lib.Options, items: vectors.Vectors
) -> Nearest:
  """Of all rows of items, at least one.

  Raises:
    UserError: if FAISS is not installed, or there is no dense part.
  """
  faiss = load_faiss()
  width = items.dense.shape[1]
  if not width:
    raise errors.UserError(
        f'An index of kind {kind!r} searches the dense part, and these items '
        "have none. Use kind 'exact'."
    )
  metric = faiss.METRIC_INNER_PRODUCT
  if kind == 'flat':
    dense = faiss.IndexFlatIP(width)
  elif kind == 'hnsw':
    dense = faiss.IndexHNSWFlat(width, options.links, metric)
    dense.hnsw.efConstruction = options.build_breadth
  else:
    few = min(round(4 * len(items) ** 0.5), len(items) // _LIST)
    lists = options.lists or few
    lists = max(min(lists, len(items)), 1)
    dense = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, metric)
    dense.cp.min_points_per_centroid = 1  # without a word on standard error
    dense.cp.max_points_per_centroid = _TRAINING
    dense.train(items.dense)
  dense.add(items.dense)
  sparse = None if items.sparse is None else postings.make(items.sparse)
  return Nearest(kind, options, dense, sparse)


def load_faiss() -> types.ModuleType:
  """FAISS; UserError if it is not installed."""
  try:
    import faiss
  except ImportError as error:
    raise errors.UserError(
        "Indexes of the kinds 'flat', 'ivf' and 'hnsw' need FAISS, which is "
        "not installed: pip install 'dropoutnet_jax[ann]'. Kind 'exact' needs "
        'nothing more.'
    ) from error
  return faiss
