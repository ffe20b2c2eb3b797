# SPDX-License-Identifier: Apache-2.0
"""Settings of features: how the columns of a user's tables become numbers.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses

from dropoutnet_jax import checks

KINDS = (
    'tags',
    'text',
    'numeric',
    'category',
    'dense',
    'sequence',
    'cross',
    'lookup',
    'expression',
)
# Kinds whose values are ids, which a learnt embedding can be looked up for.
ID_KINDS = ('tags', 'text', 'category', 'sequence', 'cross')
# Kinds whose values are single numbers.
NUMBER_KINDS = ('numeric', 'lookup', 'expression')
TRANSFORMS = ('standard', 'log1p', 'min_max', 'quantile', 'none')
# What features that share an embedding table agree in.
SHARED = (
    'pieces',
    'embedding',
    'embedding_std',
    'hash_buckets',
    'num_buckets',
    'min_rows',
    'boundaries',
    'num_intervals',
)
PIECES = ('whole', 'words', 'characters')
MAX_WINDOWS = 16  # of statistics
POOLINGS = ('sum', 'mean', 'max', 'attention')


@dataclasses.dataclass
class Feature:
  """How one column becomes numbers (data/features.py).

  Kinds: 'tags' (weighted tags, counted words), 'text' (strings, read as
  counted words), 'numeric', 'category' (strings or whole numbers), 'dense'
  (vectors), 'sequence' (values in their order), 'cross' (several categories as
  one), 'lookup' (the weight of one of a row's tags, named by another column),
  'expression' (arithmetic over columns of numbers). What is said of tags below
  holds for the words of texts as well. A sequence without an embedding is the
  share of each value, a feature with one has no dense columns.
  """

  # Of a cross or an expression a name for messages. The ids themselves are the
  # column 'user_id' or 'item_id', or as data.tables calls it.
  column: str = ''
  kind: str = 'tags'
  # 'content' is known from the start; 'preference' comes with behaviour, and
  # input dropout takes it away with all other preference.
  group: str = 'content'
  idf: str = 'root'  # tags: 'idf', 'root' (its square root) or 'none'
  counts: str = 'binary'  # tags: 'binary', 'log' (1 + log count) or 'raw'
  # tags: by their names 'whole', or as the 'words' or runs of 'characters' in
  # them, which rare and variously spelt names share (data/name_pieces.py).
  pieces: str = 'whole'
  min_rows: int = 1  # ids: drop what occurs in fewer training rows
  rank: int = 0  # tags, sequence: truncated SVD to so many columns; 0 keeps all
  sparse: bool = True  # ids of content: part of the sparse content as well
  # Numbers: 'standard' (mean 0, variance 1), 'log1p' (of the logarithm of 1 +
  # the value), 'min_max' (training range to [0, 1]), 'quantile' (rank among
  # training values to [0, 1]) or 'none'.
  transform: str = 'standard'
  # Numbers as categories: intervals between these, or so many equally frequent
  # ones; fewer where values repeat.
  boundaries: tuple[float, ...] = ()
  num_intervals: int = 0
  # Ids without a vocabulary: hashed to so many, or whole numbers below a limit.
  hash_buckets: int = 0
  num_buckets: int = 0
  columns: tuple[str, ...] = ()  # cross: the columns that it joins
  key: str = ''  # lookup: the column that names the tag
  # Such as 'log1p(price) / (pages + 1)'; other names as col('my column').
  expression: str = ''
  # Ids: width of a learnt embedding instead of dense columns; 0 learns none.
  embedding: int = 0
  embedding_table: str = ''  # features that name the same table share it
  # Of its first values; 0 is 1 / sqrt(width). Towers see sqrt(width) times it.
  embedding_std: float = 0.0
  pooling: str = 'mean'  # of several ids: 'sum', 'mean', 'max' or 'attention'
  max_length: int = 50  # sequence: its last values; tags: their heaviest

  def validate(self, field: str) -> None:
    """Raises UserError naming the first field that is not as it must be."""
    checks.check(
        bool(self.column), f'{field}.column', self.column, 'a column name'
    )
    checks.check_choice(f'{field}.kind', self.kind, KINDS)
    groups = ('content', 'preference')
    checks.check_choice(f'{field}.group', self.group, groups)
    checks.check_choice(f'{field}.idf', self.idf, ('idf', 'root', 'none'))
    checks.check_choice(
        f'{field}.counts', self.counts, ('binary', 'log', 'raw')
    )
    checks.check_choice(f'{field}.pieces', self.pieces, PIECES)
    checks.check_at_least(f'{field}.min_rows', self.min_rows, 1)
    checks.check_at_least(f'{field}.rank', self.rank, 0)
    self._check_numbers(field)
    self._check_ids(field)
    self._check_tags(field)
    self._check_parts(field)

  def _check_numbers(self, field: str) -> None:
    checks.check_choice(f'{field}.transform', self.transform, TRANSFORMS)
    checks.check_at_least(f'{field}.num_intervals', self.num_intervals, 0)
    value = self.num_intervals
    checks.check(value != 1, f'{field}.num_intervals', value, '0 or at least 2')
    edges = self.boundaries
    ascending = all(a < b for a, b in zip(edges, edges[1:]))
    checks.check(ascending, f'{field}.boundaries', edges, 'ascending')
    if self.boundaries:
      rule = 'empty where num_intervals is set'
      checks.check(not self.num_intervals, f'{field}.boundaries', edges, rule)
    if self.kind not in NUMBER_KINDS:
      rule = f'left alone where kind is {self.kind!r}, which is no number'
      for name in ('transform', 'boundaries', 'num_intervals'):
        self._check_default(field, name, rule)
    elif self.has_ids:
      rule = 'left alone where the numbers are cut into intervals'
      for name in ('transform', 'hash_buckets', 'num_buckets'):
        self._check_default(field, name, rule)

  def _check_ids(self, field: str) -> None:
    for name in ('hash_buckets', 'num_buckets'):
      value = getattr(self, name)
      checks.check_at_least(f'{field}.{name}', value, 0)
      checks.check(value != 1, f'{field}.{name}', value, '0 or at least 2')
    if self.hash_buckets:
      rule = '0 where hash_buckets is set'
      value = self.num_buckets
      checks.check(not value, f'{field}.num_buckets', value, rule)
    checks.check_at_least(f'{field}.embedding', self.embedding, 0)
    checks.check_at_least(f'{field}.embedding_std', self.embedding_std, 0)
    checks.check_choice(f'{field}.pooling', self.pooling, POOLINGS)
    checks.check_at_least(f'{field}.max_length', self.max_length, 1)
    if not self.has_ids:
      rule = f'left alone where kind is {self.kind!r}, which has no ids'
      for name in ('hash_buckets', 'num_buckets', 'embedding'):
        self._check_default(field, name, rule)
    if not self.embedding:
      rule = 'left alone without an embedding'
      for name in (
          'embedding_table',
          'embedding_std',
          'pooling',
          'max_length',
      ):
        self._check_default(field, name, rule)
    elif self.rank:
      rule = '0 where an embedding takes the place of dense columns'
      checks.check(False, f'{field}.rank', self.rank, rule)

  def _check_tags(self, field: str) -> None:
    rule = f'left alone where kind is {self.kind!r}, which has no tags'
    if self.kind not in ('tags', 'text'):
      for name in ('idf', 'counts', 'pieces'):
        self._check_default(field, name, rule)
      if self.kind != 'sequence':
        self._check_default(field, 'rank', rule)

  def _check_parts(self, field: str) -> None:
    parts = {'cross': 'columns', 'lookup': 'key', 'expression': 'expression'}
    for kind, name in parts.items():
      value = getattr(self, name)
      if self.kind == kind:
        checks.check(bool(value), f'{field}.{name}', value, 'not empty')
      else:
        rule = f'left alone where kind is not {kind!r}'
        self._check_default(field, name, rule)
    if self.kind == 'cross':
      rule = "0 where kind is 'cross', whose values are no numbers"
      checks.check(
          not self.num_buckets, f'{field}.num_buckets', self.num_buckets, rule
      )
      names = self.columns
      ok = len(set(names)) == len(names) >= 2
      rule = 'two or more different columns'
      checks.check(ok, f'{field}.columns', names, rule)

  @property
  def name(self) -> str:
    """What messages and explanations call it."""
    if self.pieces != 'whole':
      return f'{self.column} ({self.pieces})'
    return f'{self.column}[{self.key}]' if self.key else self.column

  @property
  def has_ids(self) -> bool:
    """Whether its values are ids: of a kind with ids, or numbers cut up."""
    cut = bool(self.boundaries or self.num_intervals)
    return self.kind in ID_KINDS or (self.kind in NUMBER_KINDS and cut)

  def _check_default(self, field: str, name: str, rule: str) -> None:
    value, default = getattr(self, name), getattr(_DEFAULT, name)
    checks.check(value == default, f'{field}.{name}', value, rule)


_DEFAULT = Feature()


@dataclasses.dataclass
class FeaturesConfig:
  """Features of the two sides; an empty list means a side without content."""

  user: list[Feature] = dataclasses.field(default_factory=list)
  item: list[Feature] = dataclasses.field(default_factory=list)
  # 'row': each row of the dense content has norm 1. 'column': standardised
  # over training rows and clipped at 5, as published. 'none': as features make
  # them.
  scaling: str = 'row'
  # What a row's preference is beside its features of group 'preference':
  # 'factors', the teacher's; 'history', the mean of the dense content of what a
  # user liked and of who liked an item, without the pair that is being trained
  # on; 'none', the features alone.
  preference: str = 'factors'
  # What a new row is told of is smoothed as by so many rows of the usual
  # preference, and trusted by half with so many interactions: few of a new row
  # are not what few are in training.
  history_smoothing: float = 3.0
  # Preference beside all that: how often a user or item was shown and reacted
  # to in training, in windows of so many days before its end; 0 is all of it.
  # Without the pair that is being trained on.
  statistics: tuple[float, ...] = ()
  # Rates are smoothed as by so many rows of the usual rate, and the number of
  # a new row's reactions as by so many at the usual number.
  statistics_smoothing: float = 20.0

  def validate(self) -> None:
    scalings = ('row', 'column', 'none')
    checks.check_choice('features.scaling', self.scaling, scalings)
    checks.check_choice(
        'features.preference', self.preference, ('factors', 'history', 'none')
    )
    checks.check_at_least(
        'features.history_smoothing', self.history_smoothing, 0
    )
    self._check_statistics()
    for side in ('user', 'item'):
      for number, feature in enumerate(getattr(self, side)):
        feature.validate(f'features.{side}[{number}]')
    self._check_tables()
    self._check_preference()

  @property
  def has_embeddings(self) -> bool:
    """Whether any feature has a learnt embedding."""
    return any(feature.embedding for feature in [*self.user, *self.item])

  def _check_tables(self) -> None:
    """Features that share an embedding table agree on it."""
    first: dict[str, tuple[str, Feature]] = {}
    for side in ('user', 'item'):
      for number, feature in enumerate(getattr(self, side)):
        table = feature.embedding_table
        if not table:
          continue
        field = f'features.{side}[{number}]'
        other, shared = first.setdefault(table, (field, feature))
        for name in SHARED:
          expected = getattr(shared, name)
          value = getattr(feature, name)
          rule = (
              f'{expected!r} like config.{other}.{name}, since both name '
              f'embedding_table {table!r}'
          )
          checks.check(value == expected, f'{field}.{name}', value, rule)
        value = feature.num_intervals
        rule = f'0 where {table!r} is shared: set boundaries, the same ones'
        ok = not value or other == field
        checks.check(ok, f'{field}.num_intervals', value, rule)

  def _check_preference(self) -> None:
    """Preference has something to be made of."""
    every = [*self.user, *self.item]
    name, value = 'features.preference', self.preference
    if value == 'none':
      rule = "'factors' or 'history' where no side has a feature to learn from"
      checks.check(bool(every), name, value, rule)
    if value == 'history' and every:
      rule = (
          "'factors' or 'none' where no feature of group 'content' is without "
          'an embedding: a history is the mean of dense columns'
      )
      dense = any(f.group == 'content' and not f.embedding for f in every)
      checks.check(dense, name, value, rule)

  def _check_statistics(self) -> None:
    name, windows = 'features.statistics', self.statistics
    for days in windows:
      checks.check_at_least(name, days, 0)
    checks.check(len(set(windows)) == len(windows), name, windows, 'distinct')
    rule = f'at most {MAX_WINDOWS} windows'
    checks.check(len(windows) <= MAX_WINDOWS, name, windows, rule)
    name, value = 'features.statistics_smoothing', self.statistics_smoothing
    checks.check_at_least(name, value, 1e-3)
    ok = bool(windows) or value == FeaturesConfig.statistics_smoothing
    rule = 'left alone where features.statistics is empty'
    checks.check(ok, name, value, rule)
