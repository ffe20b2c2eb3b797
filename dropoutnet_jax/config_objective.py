# SPDX-License-Identifier: Apache-2.0
"""What is minimised: the terms of the loss, their weights and their pairs."""

import dataclasses

from dropoutnet_jax import checks

# Terms on labels; each has a weight of this name.
LABEL_TERMS = ('pointwise', 'pairwise', 'softmax', 'in_batch_softmax')
PAIRWISE_KINDS = ('logistic', 'hinge', 'focal')
PAIRWISE_WITHIN = ('batch', 'user', 'session')
SAMPLINGS = ('replacement', 'epochs')
DIVISORS = ('weights', 'rows')
SHIFTS = ('consecutive', 'distinct', 'with_replacement')
_NEGATIVES = ('num_negatives', 'num_sampled', 'num_impressions')


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
  # Where embeddings have norm 1 (model.normalize; elsewhere the towers choose
  # how long they are), logits are scale * score + bias instead: the scale is
  # learnt from 1 / temperature within the bounds, the bias of 'pointwise' from
  # the log odds of the labels.
  learn_scale: bool = True
  scale_bounds: tuple[float, ...] = (0.1, 1000.0)
  # Terms count exp(-s) times their weight, and s is learnt (Kendall et al.,
  # 2018); the loss then has the sum of weight * s / 2 in it, which may be
  # negative.
  learn_weights: bool = False
  # A row counts 1 / (interactions of its user) ** user_balance: metrics are
  # means over users, and 0 lets a few heavy users decide.
  user_balance: float = 0.5
  # What the sum over weighted rows is divided by: their 'weights', so that the
  # loss knows no unit of weights, or how many 'rows' have one (EasyRec), which
  # then count as large as they are. Pairs are divided by weights.
  divide_by: str = 'weights'
  # 'replacement', or 'epochs': every row once (with group_rows, as the first of
  # its group), then again.
  sampling: str = 'replacement'
  # A batch is made of groups of so many rows of one user (of one session where
  # pairwise_within says so); of one that has fewer, rows occur repeatedly.
  group_rows: int = 1
  mask_known: bool = True  # what a user likes is no negative of hers
  mask_same_item: bool = True  # nor is the row's item in another row
  log_q: float = 1.0  # in-batch: share of log frequency that logits lose
  # Negatives of each row in 'softmax': rolled (items of other rows), items that
  # its user was shown in vain, and a sample of the training items, drawn by
  # likes ** sampling_power and shared by all rows. 'in_batch_softmax' takes the
  # sample too.
  num_negatives: int = 32
  # Rolled by 'consecutive' numbers of rows, which many of them want, by
  # 'distinct' ones, or 'with_replacement', as published.
  shifts: str = 'consecutive'
  num_impressions: int = 0
  num_sampled: int = 0
  sampling_power: float = 0.0  # 0 is uniform, 1 by popularity
  num_hard: int = 0  # softmax: only so many, the hardest of a row; 0 is all
  softmax_temperature: float = 0.0  # softmax: its own; 0 is `temperature`
  margin: float = 0.0  # softmax, on the scale of scores
  support_vector: float = 1.0  # softmax: the article's t; 1 is plain
  # softmax: width in which negatives become hard, on the scale of scores; 0 is
  # the article's jump.
  support_vector_smoothing: float = 0.0
  label_smoothing: float = 0.0  # pointwise
  focal_gamma: float = 0.0  # pointwise; 0 is not focal
  # pointwise: weight of reactions, others count the rest to 1; 0 weighs none.
  focal_alpha: float = 0.0
  pairwise_kind: str = 'logistic'  # 'logistic', 'hinge' or 'focal'
  pairwise_within: str = 'batch'  # or 'user', 'session': both rows are of one
  pairwise_weights: bool = True  # False counts each pair once
  pairwise_margin: float = 0.0
  pairwise_label_margin: bool = False  # the difference of the labels instead
  hard_ratio: float = 1.0  # pairwise: share of the pairs with the largest loss
  # L2 of the learnt embeddings that a batch looks up, for any pairing: half the
  # sum of their squares, as the mean over the rows of the batch ('row', as
  # strong for any batch size) or the sum over them ('batch', as in EasyRec).
  embedding_regularization: float = 0.0
  embedding_regularization_by: str = 'row'
  # L2 of the kernels of both towers, for any pairing: half the sum of squares.
  kernel_regularization: float = 0.0

  def terms(self) -> tuple[str, ...]:
    """Names of the terms that count."""
    return tuple(
        name for name in ('teacher', *LABEL_TERMS) if getattr(self, name)
    )

  @property
  def candidates(self) -> int:
    """Negatives of each row in 'softmax', before any is masked."""
    return sum(getattr(self, name) for name in _NEGATIVES)

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
    name = 'objective.embedding_regularization'
    checks.check_at_least(name, self.embedding_regularization, 0)
    checks.check_choice(
        f'{name}_by', self.embedding_regularization_by, ('row', 'batch')
    )
    name, value = 'objective.kernel_regularization', self.kernel_regularization
    checks.check_at_least(name, value, 0)

  def learns_scale(self, normalize: bool) -> bool:
    """Whether logits have a learnt scale, for embeddings of norm 1 or not."""
    terms = set(self.terms()) - {'teacher'}
    is_used = self.pairing == 'interactions' and bool(terms)
    return is_used and self.learn_scale and normalize

  def check_steps(self, batch_size: int, learns_scale: bool) -> None:
    """Checks what a step on labelled rows must have, as `validate`."""
    if self.softmax:
      name, number = 'objective.num_negatives', self.num_negatives
      rule = f'below config.train.batch_size, {batch_size}: they are its other '
      checks.check(number < batch_size, name, number, rule + 'rows')
    for name in ('pairwise', 'in_batch_softmax'):
      alone = name == 'pairwise' or not self.num_sampled
      if getattr(self, name) and alone:
        rule = f'at least 2: objective.{name} compares its rows'
        checks.check(batch_size > 1, 'train.batch_size', batch_size, rule)
    if learns_scale:
      name, own = 'objective.softmax_temperature', self.softmax_temperature
      rule = '0 where objective.learn_scale learns the one for all terms'
      checks.check(own == 0, name, own, rule)
      low, high = (1 / bound for bound in reversed(self.scale_bounds))
      rule = (
          f'above {low:g} and below {high:g}: the learnt scale starts at its '
      )
      rule += 'inverse, within objective.scale_bounds'
      name, value = 'objective.temperature', self.temperature
      checks.check(low < value < high, name, value, rule)
    rule = f'a divisor of config.train.batch_size, {batch_size}'
    name, group = 'objective.group_rows', self.group_rows
    checks.check(batch_size % group == 0, name, group, rule)

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
    checks.check_rate('objective.user_balance', self.user_balance)
    checks.check_choice('objective.divide_by', self.divide_by, DIVISORS)
    self._check_scale()
    self._check_batches()
    self._check_negatives()
    self._check_pairs()
    checks.check_at_least('objective.margin', self.margin, 0)
    checks.check_at_least('objective.support_vector', self.support_vector, 1)
    name = 'objective.support_vector_smoothing'
    checks.check_at_least(name, self.support_vector_smoothing, 0)
    smoothing = self.label_smoothing
    checks.check(
        0 <= smoothing < 1, 'objective.label_smoothing', smoothing, 'in [0, 1)'
    )
    checks.check_at_least('objective.focal_gamma', self.focal_gamma, 0)
    alpha = self.focal_alpha
    checks.check(0 <= alpha < 1, 'objective.focal_alpha', alpha, 'in [0, 1)')
    name, learnt = 'objective.learn_weights', self.learn_weights
    rule = 'False with one term: there is nothing to weigh it against'
    checks.check(not learnt or len(self.terms()) > 1, name, learnt, rule)

  def _check_scale(self) -> None:
    temperature, bounds = self.temperature, self.scale_bounds
    checks.check_at_least('objective.temperature', temperature, 1e-4)
    name, own = 'objective.softmax_temperature', self.softmax_temperature
    checks.check(own == 0 or own >= 1e-4, name, own, '0 or at least 0.0001')
    name = 'objective.scale_bounds'
    ok = len(bounds) == 2 and 0 < bounds[0] < bounds[1]
    checks.check(ok, name, bounds, 'two positive numbers, the smaller first')

  def _check_batches(self) -> None:
    checks.check_choice('objective.sampling', self.sampling, SAMPLINGS)
    checks.check_at_least('objective.group_rows', self.group_rows, 1)
    if self.pairing != 'interactions':
      for name, plain in (('sampling', 'replacement'), ('group_rows', 1)):
        value = getattr(self, name)
        rule = f"{plain!r} unless objective.pairing is 'interactions'"
        checks.check(value == plain, f'objective.{name}', value, rule)

  def _check_negatives(self) -> None:
    checks.check_rate('objective.log_q', self.log_q)
    checks.check_choice('objective.shifts', self.shifts, SHIFTS)
    for name in ('sampling_power', 'num_hard', *_NEGATIVES):
      checks.check_at_least(f'objective.{name}', getattr(self, name), 0)
    if self.softmax:
      rule = 'positive, or num_sampled or num_impressions must be: '
      rule += 'objective.softmax compares with them'
      name, value = 'objective.num_negatives', self.num_negatives
      checks.check(self.candidates > 0, name, value, rule)
      rule = f'at most {self.candidates}, which is num_negatives + num_sampled '
      rule += '+ num_impressions'
      ok = self.num_hard <= self.candidates
      checks.check(ok, 'objective.num_hard', self.num_hard, rule)
    for name, terms in (
        ('num_sampled', ('softmax', 'in_batch_softmax')),
        ('num_impressions', ('softmax',)),
        ('num_hard', ('softmax',)),
    ):
      value = getattr(self, name)
      used = any(getattr(self, term) for term in terms)
      rule = '0 where no term uses it; that is what '
      rule += ' and '.join(f'objective.{term}' for term in terms)
      rule += ' do' if len(terms) > 1 else ' does'
      checks.check(used or not value, f'objective.{name}', value, rule)

  def _check_pairs(self) -> None:
    checks.check_choice(
        'objective.pairwise_kind', self.pairwise_kind, PAIRWISE_KINDS
    )
    checks.check_choice(
        'objective.pairwise_within', self.pairwise_within, PAIRWISE_WITHIN
    )
    name, margin = 'objective.pairwise_margin', self.pairwise_margin
    checks.check_at_least(name, margin, 0)
    rule = '0 where objective.pairwise_label_margin is on: pairs have one or '
    rule += 'the other'
    checks.check(
        not (margin and self.pairwise_label_margin), name, margin, rule
    )
    ratio = self.hard_ratio
    checks.check(0 < ratio <= 1, 'objective.hard_ratio', ratio, 'in (0, 1]')
