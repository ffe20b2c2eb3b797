# SPDX-License-Identifier: Apache-2.0
"""train_config, eval_config and export_config as settings of a run."""

from collections.abc import Sequence

from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import ledger
from dropoutnet_jax.easyrec import rates

# Optimiser of EasyRec, what it is here, and what changes if anything.
_OPTIMIZERS = {
    'adam_optimizer': ('adam', ''),
    'lazy_adam_optimizer': ('adam', ''),  # of tables: see _of_tables
    'adam_async_optimizer': ('adam', 'updates are synchronous'),
    'adamw_optimizer': ('adamw', ''),
    'adam_asyncw_optimizer': ('adamw', 'updates are synchronous'),
    'momentum_optimizer': ('sgd', ''),
    'momentumw_optimizer': ('sgd', ''),
    'rms_prop_optimizer': ('rmsprop', ''),
    'adagrad_optimizer': ('adagrad', ''),
}
_PLACEMENT = (
    'sync_replicas',
    'sparse_accumulator_type',
    'startup_delay_steps',
    'train_distribute',
    'num_gpus_per_worker',
    'protocol',
    'inter_op_parallelism_threads',
    'intra_op_parallelism_threads',
    'tensor_fuse',
)


def convert(root: ledger.Node, draft: draft_lib.Draft) -> None:
  """Everything about how is trained and when something is written."""
  train = root.node('train_config')
  data = root.node('data_config')
  draft.set('train.batch_size', data.get('batch_size'))
  data.take('batch_size', note='train.batch_size')
  _set_length(train, draft)
  _set_optimizers(train.nodes('optimizer_config'), draft)
  draft.set('train.gradient_clip', train.get('gradient_clipping_by_norm'))
  train.take('gradient_clipping_by_norm', note='train.gradient_clip')
  _set_intervals(train, draft)
  train.change(
      *_PLACEMENT,
      note='one program runs on all devices and updates at once (BUILD.md)',
  )
  train.refuse(
      'fine_tune_checkpoint',
      'fine_tune_ckpt_var_map',
      'force_restore_shape_compatible',
      note='checkpoints of TensorFlow are not read; train.warm_start starts '
      'from another run',
  )
  train.refuse(
      'freeze_gradient',
      note='parameters have other names: train.freeze, such as item_tower/.*',
  )
  train.refuse(
      'enable_oss_stop_signal',
      'dead_line',
      note='a run is saved when it gets SIGTERM, and goes on later',
  )
  train.change('is_profiling', note='--profile writes a trace of the device')
  train.change(
      'summary_model_vars', 'write_graph', note='metrics alone are logged'
  )
  _settle_evaluation(root.node('eval_config'), draft)
  _set_export(root.node('export_config'), draft)


def _set_length(train: ledger.Node, draft: draft_lib.Draft) -> None:
  steps = train.get('num_steps')
  if steps:
    draft.set('train.num_steps', steps)
    train.take('num_steps', note='train.num_steps')
  else:
    draft.set('train.num_steps', draft.cfg.train.num_steps)
    train.change('num_steps', note='0 is no end; train.num_steps is a number')


def _set_intervals(train: ledger.Node, draft: draft_lib.Draft) -> None:
  train.take('log_step_count_steps', note='train.log_every')
  draft.set('train.log_every', max(train.get('log_step_count_steps'), 1))
  every = train.get('save_checkpoints_steps') or 1000
  draft.set('train.checkpoint_every', every)
  train.take('save_checkpoints_steps', note='train.checkpoint_every')
  train.refuse(
      'save_checkpoints_secs', note='steps count: train.checkpoint_every'
  )
  draft.set('train.keep_checkpoints', max(train.get('keep_checkpoint_max'), 1))
  train.take('keep_checkpoint_max', note='train.keep_checkpoints')
  train.change('save_summary_steps', note='train.log_every is of both')


def _set_optimizers(
    nodes: Sequence[ledger.Node], draft: draft_lib.Draft
) -> None:
  """The last one is of the network, one before it of the embeddings."""
  if not nodes:
    return
  has_tables = draft.cfg.features.has_embeddings
  rate = _set_one(nodes[-1], draft)
  lazy = _of_tables(nodes[-1], nodes[-1])
  if has_tables and lazy == 'lazy_adam' and len(nodes) == 1:
    draft.set('train.embedding_optimizer', lazy)
  multiplier = nodes[-1].get('embedding_learning_rate_multiplier')
  if nodes[-1].has('embedding_learning_rate_multiplier') and has_tables:
    draft.set('train.embedding_learning_rate', rate * multiplier)
  nodes[-1].take(
      'embedding_learning_rate_multiplier',
      note='train.embedding_learning_rate, a multiple of the other',
  )
  for node in nodes[:-2]:
    node.refuse(note='two optimisers are there: of embeddings, and of the rest')
  if len(nodes) > 1:
    first = nodes[-2]
    kind, name = first.which('kind'), _of_tables(first, nodes[-1])
    if has_tables and name:
      draft.set('train.embedding_optimizer', name)
      base = rates.base_rate(first.node(kind).node('learning_rate'))
      draft.set('train.embedding_learning_rate', base)
      first.node(kind).node('learning_rate').change(
          note='train.embedding_learning_rate; one schedule is of both'
      )
      first.node(kind).change(
          note='options are those of the other optimiser, by default'
      )
    first.refuse(note='there is nothing that it would train')


def _of_tables(node: ledger.Node, last: ledger.Node) -> str:
  """What an optimiser of EasyRec is for tables of embeddings; '' for none.

  A moving average, which the last one has, is of all rows in every step; there
  Adam moves rows that a batch does not look up too, for a while.
  """
  kind = node.which('kind')
  if kind == 'lazy_adam_optimizer' and not last.get('use_moving_average'):
    return 'lazy_adam'
  return _OPTIMIZERS.get(kind, ('', ''))[0]


