# SPDX-License-Identifier: Apache-2.0
"""Settings that nothing reads under the others: no error, but worth a note.

A comparison turns terms off and leaves their options; a person who sets a
margin and forgets the loss wants to hear of it.
"""

from collections.abc import Callable
import dataclasses
import functools
import operator
from typing import NamedTuple

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import config_objective
from dropoutnet_jax import config_tree
from dropoutnet_jax import profiles


class Reader(NamedTuple):
  """Fields, and what reads them.

  Attributes:
    fields: dotted names.
    name: of the readers, for the note.
    reads: whether a configuration has one of them.
  """

  fields: tuple[str, ...]
  name: str
  reads: Callable[[config_lib.Config], bool]


_SECOND_KERNEL = tuple(
    'second_width second_weight factor_regularization predicted_weight '
    'norm_power'.split()
)
_EXPECTED = 'expected_regularization', 'expected_power', 'expected_smoothing'
_SPARSE = tuple(
    field.name
    for field in dataclasses.fields(config_lib.SparseConfig)
    if field.name not in ('enabled', *_SECOND_KERNEL, *_EXPECTED)
)
_Test = Callable[[config_lib.Config], bool]


def _one_of(field: str, *values: str) -> _Test:
  return lambda cfg: operator.attrgetter(field)(cfg) in values


_pairing = functools.partial(_one_of, 'objective.pairing')
_tower = functools.partial(_one_of, 'model.tower')
_schedule = functools.partial(_one_of, 'train.schedule')
_split = functools.partial(_one_of, 'data.split')


def _has_preference(cfg: config_lib.Config) -> bool:
  return cfg.features.preference != 'none'


def _term(*names: str) -> _Test:
  return lambda cfg: any(getattr(cfg.objective, name) for name in names)


def _optimizer(*names: str) -> _Test:
  return lambda cfg: bool(
      {cfg.train.optimizer, cfg.train.embedding_optimizer} & set(names)
  )


def _in(section: str, *names: str) -> tuple[str, ...]:
  return tuple(f'{section}.{name}' for name in names)


