# SPDX-License-Identifier: Apache-2.0
"""The dropoutnet block as settings of the towers and of input dropout."""

import collections
from collections.abc import Collection

from dropoutnet_jax import config_model
from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import ledger

_ACTIVATIONS = {'swish': 'silu'} | {n: n for n in config_model.ACTIVATIONS}


def check_class(root: ledger.Node, path: str) -> ledger.Node:
  """The model, which has to be a DropoutNet.

  Raises:
    UserError: if it is another one, or none.
  """
  if not root.has('model_config'):
    raise errors.UserError(
        f'{path} has no model_config; give the whole pipeline.config.'
    )
  model = root.node('model_config')
  name = model.get('model_class')
  if name != 'DropoutNet':
    raise errors.UserError(
        f'{path}: model_config.model_class is {name!r}; only DropoutNet is '
        'converted. Of other models begin with README, "Your own data".'
    )
  if not model.has('dropoutnet'):
    raise errors.UserError(
        f'{path}: model_config has no dropoutnet block, which says how large '
        'the towers are. Add it.'
    )
  model.take('model_class', note="model.tower='groups'")
  return model


def convert(
    model: ledger.Node,
    draft: draft_lib.Draft,
    groups: Collection[str],
    path: str,
) -> None:
  """Networks, activation, dropout of inputs and L2.

  Raises:
    UserError: if a tower has no last layer, or both end in different ones.
  """
  block = model.node('dropoutnet')
  _set_common(draft)
  widths = {name: _widths(block, name) for name in config_model.NETWORKS}
  last = {}
  for name in ('user_tower', 'item_tower'):
    if not widths[name]:
      raise errors.UserError(
          f'{path}: model_config.dropoutnet.{name} has no hidden_units; the '
          'last of them is the width of the embeddings.'
      )
    *before, last[name] = widths[name]
    widths[name] = tuple(before)
  if len(set(last.values())) > 1:
    raise errors.UserError(
        f'{path}: model_config.dropoutnet: user_tower ends in '
        f'{last["user_tower"]} and item_tower in {last["item_tower"]}; their '
        'embeddings are multiplied and need one width.'
    )
  if not last['user_tower']:
    raise errors.UserError(
        f'{path}: model_config.dropoutnet.user_tower ends in a layer of width '
        '0; that is the width of the embeddings.'
    )
  draft.set('model.rank', last['user_tower'])
  used = [n for n in config_model.NETWORKS if n in groups or '_tower' in n]
  _set_widths(draft, {name: widths[name] for name in used})
  no_norm = []
  for name in config_model.NETWORKS:
    node = block.node(name)
    if name not in used:
      node.take(note='the configuration has no such group, so no network')
      continue
    node.take('hidden_units', note='widths of model.groups, hidden, rank')
    if not node.get('use_bn') and widths[name] != ():
      no_norm.append(name)
    node.take('use_bn', note='model.groups.no_batch_norm')
    node.refuse(
        'dropout_ratio',
        note='neurons are not dropped; raise train.ema or the L2 terms',
    )
  draft.set('model.groups.no_batch_norm', tuple(no_norm))
  _set_activation(block, draft, used)
  _set_dropout(block, draft)


def _set_common(draft: draft_lib.Draft) -> None:
  """What the 'easyrec' profile has already."""
  draft.set('features.preference', 'none')
  draft.set('model.tower', 'groups')
  draft.set('model.normalize', True)


def _widths(block: ledger.Node, name: str) -> tuple[int, ...]:
  """Hidden units of a network; () hands its input on."""
  widths = block.node(name).get('hidden_units')
  is_tower = name.endswith('_tower')
  return () if widths == (0,) and not is_tower else widths


def _set_widths(
    draft: draft_lib.Draft, widths: dict[str, tuple[int, ...]]
) -> None:
  """Widths that most networks share, and those of the others."""
  towers = [w for name, w in widths.items() if name.endswith('_tower')]
  others = [w for name, w in widths.items() if not name.endswith('_tower')]
  common = {
      True: collections.Counter(towers).most_common(1)[0][0],
      False: collections.Counter(others).most_common(1)[0][0],
  }
  draft.set('model.hidden', common[True])
  draft.set('model.group_hidden', common[False])
  for name, own in widths.items():
    if own != common[name.endswith('_tower')]:
      draft.set(f'model.groups.{name}', own or (0,))


def _set_activation(
    block: ledger.Node, draft: draft_lib.Draft, used: list[str]
) -> None:
  """One for all networks: the first that there is here."""
  found: dict[str, str] = {}
  for name in used:
    text = block.node(name).get('activation').lower().rpartition('.')[2]
    found[name] = _ACTIVATIONS.get(text, '')
  chosen = next((one for one in found.values() if one), 'relu')
  draft.set('model.activation', chosen)
  for name, one in found.items():
    node = block.node(name)
    if one == chosen:
      node.take('activation', note='model.activation')
    else:
      node.refuse(
          'activation',
          note=f'all networks have model.activation={chosen!r}; there are '
          f'{", ".join(config_model.ACTIVATIONS)}',
      )


def _set_dropout(block: ledger.Node, draft: draft_lib.Draft) -> None:
  for side in ('user', 'item'):
    name = f'{side}_dropout_rate'
    rate = block.get(name)
    comment = ''
    if rate == 0:
      comment = f'Nothing is learnt for new {side}s, as in EasyRec.'
    elif rate >= 1:
      comment = 'Content alone; EasyRec divides by 0 here.'
    draft.set(f'dropout.{side}_rate', rate, comment)
    verdict = block.take if draft.is_compatible else block.change
    note = f'dropout.{side}_rate'
    if not draft.is_compatible:
      note += '; what is kept is not divided by its share'
    verdict(name, note=note)
  strength = block.get('l2_regularization')
  draft.set('objective.kernel_regularization', strength)
  block.take('l2_regularization', note='objective.kernel_regularization')


def settle(model: ledger.Node) -> None:
  """What stands beside the block."""
  model.take('model_name', note='a name; cfg.name is that of the experiment')
  model.refuse('seq_att_groups', note='nothing reads them in a DropoutNet')
  model.refuse(
      'kd',
      note='DropoutNet of EasyRec has none; objective.teacher '
      'learns from factors',
  )
  model.refuse(
      'variational_dropout', note='features are not selected while training'
  )
  model.refuse(
      'ev_params', note='tables do not grow; choose hash_bucket_size for it'
  )
  model.take('loss_type', 'num_class', note='DropoutNet reads losses instead')
  model.change(
      'restore_filters', note='train.warm_start takes what fits by its name'
  )
  model.take('label_name', note='DropoutNet reads the first of label_fields')