def _set_one(node: ledger.Node, draft: draft_lib.Draft) -> float:
  """An optimiser with its rate; returns the rate."""
  kind = node.which('kind')
  options = node.node(kind) if kind else node
  name, change = _OPTIMIZERS.get(kind, ('adagrad', ''))
  if kind == 'ftrl_optimizer':
    options.refuse(
        'learning_rate_power',
        'initial_accumulator_value',
        'l1_reg',
        'l2_reg',
        'l2_shrinkage_reg',
        note='FTRL is not there; adagrad is the nearest',
    )
    draft.comments['train.optimizer'] = 'EasyRec: FTRL, which is not there.'
  draft.set('train.optimizer', name, f'EasyRec: {change}.' if change else '')
  if name in ('adam', 'adamw') and kind:
    draft.set('train.momentum', options.get('beta1'))
    if options.get('beta2') != 0.999:
      draft.set('train.beta2', options.get('beta2'))
    options.take('beta1', 'beta2', note='train.momentum, train.beta2')
  if name == 'adamw':
    draft.set('train.weight_decay', options.get('weight_decay'))
    options.change(
        'weight_decay',
        note='train.weight_decay; tables of embeddings have none',
    )
  if name in ('sgd', 'rmsprop'):
    draft.set('train.momentum', options.get('momentum_optimizer_value'))
    options.take('momentum_optimizer_value', note='train.momentum')
  if name == 'rmsprop':
    draft.set('train.beta2', options.get('decay'))
    draft.set('train.epsilon', options.get('epsilon'))
    options.take('decay', 'epsilon', note='train.beta2, train.epsilon')
  if kind == 'momentumw_optimizer':
    options.refuse(
        'weight_decay', note='sgd has none; adamw and lamb have (weight_decay)'
    )
  options.take('weight_decay', note='this optimiser has none')
  if kind == 'adagrad_optimizer':
    value = options.get('initial_accumulator_value')
    draft.set('train.accumulator', value)
    options.take('initial_accumulator_value', note='train.accumulator')
  if node.get('use_moving_average'):
    draft.set('train.ema', node.get('moving_average_decay'))
  node.take('use_moving_average', 'moving_average_decay', note='train.ema')
  if not kind:
    return draft.cfg.train.learning_rate
  return rates.convert(options.node('learning_rate'), draft)


def _settle_evaluation(node: ledger.Node, draft: draft_lib.Draft) -> None:
  cutoffs = []
  for metric in node.nodes('metrics_set'):
    kind = metric.which('metric')
    if kind in ('auc', 'accuracy', 'precision', 'recall'):
      note = 'reported of labelled rows, at evaluation.threshold'
      if kind == 'accuracy':
        metric.refuse(note='log loss and calibration stand for it')
      elif kind == 'auc':
        metric.node('auc').change(
            'num_thresholds', note='AUC is exact, without thresholds'
        )
        metric.take(note='reported of labelled rows')
      metric.take(note=note)
    elif kind in ('gauc', 'session_auc'):
      metric.node(kind).change(
          'reduction', note='groups weigh as much as their rows'
      )
      metric.take(note='reported as gauc and session_gauc')
    elif kind in ('recall_at_topk', 'precision_at_topk'):
      cutoffs.append(metric.node(kind).get('topk'))
      metric.change(
          note='evaluation.cutoffs, over all candidates instead of a batch'
      )
    else:
      metric.refuse(note='AUC, log loss and rankings are reported instead')
  if cutoffs:
    found = (*draft.cfg.evaluation.cutoffs, *cutoffs)
    draft.set('evaluation.cutoffs', tuple(sorted(set(found))))
  node.change('num_examples', note='all that is held out is evaluated')
  node.change(
      'eval_interval_secs',
      'max_evals',
      'eval_online',
      note='train.eval_every counts steps',
  )
  node.take('save_graph', note='there is no graph')


def _set_export(node: ledger.Node, draft: draft_lib.Draft) -> None:
  """Which checkpoint counts, and when is stopped."""
  every = min(draft.cfg.train.checkpoint_every, draft.cfg.train.num_steps)
  if node.get('exporter_type') == 'best' or node.get('enable_early_stop'):
    # EasyRec evaluates the checkpoints that it saves.
    draft.set('train.eval_every', every)
  if node.get('exporter_type') == 'best':
    metric = node.get('best_exporter_metric')
    if metric in ('auc', 'gauc'):
      draft.set(
          'train.select_by',
          f'warm/{metric}',
          'Of known users and items; cold_item is what is new.',
      )
      node.take('best_exporter_metric', note='train.select_by')
    else:
      node.refuse(
          'best_exporter_metric',
          note='the mean NDCG selects; train.select_by names another metric',
      )
  node.take('best_exporter_metric', note='the best checkpoint is kept')
  node.change(
      'exporter_type',
      note='the best checkpoint is kept; a run folder is a model',
  )
  if node.get('enable_early_stop'):
    patience = max(node.get('max_check_steps') // every, 1)
    draft.set('train.patience', patience)
  node.take('enable_early_stop', 'max_check_steps', note='train.patience')
  node.refuse(
      'early_stop_func',
      'early_stop_params',
      note="functions of one's own are not run; train.patience stops",
  )
  if node.has('metric_bigger') and not node.get('metric_bigger'):
    node.refuse('metric_bigger', note='train.select_by knows what is better')
  node.take('metric_bigger', note='train.select_by knows what is better')
  node.change(note='nothing is exported; `run.py recommend` reads the folder')
