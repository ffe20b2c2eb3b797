# SPDX-License-Identifier: Apache-2.0
"""feature_groups and what they name as features of users and items."""

import collections
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import data_settings
from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import feature_kinds
from dropoutnet_jax.easyrec import ledger

# (side, group) of the groups that DropoutNet reads.
GROUPS = {
    'user_content': ('user', 'content'),
    'user_preference': ('user', 'preference'),
    'item_content': ('item', 'content'),
    'item_preference': ('item', 'preference'),
}


@dataclasses.dataclass
class _Named:
  """A feature as a group may name it; several share a node by shared_names."""

  node: ledger.Node
  inputs: tuple[str, ...]


def _groups_of(root: ledger.Node, path: str) -> dict[str, ledger.Node]:
  """The groups that DropoutNet reads, by name.

  Raises:
    UserError: one occurs twice, or a side has none.
  """
  found: dict[str, ledger.Node] = {}
  for node in root.node('model_config').nodes('feature_groups'):
    name = node.get('group_name')
    if name in found:
      raise errors.UserError(
          f'{path}: model_config.feature_groups has {name!r} twice; join them.'
      )
    if name in GROUPS:
      found[name] = node
    else:
      node.take(note='DropoutNet of EasyRec does not read this group either')
  for side in ('user', 'item'):
    if not any(GROUPS[name][0] == side for name in found):
      raise errors.UserError(
          f'{path}: model_config.feature_groups has neither {side}_content nor '
          f'{side}_preference; DropoutNet wants one of them or both.'
      )
  return {name: found[name] for name in GROUPS if name in found}


def _all_features(
    root: ledger.Node, names: Sequence[str], path: str
) -> dict[str, _Named]:
  """Features by name, of the old style and of the new.

  Raises:
    UserError: a feature has no input, one that is no column, or a name that
      another one has.
  """
  nodes = root.nodes('feature_configs')
  nodes += root.node('feature_config').nodes('features')
  root.node('feature_config').take('embedding_on_cpu', note='JAX places tables')
  found: dict[str, _Named] = {}
  for node in nodes:
    inputs = node.get('input_names')
    if not inputs:
      raise errors.UserError(
          f'{path}: {node.place} has no input_names; name its columns.'
      )
    every = [(node.get('feature_name') or inputs[0], inputs)]
    every += [(name, (name,)) for name in node.get('shared_names')]
    node.take('shared_names', note='a feature for each of the names')
    for name, columns in every:
      for column in columns:
        if column not in names:
          raise errors.UserError(
              f'{path}: {node.place} reads {column!r}, which is none of '
              f'data_config.input_fields.{errors.did_you_mean(column, names)}'
          )
      if name in found:
        raise errors.UserError(
            f'{path}: two features are called {name!r}, '
            f'{found[name].node.place} and {node.place}. Give one of them '
            'another feature_name.'
        )
      found[name] = _Named(node, columns)
  return found


