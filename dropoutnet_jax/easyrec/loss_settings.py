# SPDX-License-Identifier: Apache-2.0
"""losses and their parameters as terms of `objective`.

DropoutNet of EasyRec knows three of twenty losses, skips the others without a
word and reads neither their parameters nor sessions. Under the profile
'easyrec' so it stays; under 'default' they count as they are written.
"""

from collections.abc import Callable
from typing import Any

from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import ledger

_KNOWN = {
    'CLASSIFICATION': 'pointwise',
    'PAIR_WISE_LOSS': 'pairwise',
    'SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING': 'softmax',
}
# Others that DropoutNet of EasyRec skips, as (term, block of parameters).
_MEANT = {
    'BINARY_FOCAL_LOSS': ('pointwise', 'binary_focal_loss'),
    'PAIRWISE_LOGISTIC_LOSS': ('pairwise', 'pairwise_logistic_loss'),
    'PAIRWISE_FOCAL_LOSS': ('pairwise', 'pairwise_focal_loss'),
    'PAIRWISE_HINGE_LOSS': ('pairwise', 'pairwise_hinge_loss'),
}
_KINDS = {
    'PAIRWISE_LOGISTIC_LOSS': 'logistic',
    'PAIRWISE_FOCAL_LOSS': 'focal',
    'PAIRWISE_HINGE_LOSS': 'hinge',
}
_SKIPPED = 'DropoutNet of EasyRec skips it without a word'


def convert(
    model: ledger.Node, draft: draft_lib.Draft, path: str
) -> tuple[str, ...]:
  """Sets the terms; returns columns of sessions that losses name.

  Raises:
    UserError: if nothing is left to learn from, or a block is missing.
  """
  draft.set('objective.pairing', 'interactions')
  draft.set('objective.teacher', 0.0)
  draft.set('objective.sampling', 'epochs')
  weights: dict[str, float] = {}
  sessions: list[str] = []
  losses = model.nodes('losses')
  known = [loss for loss in losses if loss.get('loss_type') in _KNOWN]
  last = {loss.get('loss_type'): loss for loss in known}
  for loss in known:
    kind = loss.get('loss_type')
    if loss is last[kind]:
      _set_known(loss, _KNOWN[kind], weights, draft, sessions)
    else:
      loss.take(note='the last of one type counts, as there')
  for loss in losses:
    kind = loss.get('loss_type')
    if kind not in _KNOWN:
      _set_other(loss, kind, weights, draft, sessions)
  if not losses:
    weights['pointwise'] = 1.0
    draft.comments['objective.pointwise'] = (
        'EasyRec trains on nothing without losses.'
    )
  if not any(weights.values()):
    raise errors.UserError(
        f'{path}: model_config.losses has none that DropoutNet learns from '
        f'({", ".join(_KNOWN)}, with a weight above 0). Add one.'
    )
  for term in ('pointwise', 'pairwise', 'softmax'):
    draft.set(f'objective.{term}', weights.get(term, 0.0))
  _set_softmax(model, draft, bool(weights.get('softmax')), path)
  _set_strategy(model, draft, len([w for w in weights.values() if w]))
  strength = model.get('embedding_regularization')
  if draft.cfg.features.has_embeddings:
    draft.set('objective.embedding_regularization', strength)
    verdict = model.take if draft.is_compatible else model.change
    note = 'objective.embedding_regularization'
    if not draft.is_compatible and strength:
      size = draft.cfg.train.batch_size
      draft.set(
          'objective.embedding_regularization',
          float(f'{strength * size:.6g}'),
          f'{strength:g} of a batch of {size:,}: here of the mean row.',
      )
      note += ', times the batch: it is a mean over rows, not a sum'
    verdict('embedding_regularization', note=note)
  model.take('embedding_regularization', note='no feature has an embedding')
  return tuple(sessions)


def _set_known(
    loss: ledger.Node,
    term: str,
    weights: dict[str, float],
    draft: draft_lib.Draft,
    sessions: list[str],
) -> None:
  weights[term] = loss.get('weight')
  loss.take('loss_type', 'weight', note=f'objective.{term}')
  _settle_names(loss, draft)
  if loss.has('pairwise_loss') and not draft.is_compatible:
    block = loss.node('pairwise_loss')
    draft.set('objective.pairwise_margin', block.get('margin'))
    block.change('margin', note='objective.pairwise_margin')
    _set_session(block, draft, sessions)
    block.refuse('temperature', note='all terms share objective.temperature')
  loss.take(note='DropoutNet of EasyRec never reads it, nor does this')


def _settle_names(loss: ledger.Node, draft: draft_lib.Draft) -> None:
  loss.take('loss_name', note='a name for logs')
  if draft.is_compatible:
    loss.take('learn_loss_weight', note='DropoutNet of EasyRec never reads it')
  elif loss.get('learn_loss_weight'):
    draft.set('objective.learn_weights', True)
    loss.change('learn_loss_weight', note='objective.learn_weights, of all')
  loss.take('learn_loss_weight', note='weights are fixed')


