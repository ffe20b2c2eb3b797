# SPDX-License-Identifier: Apache-2.0
"""Whether labelled rows can teach what the objective asks of them.

A term over nothing is 0, which looks like a perfect one; before the first step
each is refused that no batch could ever give a row, with what was found.
"""

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.training import label_tables


def check(
    cfg: config.Config,
    rows: schema.Interactions,
    likes: schema.Interactions,
    num_users: int,
) -> None:
  """Refuses terms and options that have nothing to learn from.

  Args:
    cfg: the experiment; without pairing 'interactions' all is well.
    rows: labelled training rows.
    likes: training pairs.
    num_users: of the data set.

  Raises:
    UserError: naming the first field, what the rows lack and what to do.
  """
  if cfg.objective.pairing != 'interactions':
    return
  _check_sessions(cfg, rows)
  if rows.weight is not None:
    rows = rows.select(rows.weight > 0)
    if not len(rows):
      raise errors.UserError(
          f'Every training row of {cfg.data.name} has weight 0: no term of '
          'config.objective, the teacher among them, has anything to learn '
          'from. Give rows a weight above 0, or leave the column of weights '
          "out (config.data.tables.weight='')."
      )
  _check_labels(cfg, rows)
  if cfg.objective.pairwise:
    _check_pairs(cfg, rows)
  if cfg.objective.num_impressions:
    _check_shown(cfg, rows, likes, num_users)
  for term in ('softmax', 'in_batch_softmax'):
    if getattr(cfg.objective, term):
      _check_negatives(cfg, term, rows, likes)


def _check_sessions(cfg: config.Config, rows: schema.Interactions) -> None:
  if cfg.objective.pairwise_within == 'session' and rows.session is None:
    raise errors.UserError(
        "config.objective.pairwise_within is 'session', but the rows of "
        f'{cfg.data.name} have no sessions. Name their column in '
        "config.data.tables.session_id, or use 'user'."
    )


def _check_labels(cfg: config.Config, rows: schema.Interactions) -> None:
  label = label_tables.labels(rows)
  if cfg.objective.pointwise and label.max(initial=0) > 1:
    raise errors.UserError(
        f'config.objective.pointwise is {cfg.objective.pointwise}, but labels '
        f'of {cfg.data.name} go up to {label.max():g}: a probability is learnt '
        'from labels from 0 to 1. Set it to 0 and use objective.pairwise, '
        'which takes any, or give labels from 0 to 1.'
    )
  if not label.any() and set(cfg.objective.terms()) != {'teacher'}:
    raise errors.UserError(
        f'{cfg.data.name} has no training row of a weight above 0 with a '
        'reaction (a label above 0): there is nothing to learn from.'
    )
  if not label.all():
    return
  for name in ('pointwise', 'pairwise'):
    value = getattr(cfg.objective, name)
    differ = name == 'pairwise' and label.min() < label.max()
    if value and not differ:
      raise errors.UserError(
          f'config.objective.{name} is {value}, but '
          f'every training row of {cfg.data.name} is a reaction: without rows '
          'of label 0 (shown, no reaction) this loss has no signal. Set it to '
          '0 and use objective.softmax or in_batch_softmax, whose negatives '
          'come from the batch, or train on data with impressions.'
      )


def _check_pairs(cfg: config.Config, rows: schema.Interactions) -> None:
  """Whether any two rows that may be a pair have different labels."""
  within, label = cfg.objective.pairwise_within, label_tables.labels(rows)
  if within == 'batch':
    return
  group = rows.user if within == 'user' else label_tables.sessions(rows)
  order = np.lexsort((label, group))
  group, label = group[order], label[order]
  same = group[1:] == group[:-1]
  if not np.any(same & (label[1:] != label[:-1])):
    raise errors.UserError(
        f'config.objective.pairwise_within is {within!r}, but no {within} of '
        f'{cfg.data.name} has training rows of different labels, so that there '
        "is no pair to learn from. Use 'batch', or set config.objective."
        'pairwise to 0.'
    )


def _check_shown(
    cfg: config.Config,
    rows: schema.Interactions,
    likes: schema.Interactions,
    num_users: int,
) -> None:
  """Whether anybody who likes something was shown something in vain."""
  shown = label_tables.shown_in_vain(rows, likes, num_users)
  if not np.any(shown.count[likes.user]):
    raise errors.UserError(
        f'config.objective.num_impressions is {cfg.objective.num_impressions}, '
        f'but no user of {cfg.data.name} with a reaction has a training row of '
        'label 0 (shown, no reaction) of an item that she does not like. Set '
        'it to 0, or train on data with impressions.'
    )


def _check_negatives(
    cfg: config.Config,
    term: str,
    rows: schema.Interactions,
    likes: schema.Interactions,
) -> None:
  """Whether some reaction has another item that it can be compared with."""
  settings = cfg.objective
  others = settings.num_sampled or (
      settings.num_negatives or term == 'in_batch_softmax'
  )
  if not others or not settings.mask_same_item and not settings.mask_known:
    return  # impressions have been looked at; or any row will do
  items = np.unique(rows.item)
  known = np.bincount(likes.user, np.isin(likes.item, items))
  user = rows.user[label_tables.labels(rows) > 0]
  masked = known[user] if settings.mask_known else np.ones(len(user))
  with_shown = term == 'softmax' and settings.num_impressions > 0
  if with_shown or np.any(masked < len(items)):
    return
  reason, advice = 'which is that of every reaction', ''
  if len(items) > 1:
    reason = 'and every user with a reaction likes all of them'
    advice = ', or set config.objective.mask_known to False'
  raise errors.UserError(
      f'config.objective.{term} is {getattr(settings, term)}, but there is '
      'nothing to compare a reaction with: the training rows of '
      f'{cfg.data.name} have {len(items):,} item(s), {reason}. Train on more '
      f'items{advice}.'
  )
