# SPDX-License-Identifier: Apache-2.0
"""The preference of a row that is told of after training, from its history.

Where the run's own teacher made the factors, it folds the history in: one exact
half-step with the other side fixed, which gives rows of the training what they
have. Otherwise the preference is the transform of Algorithm 1, the mean over
the history. Either way, where the row is new, the usual row counts as a few,
and it is trusted by and by (`features.history_smoothing`).
"""

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import fold_in
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.serving import rows as rows_lib

_OTHER = {'user': 'item', 'item': 'user'}


def can_fold_in(cfg: config.Config) -> bool:
  """Whether preferences are factors that the teacher of the run has made."""
  # Factors from elsewhere were not fitted with these settings.
  return cfg.features.preference == 'factors' and cfg.teacher.source == 'als'


def preference(
    cfg: config.Config,
    problem: problem_lib.Problem,
    tables: tables_lib.Tables,
    side: str,
    histories: scipy.sparse.csr_array,
    is_new: np.ndarray,
    fold: fold_in.FoldIn | None = None,
) -> tables_lib.Told:
  """Preferences of rows with these histories, scaled as the run's own.

  Args:
    cfg: of the run.
    problem: of the run, for the teacher's factors.
    tables: of the run, for its scalers.
    side: of the rows, 'user' or 'item'.
    histories: csr_array float32 [C, M], weights of rows of the other side.
    is_new: bool [C], rows of which training had no history.
    fold: of the other side's factors, for whoever asks again and again.

  Returns:
    Preferences, zero where not present: a history of rows that have no factors
    themselves says nothing.
  """
  table = getattr(tables, side)
  count = histories.shape[0]
  histories = blocks.with_empty_rows(
      scipy.sparse.csr_array(histories), rows_lib.padded_size(count)
  )
  new = np.append(is_new, np.ones(histories.shape[0] - count, bool))
  if can_fold_in(cfg):
    factors = getattr(problem.factors, _OTHER[side])
    fold = fold or fold_in.make(factors, cfg.teacher)
    told = table.folded_in(fold(histories), histories, factors, new)
  else:
    factors = np.asarray(getattr(tables, _OTHER[side]).factors)
    used = np.unique(histories.indices)  # few, where few rows are asked about
    met = scipy.sparse.csr_array(histories[:, used])
    told = table.history_means(met, factors[used], new)
  return tables_lib.Told(*(part[:count] for part in told))