class Reader:
  """Features on their way from a configuration to a draft.

  Attributes:
    groups: the groups that DropoutNet reads, by name.
  """

  def __init__(self, root: ledger.Node, names: Sequence[str], path: str):
    """Raises UserError for features and groups that do not fit each other."""
    self._path = path
    self._features = _all_features(root, names, path)
    self.groups = _groups_of(root, path)
    self._columns = tuple(names)
    self._side_of: dict[str, str] = {}
    self._lists: dict[str, list[str]] = {}
    self._separator, self._weight_separator = '', ''
    for group in self.groups.values():
      for name in group.get('feature_names'):
        if name not in self._features:
          raise errors.UserError(
              f'{path}: group {group.get("group_name")!r} names {name!r}, '
              'which is no feature.'
              + errors.did_you_mean(name, self._features)
              + ' Add it to feature_configs, or take the name out.'
          )
    shared = collections.Counter(
        named.node.get('embedding_name') for named in self._features.values()
    )
    self._shared = {name for name, count in shared.items() if count > 1} - {''}

  def guesses(self) -> dict[str, str]:
    """For each side the column that looks most like its id."""
    best: dict[str, tuple[int, str]] = {}
    for group, node in self.groups.items():
      side, _ = GROUPS[group]
      for name in node.get('feature_names'):
        feature = self._features[name].node
        if feature.get('feature_type') != 'IdFeature':
          continue
        column, *_ = self._features[name].inputs
        size = feature.get('hash_bucket_size') or feature.get('num_buckets')
        if re.search(r'id$', column.lower()):
          if size > best.get(side, (0, ''))[0]:
            best[side] = size, column
    return {side: column for side, (_, column) in best.items()}

  def convert(
      self, draft: draft_lib.Draft, ids: dict[str, str]
  ) -> data_settings.Columns:
    """Adds all features to the draft.

    Args:
      draft: gets them.
      ids: column of the id of each side.

    Returns:
      What is read of the table.

    Raises:
      UserError: if nothing is left of both sides.
    """
    self._side_of = {column: side for side, column in ids.items()}
    used = set()
    for group, node in self.groups.items():
      side, part = GROUPS[group]
      node.take('group_name', note=f'features.{side}, group {part!r}')
      for name in dict.fromkeys(node.get('feature_names')):
        used.add(name)
        self._convert_one(draft, name, side, part, ids[side])
      _settle_group(node)
    for name, named in self._features.items():
      if name not in used:
        named.node.take(note='no group names it; EasyRec reads it as little')
    if not (draft.cfg.features.user or draft.cfg.features.item):
      raise errors.UserError(
          f'{self._path}: no feature of any group could be converted, so that '
          'there would be nothing to learn from.'
      )
    of = lambda side: tuple(
        column
        for column in self._columns
        if self._side_of.get(column) == side and column not in ids.values()
    )
    return data_settings.Columns(
        ids['user'],
        ids['item'],
        of('user'),
        of('item'),
        {field: tuple(names) for field, names in self._lists.items()},
        self._separator,
        self._weight_separator,
    )

  def _convert_one(
      self,
      draft: draft_lib.Draft,
      name: str,
      side: str,
      part: str,
      id_column: str,
  ) -> None:
    """One feature of a group; what cannot be is refused whole."""
    named = self._features[name]
    node = named.node
    try:
      wanted = feature_kinds.convert(
          node, name, named.inputs, draft.is_compatible, self._columns
      )
      self._claim(wanted, side)
    except feature_kinds.RefusedError as error:
      node.refuse(note=str(error))
      return
    options: dict[str, Any] = dict(wanted.options)
    comment = wanted.comment
    if node.get('embedding_name') in self._shared and options.get('embedding'):
      options['embedding_table'] = node.get('embedding_name')
    if id_column in named.inputs and options['kind'] == 'category':
      if draft.is_compatible:
        comment = comment or _id_comment(part, side)
      else:
        part = 'preference'
        comment = f'An id is preference: new {side}s have none that is trained.'
    feature_kinds.settle(node, part)
    draft.add_feature(side, config.Feature(group=part, **options), comment)

  def _claim(self, wanted: feature_kinds.Wanted, side: str) -> None:
    """Takes the columns of a feature for a side, and their separators."""
    for column in wanted.columns:
      other = self._side_of.get(column, side)
      if other != side:
        raise feature_kinds.RefusedError(
            f'column {column!r} is already of {other}s, and a tower sees one '
            'side alone; copy it under another name'
        )
    for field, column, separator in wanted.lists:
      for other, names in self._lists.items():
        if column in names and other != field:
          raise feature_kinds.RefusedError(
              f'column {column!r} is read as {other} already; copy it'
          )
      if self._separator not in ('', separator):
        raise feature_kinds.RefusedError(
            f'lists of the file are separated by {self._separator!r}, and '
            f'these by {separator!r}; rewrite one of the columns'
        )
    if wanted.weight_separator:
      if self._weight_separator not in ('', wanted.weight_separator):
        raise feature_kinds.RefusedError(
            f'weights stand behind {self._weight_separator!r} elsewhere; '
            'rewrite one of the columns'
        )
      self._weight_separator = wanted.weight_separator
    for field, column, separator in wanted.lists:
      self._separator = separator
      if column not in self._lists.setdefault(field, []):
        self._lists[field].append(column)
    self._side_of |= dict.fromkeys(wanted.columns, side)


def _id_comment(part: str, side: str) -> str:
  if part == 'preference':
    return ''
  return (
      'As in EasyRec; an id in the content is not dropped, so that a new '
      f'{side} brings one that is not trained.'
  )


def _settle_group(node: ledger.Node) -> None:
  node.take('feature_names', note='features of that group, in their order')
  if node.get('wide_deep') == 'DEEP':
    node.take('wide_deep', note='what there is')
  else:
    node.refuse('wide_deep', note='there is no wide part; all is deep')
  for sequence in node.nodes('sequence_features'):
    sequence.refuse(
        note="attention of items on a user's sequence joins both sides, whose "
        "towers are apart; use a SequenceFeature (pooling='attention')"
    )
  node.take('negative_sampler', note='nothing reads it in a DropoutNet')
