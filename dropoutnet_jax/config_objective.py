# SPDX-License-Identifier: Apache-2.0
"""What is minimised: the terms of the loss, their weights and their pairs."""

import dataclasses

from dropoutnet_jax import checks

# Terms on labels; each has a weight of this name.
LABEL_TERMS = ('pointwise', 'pairwise', 'softmax', 'in_batch_softmax')
PAIRWISE_KINDS = ('logistic', 'hinge', 'focal')


@dataclasses.dataclass
class ObjectiveConfig:
  """Which pairs are scored, against what, and how they are weighted.

  Each term has a weight; 0 removes it.
  """

  teacher: float = 1.0  # regression onto teacher scores
  pointwise: float = 0.0  # logistic loss of each labelled row
  pairwise: float = 0.0  # labelled rows of a batch against each other
  softmax: float = 0.0  # support-vector-guided, against rolled negatives
  in_batch_softmax: float = 0.0  # against all items of the batch
  # 'blocks': some users times some items, every row embedded once.
  # 'published': per user the top and as many random items of the teacher.
  # 'interactions': labelled rows, for the terms on labels.
  pairing: str = 'blocks'
  block_users: int = 0  # blocks: 0 takes about the root of the batch size
  positive_weight: float = 30.0  # blocks: weight 1 + this * max(target, 0)
  top_items: int = 2500  # published: per user, by the teacher's score
  random_items: int = 2500  # published: per user
  # 'training' keeps cold items out of the targets; 'all' is as published.
  target_items: str = 'training'
  # The rest is for pairing 'interactions'. A logit is score / temperature.
  temperature: float = 0.1
  # A row counts 1 / (interactions of its user) ** user_balance: metrics are
  # means over users, and 0 lets a few heavy users decide.
  user_balance: float = 0.5
  mask_known: bool = True  # what a user likes is no negative of hers
  log_q: float = 1.0  # in-batch: share of log frequency that logits lose
  num_negatives: int = 32  # softmax: rolled negatives of each row
  margin: float = 0.0  # softmax, on the scale of scores
  support_vector: float = 1.0  # softmax: the article's t; 1 is plain
  label_smoothing: float = 0.0  # pointwise
  focal_gamma: float = 0.0  # pointwise, pairwise 'focal'; 0 is not focal
  pairwise_kind: str = 'logistic'  # 'logistic', 'hinge' or 'focal'
  pairwise_margin: float = 0.0
  hard_ratio: float = 1.0  # pairwise: share of the pairs with the largest loss

  def terms(self) -> tuple[str, ...]:
    """Names of the terms that count."""
    return tuple(
        name for name in ('teacher', *LABEL_TERMS) if getattr(self, name)
    )

  def validate(self) -> None:
    """Raises UserError naming the first field that is not as it must be."""
    checks.check_choice(
        'objective.pairing',
        self.pairing,
        ('blocks', 'published', 'interactions'),
    )
    checks.check_choice(
        'objective.target_items', self.target_items, ('training', 'all')
    )
    self._check_weights()
    checks.check_at_least('objective.positive_weight', self.positive_weight, 0)
    checks.check_at_least('objective.block_users', self.block_users, 0)
    checks.check_at_least('objective.top_items', self.top_items, 0)
    checks.check_at_least('objective.random_items', self.random_items, 0)
    total = self.top_items + self.random_items
    checks.check(
        total > 0, 'objective.top_items + random_items', total, 'positive'
    )
    self._check_labels()

  def _check_weights(self) -> None:
    for name in ('teacher', *LABEL_TERMS):
      checks.check_at_least(f'objective.{name}', getattr(self, name), 0)
    name, weight = 'objective.teacher', self.teacher
    if self.pairing != 'interactions':
      rule = "positive; it is the only loss where pairing isn't 'interactions'"
      checks.check(weight > 0, name, weight, rule)
      for name in LABEL_TERMS:
        weight = getattr(self, name)
        rule = "0 unless objective.pairing is 'interactions'"
        checks.check(weight == 0, f'objective.{name}', weight, rule)
    rule = 'positive, or the weight of another term must be'
    checks.check(bool(self.terms()), name, weight, rule)

  def _check_labels(self) -> None:
    checks.check_at_least('objective.temperature', self.temperature, 1e-4)
    checks.check_rate('objective.user_balance', self.user_balance)
    checks.check_rate('objective.log_q', self.log_q)
    checks.check_at_least('objective.num_negatives', self.num_negatives, 1)
    checks.check_at_least('objective.margin', self.margin, 0)
    checks.check_at_least('objective.support_vector', self.support_vector, 1)
    smoothing = self.label_smoothing
    checks.check(
        0 <= smoothing < 1, 'objective.label_smoothing', smoothing, 'in [0, 1)'
    )
    checks.check_at_least('objective.focal_gamma', self.focal_gamma, 0)
    checks.check_choice(
        'objective.pairwise_kind', self.pairwise_kind, PAIRWISE_KINDS
    )
    checks.check_at_least('objective.pairwise_margin', self.pairwise_margin, 0)
    ratio = self.hard_ratio
    checks.check(0 < ratio <= 1, 'objective.hard_ratio', ratio, 'in (0, 1]')
