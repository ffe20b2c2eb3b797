# SPDX-License-Identifier: Apache-2.0
"""Columns as tokens: what learnt embeddings are looked up for.

A category is one token; of a sequence the last values are, in their order; of
tags and texts the heaviest, each with its weight. Values that have no id are
left out before that, so that they take nobody's place. Vocabularies are in
vocabularies.py; weights of tags come from the training rows of each feature.
"""

import dataclasses
import functools

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import id_values
from dropoutnet_jax.data import number_encoder
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tag_encoder
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.data import vocabularies


@dataclasses.dataclass(frozen=True, eq=False)
class TokenEncoder:
  """Ids and weights of one feature.

  Attributes:
    column: its name.
    name: of the feature, unique on its side.
    table: name of the embedding table.
    vocabulary: str [K], values with the ids 1 to K; none of hashed values and
      of whole numbers below a limit.
    hash_buckets: as in the configuration.
    num_buckets: likewise.
    edges: between the intervals of numbers.
    counts: what becomes of the weights of tags: 'binary', 'log' or 'raw'.
    weight: float32 [K + 1] by id, idf of tags; [0] where all values weigh 1.
    has_names: whether tags have names; else they are their column numbers.
    length: columns of ids, L.
    width: of an embedding.
    pooling: of several ids.
    std: of the first values of the embeddings.
  """

  column: str
  name: str
  table: str
  vocabulary: np.ndarray
  hash_buckets: int
  num_buckets: int
  edges: tuple[float, ...]
  counts: str
  weight: np.ndarray
  has_names: bool
  length: int
  width: int
  pooling: str
  std: float

  @property
  def num_ids(self) -> int:
    """Ids are in [0, num_ids): rows of the embedding table."""
    buckets = self.hash_buckets or self.num_buckets
    return 1 + (buckets or len(self.vocabulary))

  @functools.cached_property
  def _number_of(self) -> dict[str, int]:
    return id_maps.number(self.vocabulary.tolist())

  def token_feature(self, start: int) -> tokens_lib.TokenFeature:
    """What is fixed about the tokens, their columns beginning at `start`."""
    return tokens_lib.TokenFeature(
        name=self.name,
        table=self.table,
        start=start,
        stop=start + self.length,
        num_ids=self.num_ids,
        width=self.width,
        pooling=self.pooling,
        std=self.std,
    )

  def encode(self, column: schema.Column) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [N, L] and weights float32 [N, L], padded behind with 0.

    Args:
      column: as `columns.read` gives it.

    Raises:
      UserError: tags have no names, but had some in training; or there are
        several numbers per row.
    """
    row, ids, weight, num_rows = self.entries(column)
    count = np.bincount(row, minlength=num_rows)
    start = np.cumsum(count) - count
    if isinstance(column, schema.Tags):
      order = np.lexsort((ids, -weight, row))
      ids, weight = ids[order], weight[order]
    else:  # the last ones
      start += np.maximum(count - self.length, 0)
    place = np.arange(len(ids)) - start[row]
    keep = (place >= 0) & (place < self.length)
    at = row[keep], place[keep]
    all_ids = np.zeros((num_rows, self.length), np.int32)
    all_weights = np.zeros((num_rows, self.length), np.float32)
    all_ids[at], all_weights[at] = ids[keep], weight[keep]
    return all_ids, all_weights

  def entries(
      self, column: schema.Column
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """All known values: row, id and weight [E] by row and order; and N."""
    values = id_values.of_column(self._check(column), self.edges)
    ids = self._ids(values.names)[values.code]
    row, num_rows = values.rows(), len(values.starts) - 1
    if values.weight is None:
      keep = ids > 0
      return row[keep], ids[keep], np.ones(keep.sum(), np.float32), num_rows
    matrix = sum_by_id(row, ids, values.weight, num_rows, self.num_ids)
    tag_encoder.count_weights(matrix, self.counts)
    weight = matrix.data * self.weight[matrix.indices]
    row = np.repeat(np.arange(num_rows), np.diff(matrix.indptr))
    keep = weight > 0
    return row[keep], matrix.indices[keep], weight[keep], num_rows

  def _ids(self, names: list[str]) -> np.ndarray:
    if self.hash_buckets:
      return id_maps.hashed_ids(names, self.hash_buckets)
    if self.num_buckets:
      return id_maps.bucket_ids(names, self.num_buckets)
    return id_maps.vocabulary_ids(names, self._number_of)

  def _check(self, column: schema.Column) -> schema.Column:
    if isinstance(column, np.ndarray) and column.ndim > 1:
      number_encoder.check_width(self.column, column, 1)
      return column[:, 0]
    if not isinstance(column, schema.Tags):
      return column
    if self.has_names and column.names is None:
      raise errors.UserError(
          f'Column {self.column!r} has tags without names, but they had names '
          'in training. Give them the same names as then.'
      )
    return column if self.has_names else schema.Tags(column.matrix)


def sum_by_id(
    row: np.ndarray,
    ids: np.ndarray,
    weight: np.ndarray,
    num_rows: int,
    num_ids: int,
) -> scipy.sparse.csr_array:
  """Weights by id, float32 [N, num_ids]; those of id 0 are left out."""
  keep = ids > 0
  matrix = scipy.sparse.csr_array(
      (weight[keep].astype(np.float32), (row[keep], ids[keep])),
      shape=(num_rows, num_ids),
  )
  matrix.sum_duplicates()
  matrix.eliminate_zeros()
  return matrix


def fit(
    embedded: vocabularies.Embedded,
    vocabulary: np.ndarray,
    column: schema.Column,
) -> tuple[TokenEncoder, list[str]]:
  """Fits weights of tags and the number of columns.

  Args:
    embedded: the feature.
    vocabulary: str [K]; empty with buckets.
    column: of the training rows, as `columns.read` gives it.

  Returns:
    The encoder, and notes for the user.

  Raises:
    UserError: no training row has a token.
  """
  feature = embedded.feature
  is_tags = isinstance(column, schema.Tags)
  encoder = TokenEncoder(
      column=feature.name,
      name=embedded.name,
      table=embedded.table,
      vocabulary=vocabulary,
      edges=id_values.fit_edges(feature, column, embedded.field),
      hash_buckets=feature.hash_buckets,
      num_buckets=feature.num_buckets,
      counts=feature.counts,
      weight=np.zeros(0, np.float32),
      has_names=getattr(column, 'names', None) is not None,
      length=1,
      width=feature.embedding,
      pooling=feature.pooling,
      std=feature.embedding_std or feature.embedding**-0.5,
  )
  if is_tags:
    ones = np.ones(encoder.num_ids, np.float32)
    encoder = dataclasses.replace(encoder, weight=ones, counts='binary')
    row, ids, _, num_rows = encoder.entries(column)
    frequency = np.bincount(ids, minlength=encoder.num_ids)
    weight = tag_encoder.idf_weights(frequency, num_rows, feature.idf)
    encoder = dataclasses.replace(encoder, weight=weight, counts=feature.counts)
  row, _, _, num_rows = encoder.entries(column)
  count = np.bincount(row, minlength=num_rows)
  longest = count.max(initial=0)
  if not longest:
    raise errors.UserError(
        f'{embedded.field}: column {feature.name!r} has no value that an '
        f'embedding could be learnt for in {num_rows:,} training rows: they '
        f'are {_why_unknown(feature, is_tags)}. Mend that, or leave the '
        'feature out.'
    )
  encoder = dataclasses.replace(
      encoder, length=int(min(longest, feature.max_length))
  )
  return encoder, [_describe(encoder, count, feature.max_length, is_tags)]


def _why_unknown(feature: config.Feature, is_tags: bool) -> str:
  parts = ['missing']
  if feature.num_buckets:
    parts.append(
        f'not in [0, {feature.num_buckets}) (hash_buckets takes values of any '
        'kind)'
    )
  elif not feature.hash_buckets and feature.min_rows > 1:
    parts.append(f'in fewer than min_rows={feature.min_rows}')
  if is_tags:
    parts.append(
        'of weight 0 (with idf, what all rows have weighs 0: '
        "idf='none' keeps it)"
    )
  return ' or '.join(parts)


def _describe(
    encoder: TokenEncoder, count: np.ndarray, most: int, is_tags: bool
) -> str:
  """A note on tokens, and on what was left out of them; known values [N]."""
  noun = 'values'
  if encoder.hash_buckets or encoder.num_buckets:
    noun = 'buckets'
  told = (
      f'{encoder.column!r}: embeddings of width {encoder.width} for '
      f'{encoder.num_ids - 1:,} {noun} (table {encoder.table!r}); '
      f'{np.count_nonzero(count == 0):,} of {len(count):,} training rows have '
      'none'
  )
  cut = np.count_nonzero(count > most)
  if cut:
    which = 'heaviest' if is_tags else 'last'
    told += f', {cut:,} keep the {which} {most} of more'
  return f'{told}.'
