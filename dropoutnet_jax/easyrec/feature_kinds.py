# SPDX-License-Identifier: Apache-2.0
"""Each kind of feature of EasyRec as options of a `config.Feature`."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from dropoutnet_jax.easyrec import formulas
from dropoutnet_jax.easyrec import ledger

_WIDTH = 16  # of embeddings whose width a configuration forgot


class RefusedError(Exception):
  """A feature that cannot be had here; the message says what to do."""


@dataclasses.dataclass
class Wanted:
  """What a feature asks for.

  Attributes:
    options: of config.Feature, without the group.
    columns: that it reads.
    lists: (field of TablesConfig, column, separator) of those that hold lists.
    weight_separator: between tags and weights, or ''.
    comment: on a line that means something else than in EasyRec, or ''.
  """

  options: dict[str, Any]
  columns: tuple[str, ...]
  lists: tuple[tuple[str, str, str], ...] = ()
  weight_separator: str = ''
  comment: str = ''


@dataclasses.dataclass
class _Source:
  """A feature of EasyRec: its message, name, columns; and all columns."""

  node: ledger.Node
  name: str
  inputs: tuple[str, ...]
  is_compatible: bool
  columns: Sequence[str]


def convert(
    node: ledger.Node,
    name: str,
    inputs: tuple[str, ...],
    is_compatible: bool,
    columns: Sequence[str],
) -> Wanted:
  """Options of a feature; `settle` then has the last word on its fields.

  Args:
    node: its message.
    name: what groups call it.
    inputs: the columns that it reads.
    is_compatible: whether it is to start as in EasyRec.
    columns: names of all.

  Raises:
    RefusedError: if there is nothing like it here.
  """
  source = _Source(node, name, inputs, is_compatible, columns)
  kind = node.get('feature_type')
  if kind not in _KINDS:
    raise RefusedError(f'a {kind} has no counterpart; leave it out')
  wanted = _KINDS[kind](source)
  separators = [separator for _, _, separator in wanted.lists]
  if any(not one for one in separators):
    raise RefusedError('an empty separator; name the character')
  return wanted


def settle(node: ledger.Node, part: str) -> None:
  """What is still open of a feature that was converted."""
  node.take('feature_name', note='the group names it')
  node.take('input_names', note='column')
  node.take('feature_type', note='kind')
  node.take('embedding_dim', note='embedding')
  node.take('embedding_name', note='embedding_table, where several share it')
  node.take('separator', note='data.tables.list_separator')
  node.take('precision', note='numbers are written as they are in the file')
  node.change('max_partitions', note='mesh.model splits tables over devices')
  node.refuse(
      'ev_params', note='tables do not grow; choose hash_bucket_size for it'
  )
  node.take(
      'sequence_length', 'lookup_max_sel_elem_num', note='lists are whole'
  )
  node.refuse(note=f'a feature of group {part!r} has no such option')


def _embedding(source: _Source) -> dict[str, Any]:
  """Width and first values of an embedding, and how several are pooled."""
  node = source.node
  width = node.get('embedding_dim') or _WIDTH
  options: dict[str, Any] = {'embedding': width}
  if source.is_compatible:  # truncated normal of this size
    options['embedding_std'] = float(f'{0.01 / width**0.5:.3g}')
  if node.has('initializer'):
    initializer = node.node('initializer')
    kind = initializer.which('kind')
    if kind in ('truncated_normal_initializer', 'random_normal_initializer'):
      normal = initializer.node(kind)
      options['embedding_std'] = normal.get('stddev')
      normal.take('stddev', note='embedding_std')
      normal.refuse('mean', note='embeddings start around 0')
    node.refuse('initializer', note='embeddings start normal around 0')
  return options


def _pooling(source: _Source) -> dict[str, Any]:
  node, combiner = source.node, source.node.get('combiner')
  if combiner in ('sum', 'mean', 'max'):
    node.take('combiner', note='pooling')
    return {'pooling': combiner}
  node.refuse('combiner', note=f'{combiner!r} is not there; mean is taken')
  return {'pooling': 'mean'}


def _ids(source: _Source) -> dict[str, Any]:
  """Where ids come from: buckets, numbers, or the values of training."""
  node = source.node
  if node.get('hash_bucket_size'):
    node.take('hash_bucket_size', note='hash_buckets, by another function')
    node.change('num_buckets', note='hash_bucket_size goes before it')
    return {'hash_buckets': int(node.get('hash_bucket_size'))}
  if node.has('vocab_list') or node.has('vocab_file'):
    node.change(
        'vocab_list',
        'vocab_file',
        note='the values of the training rows are the vocabulary; others are '
        'unknown, not the first word',
    )
    return {}
  if node.get('num_buckets'):
    node.take('num_buckets', note='num_buckets; others are unknown, not 0')
    return {'num_buckets': int(node.get('num_buckets'))}
  return {}


def _id(source: _Source) -> Wanted:
  options: dict[str, Any] = {'column': source.inputs[0], 'kind': 'category'}
  source.node.take('combiner', note='a category is one value')
  _only_one(source)
  return Wanted(options | _ids(source) | _embedding(source), source.inputs[:1])


def _only_one(source: _Source) -> None:
  if len(source.inputs) > 1:
    raise RefusedError('one column is read; the others would be lost')


def _tag(source: _Source) -> Wanted:
  node, column = source.node, source.inputs[0]
  if len(source.inputs) > 1:
    raise RefusedError(
        'weights in a column of their own are not read; write tag:weight in '
        "one column, with kv_separator ':'"
    )
  weights = node.get('kv_separator')
  node.take('kv_separator', note='data.tables.tag_weight_separator')
  # As they come: no idf, and a tag that occurs twice counts twice.
  options: dict[str, Any] = {
      'column': column,
      'kind': 'tags',
      'idf': 'none',
      'counts': 'raw',
  }
  options |= _ids(source) | _embedding(source) | _pooling(source)
  lists = (('tag_columns', column, node.get('separator')),)
  return Wanted(options, (column,), lists, weights)


def _sequence(source: _Source) -> Wanted:
  node, column = source.node, source.inputs[0]
  _only_one(source)
  if node.get('sub_feature_type') != 'IdFeature':
    raise RefusedError(
        'sequences of numbers are not there; write a vector of one length and '
        'use a RawFeature with raw_input_dim'
    )
  node.take('sub_feature_type', note='a sequence of ids')
  node.refuse('seq_multi_sep', note='a value of a sequence is one id')
  options: dict[str, Any] = {'column': column, 'kind': 'sequence'}
  options |= _ids(source) | _embedding(source)
  comment = ''
  if node.has('sequence_combiner'):
    combiner = node.node('sequence_combiner')
    kind, note = combiner.which('kind'), "pooling='attention'"
    options['pooling'] = 'attention'
    if kind == 'attention':
      combiner.change(note=f'{note}, by one learnt query')
    else:
      combiner.refuse(note=f'{note} is the nearest')
    comment = f'EasyRec: sequence_combiner {kind}.'
    node.take('combiner', note='sequence_combiner goes before it')
  else:
    options |= _pooling(source)
  if node.has('max_seq_len'):
    options['max_length'] = int(node.get('max_seq_len'))
    node.change('max_seq_len', note='max_length; the last values are kept')
  lists = (('sequence_columns', column, node.get('separator')),)
  return Wanted(options, (column,), lists, comment=comment)


def _raw(source: _Source) -> Wanted:
  node, column = source.node, source.inputs[0]
  _only_one(source)
  low, high = node.get('min_val'), node.get('max_val')
  if node.get('raw_input_dim') > 1:
    node.take('raw_input_dim', note="kind 'dense'; the file says how many")
    node.refuse('min_val', 'max_val', 'normalizer_fn', note='do it in the file')
    _project(node)
    lists = (('vector_columns', column, node.get('separator')),)
    return Wanted({'column': column, 'kind': 'dense'}, (column,), lists)
  node.take('raw_input_dim', note='one number')
  edges, scaled = node.get('boundaries'), False
  function = node.get('normalizer_fn')
  if edges:
    node.take('boundaries', note='boundaries')
  elif node.get('num_buckets') > 1 and high > low:
    count = int(node.get('num_buckets'))
    # Of 0 to 1 where the column is brought there before its function.
    start, width = (0.0, 1.0) if function else (low, high - low)
    edges = tuple(start + width * n / count for n in range(count))
    node.take('num_buckets', 'min_val', 'max_val', note='boundaries')
    scaled = True
  options: dict[str, Any] = {'column': column, 'kind': 'numeric'}
  if function or (high > low and not scaled):
    try:
      text = formulas.normalized(column, low, high, function, source.columns)
    except formulas.FormulaError as error:
      raise RefusedError(
          f'normalizer_fn is not understood ({error}); do it in the file'
      ) from error
    options = {'column': source.name, 'kind': 'expression', 'expression': text}
    node.take('min_val', 'max_val', 'normalizer_fn', note='expression')
  node.take('min_val', 'max_val', note='equal: nothing is scaled')
  if edges:
    edges = tuple(sorted(set(edges)))
    options |= {'boundaries': edges} | _embedding(source)
    node.take('combiner', note='an interval is one value')
  else:
    if source.is_compatible:
      options['transform'] = 'none'
    _project(node)
  return Wanted(options, (column,))


def _project(node: ledger.Node) -> None:
  node.change(
      'embedding_dim',
      'combiner',
      'initializer',
      'embedding_name',
      note='numbers go to the tower themselves, whose first layer can be that '
      'linear map',
  )


def _combo(source: _Source) -> Wanted:
  node = source.node
  if len(source.inputs) < 2:
    raise RefusedError('a combination takes two columns or more')
  if any(node.get('combo_input_seps')):
    raise RefusedError('a value of a combination is one value, not a list')
  node.take('combo_join_sep', 'combo_input_seps', note='values are joined')
  options: dict[str, Any] = {
      'column': source.name,
      'kind': 'cross',
      'columns': source.inputs,
  }
  node.take('combiner', note='a combination is one value')
  options |= {k: v for k, v in _ids(source).items() if k == 'hash_buckets'}
  return Wanted(options | _embedding(source), source.inputs)


def _lookup(source: _Source) -> Wanted:
  node = source.node
  if len(source.inputs) != 2:
    raise RefusedError('a lookup takes two columns, the key and the map')
  key, table = source.inputs
  node.take('kv_separator', note='data.tables.tag_weight_separator')
  node.change(
      'hash_bucket_size',
      'embedding_dim',
      'combiner',
      'initializer',
      'embedding_name',
      note='what is looked up is a number here, and goes to the tower itself',
  )
  lists = (('tag_columns', table, node.get('separator')),)
  return Wanted(
      {'column': table, 'kind': 'lookup', 'key': key},
      (key, table),
      lists,
      node.get('kv_separator'),
      'The number that is looked up; EasyRec hashes it.',
  )


def _expression(source: _Source) -> Wanted:
  node, text = source.node, source.node.get('expression')
  try:
    translated = formulas.translate(text, source.inputs)
  except formulas.FormulaError as error:
    raise RefusedError(f'{error} Put the result into the file.') from error
  node.take('expression', note='expression')
  options: dict[str, Any] = {
      'column': source.name,
      'kind': 'expression',
      'expression': translated,
  }
  if source.is_compatible:
    options['transform'] = 'none'
  return Wanted(options, source.inputs)


_KINDS: dict[str, Callable[[_Source], Wanted]] = {
    'IdFeature': _id,
    'TagFeature': _tag,
    'SequenceFeature': _sequence,
    'RawFeature': _raw,
    'ComboFeature': _combo,
    'LookupFeature': _lookup,
    'ExprFeature': _expression,
}