def _set_session(
    block: ledger.Node, draft: draft_lib.Draft, sessions: list[str]
) -> None:
  if block.has('session_name'):
    sessions.append(block.get('session_name'))
    draft.set('objective.pairwise_within', 'session')
    block.change(
        'session_name',
        note='data.tables.session_id, objective.pairwise_within',
    )


def _set_other(
    loss: ledger.Node,
    kind: str,
    weights: dict[str, float],
    draft: draft_lib.Draft,
    sessions: list[str],
) -> None:
  """A loss that EasyRec skips: left out, or what it was meant to be."""
  if kind not in _MEANT:
    loss.refuse(note=f'{_SKIPPED}, and there is none like it here')
    return
  term, name = _MEANT[kind]
  if draft.is_compatible:
    loss.take(
        note=f'{_SKIPPED}, so it is left out; under --base_profile=default it '
        f'is objective.{term}'
    )
    return
  if term in weights:
    loss.refuse(note=f'objective.{term} is one loss, and another one is it')
    return
  weights[term] = loss.get('weight')
  loss.change(
      'loss_type', 'weight', note=f'objective.{term} counts; {_SKIPPED}'
  )
  _settle_names(loss, draft)
  block = loss.node(name)
  if term == 'pointwise':
    draft.set('objective.focal_gamma', block.get('gamma'))
    draft.set('objective.focal_alpha', block.get('alpha'))
    draft.set('objective.label_smoothing', block.get('label_smoothing'))
    block.take('gamma', 'alpha', note='objective.focal_gamma, focal_alpha')
    block.take('label_smoothing', note='objective.label_smoothing')
    block.refuse('ohem_ratio', note='all rows count')
    return
  draft.set('objective.pairwise_kind', _KINDS[kind])
  _set_pairs(kind, block, draft)
  _set_session(block, draft, sessions)
  block.refuse('temperature', note='all terms share objective.temperature')
  block.refuse(note='there is no such option')


def _set_pairs(kind: str, block: ledger.Node, draft: draft_lib.Draft) -> None:
  draft.set('objective.hard_ratio', block.get('ohem_ratio'))
  block.take('ohem_ratio', note='objective.hard_ratio')
  if kind == 'PAIRWISE_FOCAL_LOSS':
    block.refuse('gamma', 'alpha', note='the focus on wrong pairs is squared')
    block.refuse(
        'hinge_margin', note='pairs with a margin count too; hard_ratio < 1'
    )
    return
  if block.get('use_label_margin'):
    draft.set('objective.pairwise_label_margin', True)
  else:
    name = 'margin' if kind == 'PAIRWISE_HINGE_LOSS' else 'hinge_margin'
    draft.set('objective.pairwise_margin', block.get(name))
  block.take(
      'use_label_margin',
      *(['margin'] if kind == 'PAIRWISE_HINGE_LOSS' else ['hinge_margin']),
      note='objective.pairwise_label_margin or pairwise_margin',
  )


def _set_softmax(
    model: ledger.Node, draft: draft_lib.Draft, is_used: bool, path: str
) -> None:
  """Parameters of the softmax, which stand in the dropoutnet block."""
  block = model.node('dropoutnet').node('softmax_loss')
  if not is_used:
    block.take(note='no softmax among the losses')
    return
  if not model.node('dropoutnet').has('softmax_loss'):
    raise errors.UserError(
        f'{path}: losses has SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING, but '
        'model_config.dropoutnet has no softmax_loss, which says how many '
        'negatives. Add it there; one within losses is not read.'
    )
  number, gamma = block.get('num_negative_samples'), block.get('gamma')
  if not number or gamma <= 0:
    raise errors.UserError(
        f'{path}: model_config.dropoutnet.softmax_loss: num_negative_samples '
        f'is {number} and gamma {gamma}; both must be above 0.'
    )
  draft.set('objective.num_negatives', number)
  block.take('num_negative_samples', note='objective.num_negatives')
  draft.set('objective.margin', block.get('margin'))
  block.take('margin', note='objective.margin')
  t = block.get('coefficient_of_support_vector')
  draft.set('objective.support_vector', t)
  block.take('coefficient_of_support_vector', note='objective.support_vector')
  if draft.is_compatible:
    if gamma != 1:
      draft.set('objective.softmax_temperature', float(f'{1 / gamma:.6g}'))
    block.take('gamma', note='objective.softmax_temperature, 1 / gamma')
  else:
    if gamma != 1:
      draft.set(
          'objective.temperature',
          float(f'{1 / gamma:.6g}'),
          'The learnt scale of all terms starts at gamma.',
      )
    block.change(
        'gamma', note='objective.temperature; the scale is learnt from there'
    )


def _set_strategy(
    model: ledger.Node, draft: draft_lib.Draft, num_terms: int
) -> None:
  strategy: Any = model.get('loss_weight_strategy')
  verdict: Callable[..., None] = model.take
  note = 'weights are fixed; DropoutNet of EasyRec never reads it'
  if strategy == 'Uncertainty' and not draft.is_compatible and num_terms > 1:
    draft.set('objective.learn_weights', True)
    verdict, note = model.change, 'objective.learn_weights'
  elif strategy == 'Random' and not draft.is_compatible:
    verdict, note = model.refuse, 'weights are not drawn; they are fixed'
  verdict('loss_weight_strategy', note=note)
