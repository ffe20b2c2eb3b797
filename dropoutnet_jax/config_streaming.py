# SPDX-License-Identifier: Apache-2.0
"""What cannot be where interactions are streamed: see `data.mode`.

Part of `config.py`; see there. Rows of interactions are then read as steps need
them, and never all at once, so that nothing may ask for all of them.
"""

from typing import Any

from dropoutnet_jax import checks
from dropoutnet_jax import errors

MODES = ('resident', 'streaming')
# Rows of a call of the device, which are read before it and wait on it.
_MOST_ROWS = 2**23
_BASELINES = ('random', 'popularity', 'linear_content', 'teacher')


def check(cfg: Any) -> None:
  """Raises UserError with all that has to change in a `config.Config`."""
  checks.check_choice('data.mode', cfg.data.mode, MODES)
  if cfg.data.mode == 'resident':
    return
  wanted = [f'{field} {rule}' for field, rule in _conflicts(cfg)]
  if wanted:
    raise errors.UserError(
        "config.data.mode is 'streaming', where rows of interactions are read "
        'as steps need them and never all at once. It wants '
        + '; '.join(wanted)
        + ". Or set config.data.mode to 'resident'."
    )


def _conflicts(cfg: Any) -> list[tuple[str, str]]:
  """Fields that ask for all rows, each with what it must be and why."""
  data, objective, dropout = cfg.data, cfg.objective, cfg.dropout
  transforms = [
      f'dropout.{side}_transform' + '_rate' * (dropout.kind == 'independent')
      for side in ('user', 'item')
  ]
  histories = '(histories of users are not in memory)'
  rows = cfg.train.batch_size * min(
      cfg.train.steps_per_dispatch, cfg.train.num_steps
  )
  others = sorted(set(cfg.evaluation.baselines) - set(_BASELINES))
  cases = [
      (data.name == 'tables', 'data.name', "'tables'"),
      (
          not data.tables.samples,
          'data.tables.samples',
          "'', with a table of interactions and one of each side beside it",
      ),
      (data.split == 'random', 'data.split', "'random'"),
      (
          not data.warm_share,
          'data.warm_share',
          '0 (only whole users and items are held out)',
      ),
      (
          objective.pairing == 'interactions',
          'objective.pairing',
          "'interactions'",
      ),
      (not objective.mask_known, 'objective.mask_known', f'False {histories}'),
      (objective.group_rows == 1, 'objective.group_rows', '1'),
      (
          objective.divide_by == 'weights',
          'objective.divide_by',
          "'weights' (streamed ones have mean 1)",
      ),
      (
          not objective.num_impressions,
          'objective.num_impressions',
          '0 (nor is what they were shown)',
      ),
      (
          objective.pairwise_within != 'session',
          'objective.pairwise_within',
          "'batch' or 'user'",
      ),
      (
          cfg.features.preference != 'history',
          'features.preference',
          f"'factors' or 'none' {histories}",
      ),
      (not cfg.features.statistics, 'features.statistics', 'empty'),
      *(
          (not dropout.uses_history, name, f'0 {histories}')
          for name in transforms
      ),
      (
          not cfg.needs_teacher or cfg.teacher.source == 'file',
          'teacher.source',
          "'file' (ALS looks at all rows), or no need of it "
          "(features.preference 'none', objective.teacher 0 and neither "
          "'teacher' nor 'linear_content' in evaluation.baselines)",
      ),
      (not cfg.model.sparse.enabled, 'model.sparse.enabled', 'False'),
      (
          not others,
          'evaluation.baselines',
          f'without {" and ".join(others)} (they look at all rows)',
      ),
      (
          not cfg.evaluation.mixed,
          'evaluation.mixed',
          'False (who knows which training items is not in memory)',
      ),
      (
          rows <= _MOST_ROWS,
          'train.steps_per_dispatch',
          f'at most {max(_MOST_ROWS // cfg.train.batch_size, 1)} (that many '
          'batches are read ahead together)',
      ),
      (
          cfg.train.batch_size <= _MOST_ROWS,
          'train.batch_size',
          f'at most {_MOST_ROWS:,}',
      ),
  ]
  return [(f'config.{name}', rule) for ok, name, rule in cases if not ok]
