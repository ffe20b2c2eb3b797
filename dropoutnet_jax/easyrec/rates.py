# SPDX-License-Identifier: Apache-2.0
"""Learning rates of EasyRec as schedules of `train`."""

from collections.abc import Callable

from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import ledger

_BASE = {
    'constant_learning_rate': 'learning_rate',
    'exponential_decay_learning_rate': 'initial_learning_rate',
    'manual_step_learning_rate': 'initial_learning_rate',
    'cosine_decay_learning_rate': 'learning_rate_base',
    'poly_decay_learning_rate': 'learning_rate_base',
    'transformer_learning_rate': 'learning_rate_base',
}


def base_rate(node: ledger.Node) -> float:
  """The rate that a schedule starts at or rises to; 0 without one."""
  kind = node.which('kind')
  return node.node(kind).get(_BASE[kind]) if kind else 0.0


def convert(node: ledger.Node, draft: draft_lib.Draft) -> float:
  """Sets rate and schedule; returns the rate."""
  kind = node.which('kind')
  if not kind:
    return draft.cfg.train.learning_rate
  options = node.node(kind)
  rate = base_rate(node)
  draft.set('train.learning_rate', rate)
  options.take(_BASE[kind], note='train.learning_rate')
  _SCHEDULES[kind](options, draft, rate)
  return rate


def _constant(node: ledger.Node, draft: draft_lib.Draft, rate: float) -> None:
  del node, rate
  draft.set('train.schedule', 'constant')


def _exponential(
    node: ledger.Node, draft: draft_lib.Draft, rate: float
) -> None:
  is_stairs = node.get('staircase')
  draft.set('train.schedule', 'piecewise' if is_stairs else 'exponential')
  node.take('staircase', note="train.schedule 'piecewise', or 'exponential'")
  draft.set('train.decay_every', node.get('decay_steps'))
  draft.set('train.decay_rate', node.get('decay_factor'))
  node.take('decay_steps', 'decay_factor', note='train.decay_every, decay_rate')
  _set_end(node, 'min_learning_rate', draft, rate)
  if node.get('burnin_steps') and node.get('burnin_learning_rate'):
    _set_warm_up(node, 'burnin_steps', 'burnin_learning_rate', draft)
  elif node.get('burnin_steps'):
    node.refuse(
        'burnin_steps',
        note='a rate that waits before it decays: train.boundaries says when',
    )
  node.take('burnin_steps', 'burnin_learning_rate', note='no warm-up')


def _manual(node: ledger.Node, draft: draft_lib.Draft, rate: float) -> None:
  steps = node.nodes('schedule')
  boundaries = tuple(one.get('step') for one in steps)
  multiples: tuple[float, ...] = ()
  if rate:  # 0 is refused with the other settings
    multiples = tuple(
        float(f'{one.get("learning_rate") / rate:.6g}') for one in steps
    )
  draft.set('train.schedule', 'piecewise' if steps else 'constant')
  draft.set('train.boundaries', boundaries)
  draft.set('train.multiples', multiples)
  node.take('schedule', note='train.boundaries, train.multiples')
  if node.get('warmup'):
    node.refuse(
        'warmup', note='set train.warmup_steps; the rate then rises from 0'
    )
  node.take('warmup', note='no warm-up')


def _cosine(node: ledger.Node, draft: draft_lib.Draft, rate: float) -> None:
  del rate
  draft.set('train.schedule', 'cosine')
  total, steps = node.get('total_steps'), draft.cfg.train.num_steps
  if total == steps:
    node.take('total_steps', note='the whole run')
  else:
    draft.comments['train.schedule'] = (
        f'Over the whole run; EasyRec: over {total:,} steps.'
    )
    node.change('total_steps', note='the rate falls over train.num_steps')
  # 10,000 where the file is silent, which would be all of a short run.
  if node.has('warmup_steps') and node.get('warmup_steps'):
    _set_warm_up(node, 'warmup_steps', 'warmup_learning_rate', draft)
  node.take('warmup_steps', 'warmup_learning_rate', note='no warm-up')
  if node.get('hold_base_rate_steps'):
    node.refuse(
        'hold_base_rate_steps', note='the rate falls as soon as it is warm'
    )
  node.take('hold_base_rate_steps', note='none')


def _polynomial(node: ledger.Node, draft: draft_lib.Draft, rate: float) -> None:
  draft.set('train.schedule', 'polynomial')
  draft.set('train.power', node.get('power') or 1.0)
  node.take('power', note='train.power')
  _set_end(node, 'end_learning_rate', draft, rate)
  if node.get('total_steps') == draft.cfg.train.num_steps:
    node.take('total_steps', note='the whole run')
  node.change('total_steps', note='the rate falls over train.num_steps')


def _transformer(
    node: ledger.Node, draft: draft_lib.Draft, rate: float
) -> None:
  del rate
  draft.set(
      'train.schedule',
      'constant',
      'EasyRec: transformer_learning_rate. Look at the rate again.',
  )
  node.refuse(
      'hidden_size',
      'warmup_steps',
      'step_scaling_rate',
      note='no schedule falls by the root of the steps; choose a rate, '
      "and 'polynomial' with train.warmup_steps",
  )


def _set_end(
    node: ledger.Node, name: str, draft: draft_lib.Draft, rate: float
) -> None:
  share = min(node.get(name) / rate, 1.0) if rate else 0.0
  draft.set('train.end_share', float(f'{share:.6g}'))
  node.take(name, note='train.end_share, of learning_rate')


def _set_warm_up(
    node: ledger.Node, steps: str, first: str, draft: draft_lib.Draft
) -> None:
  draft.set('train.warmup_steps', node.get(steps))
  node.take(steps, note='train.warmup_steps')
  if node.get(first):
    draft.comments['train.warmup_steps'] = (
        f'From 0; EasyRec: from {node.get(first):g}.'
    )
    node.change(first, note='a warm-up rises from 0')


_SCHEDULES: dict[str, Callable[[ledger.Node, draft_lib.Draft, float], None]] = {
    'constant_learning_rate': _constant,
    'exponential_decay_learning_rate': _exponential,
    'manual_step_learning_rate': _manual,
    'cosine_decay_learning_rate': _cosine,
    'poly_decay_learning_rate': _polynomial,
    'transformer_learning_rate': _transformer,
}
