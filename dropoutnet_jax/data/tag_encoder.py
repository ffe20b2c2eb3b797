# SPDX-License-Identifier: Apache-2.0
"""Weighted tags and counted words as tf-idf, whole and reduced.

The vocabulary, the idf weights and the reduction come from training rows
alone; a tag that no training row has is ignored later, also in the norm of a
row. Measured on the cold papers of citeulike-a, content kNN loses 3 to 4 % of
its NDCG@20 when such tags count in the norm. The matrix is never densified,
except for a vocabulary of at most `encoders.MAX_DENSE_COLUMNS` tags.
"""

import dataclasses
import functools

import numpy as np
import scipy.sparse
import threadpoolctl

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import schema

_POWER_ITERATIONS = 4
# What a reduction keeps of a row of norm 1; less than this is rounding noise,
# which must not be scaled up to norm 1. Also the smallest singular value, as a
# share of the largest.
_NOISE = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class TagEncoder:
  """Tf-idf over T tags, and a reduction of it.

  Attributes:
    column: its name.
    counts: 'binary', 'log' or 'raw'.
    in_sparse: whether the tags are part of the sparse content.
    unit: whether the dense block starts from rows of norm 1.
    names: str [T], or None where the source has no names.
    source: int64 [T], the tags' column numbers in the training table.
    weight: float32 [T], idf.
    reduced: int64 [S], the tags that the dense block reads.
    projection: float32 [S, F]; None where the dense block is multi-hot.
  """

  column: str
  counts: str
  in_sparse: bool
  unit: bool
  names: np.ndarray | None
  source: np.ndarray
  weight: np.ndarray
  reduced: np.ndarray
  projection: np.ndarray | None

  @functools.cached_property
  def _number_of(self) -> dict[str, int]:
    """Position of each tag, by name."""
    assert self.names is not None
    return {name: n for n, name in enumerate(self.names.tolist())}

  def encode(
      self, column: schema.Tags
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Tags are matched by name; without names, by column number."""
    weighted = self.weigh(column)
    unit = blocks.unit_rows(weighted)
    block = unit if self.unit else weighted
    if len(self.reduced) < len(self.weight):
      block = block[:, self.reduced]
    if self.projection is None:
      dense = block.toarray()
    else:
      dense = block @ self.projection
      if self.unit:
        dense[np.linalg.norm(dense, axis=1) < _NOISE] = 0
    empty = blocks.no_columns(len(dense))
    return dense, unit if self.in_sparse else empty

  def weigh(self, tags: schema.Tags) -> scipy.sparse.csr_array:
    """Tf-idf over this vocabulary, csr_array float32 [N, T]."""
    aligned = self._align(tags)
    count_weights(aligned, self.counts)
    aligned.data *= self.weight[aligned.indices]
    return aligned

  def _align(self, tags: schema.Tags) -> scipy.sparse.csr_array:
    """The columns of a table in the order of this vocabulary, [N, T]."""
    width = tags.matrix.shape[1]
    target = np.full(width, -1, np.int64)
    if self.names is None or tags.names is None:
      known = self.source < width
      target[self.source[known]] = np.flatnonzero(known)
    else:
      # Only the tags that occur: one new item must not cost a vocabulary.
      used = np.unique(tags.matrix.indices)
      found = (self._number_of.get(name, -1) for name in tags.names[used])
      target[used] = np.fromiter(found, np.int64, len(used))
    return _map_columns(tags.matrix, target, len(self.weight))

  def dense_names(self) -> list[str]:
    if self.projection is None:
      return [self._name(n) for n in self.reduced]
    return [f'{self.column}[{n}]' for n in range(self.projection.shape[1])]

  def sparse_names(self) -> list[str]:
    kept = len(self.weight) if self.in_sparse else 0
    return [self._name(n) for n in range(kept)]

  def _name(self, number: int) -> str:
    names = self.source if self.names is None else self.names
    return f'{self.column}={names[number]}'


def count_weights(matrix: scipy.sparse.csr_array, counts: str) -> None:
  """Turns weights of tags, in place, to what `Feature.counts` makes of them."""
  if counts == 'binary':
    matrix.data[:] = 1
  elif counts == 'log':
    matrix.data[:] = np.log1p(matrix.data)


def idf_weights(frequency: np.ndarray, num_rows: int, idf: str) -> np.ndarray:
  """What tags in `frequency` [T] of the rows weigh, float32 [T].

  A tag of no row counts as one of a single row.
  """
  inverse = np.log(num_rows / np.maximum(frequency, 1))
  power = {'idf': 1.0, 'root': 0.5, 'none': 0.0}[idf]
  return (inverse**power).astype(np.float32)


def fit_tags(
    feature: config.Feature,
    tags: schema.Tags,
    scaling: str,
    seed: int,
    field: str,
) -> tuple[TagEncoder, list[str]]:
  """Fits vocabulary, idf and reduction.

  idf is log(N / df) over N training rows, of which df have the tag. A tag that
  all rows have weighs nothing then, and is dropped. With scaling 'column' the
  reduction is of tf-idf as it is, as published (Volkovs et al., NeurIPS 2017);
  else of rows of norm 1.

  Args:
    feature: its settings.
    tags: of the training rows.
    scaling: of the dense content, 'row' or 'column'.
    seed: of the truncated SVD.
    field: where the feature is in the configuration, for errors.

  Returns:
    The encoder, and notes for the user.

  Raises:
    UserError: no tag is left, the rank is too large, or nothing of the feature
      would be read.
  """
  matrix, source = _merge_names(tags)
  frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
  weight = idf_weights(frequency, matrix.shape[0], feature.idf)
  kept = np.flatnonzero((frequency >= feature.min_rows) & (weight > 0))
  noun = {'text': 'word', 'sequence': 'value'}.get(feature.kind, 'tag')
  if not len(kept):
    raise errors.UserError(
        f'{field}: column {feature.column!r} has '
        f'{np.count_nonzero(frequency):,} {noun}s in {matrix.shape[0]:,} '
        f'training rows, none of which occurs in {feature.min_rows} or more of '
        f'them and weighs more than 0 (with idf, a {noun} of all rows weighs '
        "0: idf='none' keeps it). Lower min_rows, or leave the feature out."
    )
  encoder = TagEncoder(
      column=feature.column,
      counts=feature.counts,
      in_sparse=feature.sparse,
      unit=scaling == 'row',
      names=None if tags.names is None else tags.names[source[kept]],
      source=source[kept],
      weight=weight[kept],
      reduced=np.zeros(0, np.int64),
      projection=None,
  )
  encoder, notes = _add_dense_block(encoder, feature, tags, seed, field, noun)
  return encoder, [_describe(encoder, tags, frequency, noun), *notes]


def _describe(
    encoder: TagEncoder, tags: schema.Tags, frequency: np.ndarray, noun: str
) -> str:
  """A note on what became of the vocabulary."""
  num_rows, num_columns = tags.matrix.shape
  num_tags = len(encoder.weight)
  unseen = np.count_nonzero(frequency == 0)
  reasons = (
      ('of a name that came before', num_columns - len(frequency)),
      ('in no training row', unseen),
      ('too rare or in every row', len(frequency) - unseen - num_tags),
  )
  why = ', '.join(f'{what}: {count:,}' for what, count in reasons if count)
  empty = np.count_nonzero(np.diff(tags.matrix.indptr) == 0)
  return (
      f'{encoder.column!r}: {num_tags:,} of {num_columns:,} {noun}s are used'
      f'{f" ({why})" if why else ""}; {empty:,} of {num_rows:,} training rows '
      f'have no {noun}.'
  )


def _add_dense_block(
    encoder: TagEncoder,
    feature: config.Feature,
    tags: schema.Tags,
    seed: int,
    field: str,
    noun: str,
) -> tuple[TagEncoder, list[str]]:
  """Multi-hot, reduced, or none: by the rank and the number of tags."""
  if feature.embedding:  # takes the place of dense columns
    return encoder, []
  if feature.rank:
    return _reduce(encoder, tags, feature.rank, seed, field, noun)
  num_tags = len(encoder.weight)
  if num_tags <= encoders.MAX_DENSE_COLUMNS:
    return dataclasses.replace(encoder, reduced=np.arange(num_tags)), []
  if not feature.sparse:
    is_content = feature.group == 'content'
    without = 'sparse=False' if is_content else 'no sparse preference'
    more = ', or sparse=True' if is_content else ', or an embedding, like 16'
    raise errors.UserError(
        f'{field}: column {feature.column!r} has {num_tags:,} {noun}s, rank=0 '
        f'and {without}, so nothing of it would be read: more than '
        f'{encoders.MAX_DENSE_COLUMNS} {noun}s do not become dense as they are.'
        f' Set a rank, like 300{more}.'
    )
  note = (
      f'{feature.column!r} is in the sparse content only, which the towers do '
      'not read; a rank would make dense columns of it.'
  )
  return encoder, [note]


def _reduce(
    encoder: TagEncoder,
    tags: schema.Tags,
    rank: int,
    seed: int,
    field: str,
    noun: str,
) -> tuple[TagEncoder, list[str]]:
  """Adds the leading right singular vectors of the training rows.

  Tags of a single row are left out. They relate no row to another: in the
  Gram matrix of the rows they add to the diagonal alone.
  """
  rows = encoder.weigh(tags)
  rows = blocks.unit_rows(rows) if encoder.unit else rows
  frequency = np.bincount(rows.indices, minlength=rows.shape[1])
  shared = np.flatnonzero(frequency > 1)
  largest = min(rows.shape[0], len(shared))
  if rank > largest:
    raise errors.UserError(
        f'{field}.rank is {rank}, but the largest possible here is {largest}: '
        f'column {encoder.column!r} has {len(shared):,} {noun}s that occur in '
        f'two or more of the {rows.shape[0]:,} training rows.'
    )
  from sklearn.utils import extmath  # costs every start some seconds

  # One thread: the same bits on any number of cores, and faster on few shared
  # ones, where the threads of BLAS wait for each other.
  with threadpoolctl.threadpool_limits(1):
    _, singular, directions = extmath.randomized_svd(
        rows[:, shared],
        rank,
        n_iter=_POWER_ITERATIONS,
        power_iteration_normalizer='LU',
        random_state=seed,
    )
  useful = singular > _NOISE * singular[0]
  projection = np.where(useful[:, None], directions, 0).T
  projection = np.ascontiguousarray(projection, np.float32)
  encoder = dataclasses.replace(encoder, reduced=shared, projection=projection)
  if useful.all():
    return encoder, []
  note = (
      f'{encoder.column!r}: the {noun}s have {np.count_nonzero(useful)} '
      f'independent directions; the other columns of rank {rank} are 0.'
  )
  return encoder, [note]


def _merge_names(
    tags: schema.Tags,
) -> tuple[scipy.sparse.csr_array, np.ndarray]:
  """Joins columns of the same name: [N, T'], and the first column of each."""
  width = tags.matrix.shape[1]
  target = source = np.arange(width)
  if tags.names is not None:
    number_of: dict[str, int] = {}
    joined = [number_of.setdefault(n, len(number_of)) for n in tags.names]
    target = np.array(joined, np.int64)
    source = np.unique(target, return_index=True)[1]
  return _map_columns(tags.matrix, target, len(source)), source


def _map_columns(
    matrix: scipy.sparse.csr_array, target: np.ndarray, width: int
) -> scipy.sparse.csr_array:
  """Moves column c to target[c] and drops it where that is -1; a new array."""
  column = target[matrix.indices]
  keep = column >= 0
  starts = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
  result = scipy.sparse.csr_array(
      (matrix.data[keep].astype(np.float32), column[keep], starts),
      shape=(matrix.shape[0], width),
  )
  result.sum_duplicates()
  result.eliminate_zeros()
  return result
