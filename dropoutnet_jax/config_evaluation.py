# SPDX-License-Identifier: Apache-2.0
"""Settings of what is measured, and beside which simple methods.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses

from dropoutnet_jax import checks

METRIC_VARIANTS = ('recall_min', 'precision', 'pooled_recall')
BASELINES = (
    'random',
    'popularity',
    'content_knn',
    'content_ridge',
    'linear_content',
    'teacher',
)
# Not in every table: EASE needs a Gram matrix of users or of items; the other
# has seen the answers, and is a bound.
MORE_BASELINES = ('ease', 'ideal_popularity')


@dataclasses.dataclass
class EvaluationConfig:
  """Metrics and baselines of the tables."""

  cutoffs: tuple[int, ...] = (20, 100)  # K of recall, NDCG and hit rate
  # Variants that others publish: 'recall_min' (hits / min(K, relevant)),
  # 'precision', 'pooled_recall' (over all users together, as in ColdRec).
  more_metrics: tuple[str, ...] = ()
  # Of test sets beside means (evaluation/details.py): bootstrap intervals over
  # users from so many draws, 0 for none; means by slices of users and items;
  # and what lists of cold and other items together hold.
  bootstrap: int = 1000
  slices: bool = True
  mixed: bool = True
  baselines: tuple[str, ...] = BASELINES  # and MORE_BASELINES
  # Content ridge: tried on held-out training rows, the best is reported.
  ridge_lambdas: tuple[float, ...] = (1.0, 3.0, 10.0)
  ridge_smoothings: tuple[float, ...] = (0.0, 3.0)
  ridge_smoothing_l2: float = 100.0
  ease_l2: float = 100.0
  # Interactions of each new row that the points of the warm-up curve show.
  warm_up_counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20)
  warm_up_users: int = 1000  # ranked at each point, drawn at random; 0 is all
  # Calibrates how sure scores of new items are, into exploring.json.
  exploring: bool = False
  threshold: float = 0.5  # probability, of precision and recall of labels
  users_per_chunk: int = 512  # bounds the memory of a block of scores

  def validate(self) -> None:
    checks.check(
        bool(self.cutoffs), 'evaluation.cutoffs', self.cutoffs, 'not empty'
    )
    for cutoff in self.cutoffs:
      checks.check_at_least('evaluation.cutoffs', cutoff, 1)
    for name in self.baselines:
      known = BASELINES + MORE_BASELINES
      checks.check_choice('evaluation.baselines', name, known)
    for name in self.more_metrics:
      checks.check_choice('evaluation.more_metrics', name, METRIC_VARIANTS)
    checks.check_at_least('evaluation.bootstrap', self.bootstrap, 0)
    for field in ('ridge_lambdas', 'ridge_smoothings'):
      value = getattr(self, field)
      checks.check(bool(value), f'evaluation.{field}', value, 'not empty')
    for value in self.ridge_lambdas:
      checks.check_at_least('evaluation.ridge_lambdas', value, 1e-6)
    for value in self.ridge_smoothings:
      checks.check_at_least('evaluation.ridge_smoothings', value, 0)
    checks.check_at_least(
        'evaluation.ridge_smoothing_l2', self.ridge_smoothing_l2, 1e-6
    )
    checks.check_at_least('evaluation.ease_l2', self.ease_l2, 1e-6)
    checks.check_rate('evaluation.threshold', self.threshold)
    for count in self.warm_up_counts:
      checks.check_at_least('evaluation.warm_up_counts', count, 0)
    checks.check_at_least('evaluation.warm_up_users', self.warm_up_users, 0)
    checks.check_at_least('evaluation.users_per_chunk', self.users_per_chunk, 1)