READERS = (
    Reader(
        _in('data.tables', 'time', 'session_id'),
        "data.mode 'resident'",
        lambda cfg: cfg.data.mode == 'resident',
    ),
    Reader(
        _in('data', 'cold_item_share', 'cold_user_share'),
        "data.split 'random'",
        _split('random'),
    ),
    Reader(
        ('data.warm_share',),
        "data.split 'random' or 'time'",
        _split('random', 'time'),
    ),
    Reader(
        ('data.validation_share',),
        "a published data.split with data.validation 'keep_out'",
        lambda cfg: cfg.data.split.startswith('published')
        and cfg.data.validation == 'keep_out',
    ),
    Reader(
        _in(
            'data.synthetic',
            'num_users',
            'num_items',
            'likes_per_user',
            'content_strength',
            'seed',
        ),
        "data.name 'synthetic'",
        lambda cfg: cfg.data.name == 'synthetic',
    ),
    Reader(
        _in('teacher', 'source', 'rank'),
        "objective.teacher, features.preference 'factors', or one of the "
        "evaluation.baselines 'teacher' and 'linear_content'",
        lambda cfg: cfg.needs_teacher,
    ),
    Reader(
        _in(
            'teacher',
            'regularization',
            'confidence',
            'num_iterations',
            'cg_steps',
        ),
        "teacher.source 'als', where a teacher is needed",
        lambda cfg: cfg.needs_teacher and cfg.teacher.source == 'als',
    ),
    Reader(
        _in('teacher', 'user_file', 'item_file'),
        "teacher.source 'file', where a teacher is needed",
        lambda cfg: cfg.needs_teacher and cfg.teacher.source == 'file',
    ),
    Reader(
        _in(
            'dropout',
            'user_rate',
            'item_rate',
            'user_transform_rate',
            'item_transform_rate',
        ),
        "dropout.kind 'independent'",
        lambda cfg: cfg.dropout.kind == 'independent',
    ),
    Reader(
        _in(
            'dropout',
            'drop_user',
            'drop_item',
            'drop_both',
            'user_transform',
            'item_transform',
        ),
        "dropout.kind 'exclusive'",
        lambda cfg: cfg.dropout.kind == 'exclusive',
    ),
    Reader(
        ('dropout.start_share',),
        "dropout.schedule 'linear' or 'cosine'",
        lambda cfg: cfg.dropout.schedule != 'constant',
    ),
    Reader(
        ('model.activation',),
        "model.tower 'modern' or 'groups'",
        _tower('modern', 'groups'),
    ),
    Reader(
        _in('model', 'layer_norm', 'residual_content', 'residual_preference'),
        "model.tower 'modern'",
        _tower('modern'),
    ),
    Reader(
        ('model.scale_embeddings',),
        'a feature with an embedding',
        lambda cfg: cfg.features.has_embeddings,
    ),
    Reader(
        ('model.preference_scaling',),
        "features.preference 'factors' or 'history'",
        _has_preference,
    ),
    Reader(
        ('features.history_smoothing',),
        "features.preference 'factors' or 'history', or a sparse teacher",
        lambda cfg: _has_preference(cfg) or cfg.model.sparse.has_teacher,
    ),
    Reader(
        _in('model.sparse', *_SPARSE),
        'model.sparse.enabled',
        lambda cfg: cfg.model.sparse.enabled,
    ),
    Reader(
        _in('model.sparse', *_SECOND_KERNEL),
        'model.sparse.landmarks',
        lambda cfg: cfg.model.sparse.enabled and cfg.model.sparse.landmarks > 0,
    ),
    Reader(
        _in('model.sparse', *_EXPECTED),
        'model.sparse.expected_weight',
        lambda cfg: cfg.model.sparse.enabled
        and cfg.model.sparse.expected_weight > 0,
    ),
    Reader(
        _in('objective', 'block_users', 'positive_weight'),
        "objective.pairing 'blocks'",
        _pairing('blocks'),
    ),
    Reader(
        _in('objective', 'top_items', 'random_items'),
        "objective.pairing 'published'",
        _pairing('published'),
    ),
    Reader(
        ('objective.target_items',),
        "objective.pairing 'blocks' or 'published'",
        _pairing('blocks', 'published'),
    ),
    Reader(
        ('objective.user_balance',),
        "objective.pairing 'interactions'",
        _pairing('interactions'),
    ),
    Reader(
        ('objective.divide_by',),
        'objective.pointwise, softmax or in_batch_softmax',
        _term('pointwise', 'softmax', 'in_batch_softmax'),
    ),
    Reader(
        ('objective.temperature',),
        'a term on labels',
        _term(*config_objective.LABEL_TERMS),
    ),
    Reader(
        ('objective.learn_scale',),
        'a term on labels with model.normalize',
        lambda cfg: cfg.model.normalize
        and _term(*config_objective.LABEL_TERMS)(cfg),
    ),
    Reader(
        ('objective.scale_bounds',),
        'objective.learn_scale, for a term on labels with model.normalize',
        lambda cfg: cfg.learns_scale,
    ),
    Reader(
        _in('objective', 'mask_known', 'mask_same_item'),
        'objective.softmax or objective.in_batch_softmax',
        _term('softmax', 'in_batch_softmax'),
    ),
    Reader(
        ('objective.log_q',),
        'objective.in_batch_softmax',
        _term('in_batch_softmax'),
    ),
    Reader(
        _in('objective', 'num_negatives', 'support_vector', 'margin')
        + ('objective.softmax_temperature',),
        'objective.softmax',
        _term('softmax'),
    ),
    Reader(
        ('objective.shifts',),
        'objective.softmax with objective.num_negatives',
        lambda cfg: bool(cfg.objective.softmax and cfg.objective.num_negatives),
    ),
    Reader(
        ('objective.support_vector_smoothing',),
        'objective.softmax with objective.support_vector above 1',
        lambda cfg: cfg.objective.softmax > 0
        and cfg.objective.support_vector > 1,
    ),
    Reader(
        ('objective.sampling_power',),
        'objective.num_sampled',
        lambda cfg: cfg.objective.num_sampled > 0,
    ),
    Reader(
        _in('objective', 'label_smoothing', 'focal_gamma', 'focal_alpha'),
        'objective.pointwise',
        _term('pointwise'),
    ),
    Reader(
        _in(
            'objective',
            'pairwise_kind',
            'pairwise_within',
            'pairwise_weights',
            'pairwise_margin',
            'pairwise_label_margin',
            'hard_ratio',
        ),
        'objective.pairwise',
        _term('pairwise'),
    ),
    Reader(
        ('objective.embedding_regularization_by',),
        'objective.embedding_regularization',
        lambda cfg: cfg.objective.embedding_regularization > 0,
    ),
    Reader(
        ('train.momentum',),
        'an optimiser other than adagrad and row_adagrad',
        _optimizer(
            'adam', 'adamw', 'lamb', 'lazy_adam', 'lion', 'rmsprop', 'sgd'
        ),
    ),
    Reader(
        ('train.beta2',),
        'adam, adamw, lamb, lazy_adam, lion or rmsprop',
        _optimizer('adam', 'adamw', 'lamb', 'lazy_adam', 'lion', 'rmsprop'),
    ),
    Reader(
        ('train.epsilon',),
        'adagrad, adam, adamw, lamb, lazy_adam, rmsprop or row_adagrad',
        _optimizer(
            *'adagrad adam adamw lamb lazy_adam rmsprop row_adagrad'.split()
        ),
    ),
    Reader(
        ('train.accumulator',),
        'adagrad or row_adagrad',
        _optimizer('adagrad', 'row_adagrad'),
    ),
    Reader(
        ('train.decay_every',),
        "train.schedule 'exponential' or 'piecewise'",
        _schedule('exponential', 'piecewise'),
    ),
    Reader(
        ('train.decay_rate',),
        "train.schedule 'exponential', or 'piecewise' without train.multiples",
        lambda cfg: _schedule('exponential', 'piecewise')(cfg)
        and not cfg.train.multiples,
    ),
    Reader(
        ('train.power',),
        "train.schedule 'polynomial'",
        _schedule('polynomial'),
    ),
    Reader(
        ('train.end_share',),
        'a train.schedule that is not constant',
        lambda cfg: cfg.train.schedule != 'constant',
    ),
    Reader(
        ('train.embedding_parameters',),
        'train.embedding_optimizer or train.embedding_learning_rate',
        lambda cfg: cfg.train.splits_embeddings,
    ),
    Reader(
        _in('evaluation', 'warm_up_users'),
        'evaluation.warm_up_counts',
        lambda cfg: bool(cfg.evaluation.warm_up_counts),
    ),
    Reader(
        _in(
            'evaluation',
            'ridge_lambdas',
            'ridge_smoothings',
            'ridge_smoothing_l2',
            'ridge_tolerance',
        ),
        "evaluation.baselines with 'content_ridge'",
        lambda cfg: 'content_ridge' in cfg.evaluation.baselines,
    ),
    Reader(
        ('evaluation.ease_l2',),
        "evaluation.baselines with 'ease'",
        lambda cfg: 'ease' in cfg.evaluation.baselines,
    ),
    Reader(
        ('evaluation.threshold',),
        'objective.pointwise, which makes probabilities',
        _term('pointwise'),
    ),
)


def fields(cfg: config_lib.Config) -> dict[str, str]:
  """Fields that differ from their default for nothing, and what reads them.

  What the profile sets counts as a default.
  """
  found = config_tree.fields(cfg)
  default = config_tree.fields(config_lib.Config()) | profiles.values(
      cfg.profile
  )
  return {
      field: reader.name
      for reader in READERS
      if not reader.reads(cfg)
      for field in reader.fields
      if found[field] != default[field]
  }


def notes(cfg: config_lib.Config) -> list[str]:
  """A sentence on each setting that differs from its default for nothing."""
  found = config_tree.fields(cfg)
  return [
      f'Nothing reads config.{field} = {found[field]!r}; {reader} would.'
      for field, reader in fields(cfg).items()
  ]
