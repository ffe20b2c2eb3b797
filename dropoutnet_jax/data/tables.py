# SPDX-License-Identifier: Apache-2.0
"""Resident tables: all that a training step reads, as arrays.

Only ids travel in a step; content, factors and histories stay where they are.
The arrays are NumPy on the host and become device arrays when they are placed.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np
import scipy.sparse

from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import popularity as popularity_lib
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics
from dropoutnet_jax.data import tokens as tokens_lib


@flax.struct.dataclass
class PreferenceFeatures:
  """Features of the group 'preference' of N rows.

  Attributes:
    dense: float32 [N, G], scaled; zero where not known.
    tokens: of N rows; ids and weights are 0 where not known.
    known: bool [N], rows with any of them.
  """

  dense: Any
  tokens: tokens_lib.Tokens
  known: Any

  def __getitem__(self, rows: Any) -> 'PreferenceFeatures':
    """The features of some rows."""
    return PreferenceFeatures(
        self.dense[rows], self.tokens[rows], self.known[rows]
    )


class Told(NamedTuple):
  """What C rows were told of, after training.

  Attributes:
    preference: float32 [C, P], scaled; zero where not present.
    present: bool [C], whether there is any.
    trust: float32 [C], weight of what a tower says of it, beside what it says
      without (model/trust.py).
  """

  preference: np.ndarray
  present: np.ndarray
  trust: np.ndarray


@flax.struct.dataclass
class SideTable:
  """One side's rows.

  A row without training pairs is cold: it has no preference at all here, not
  even features that its table happens to fill in, since a new row at serving
  has none either.

  Attributes:
    content: float32 [N, F], dense content.
    preference: float32 [N, P], scaled factors or history means; zero where not
      present.
    present: bool [N], rows with these.
    factors: float32 [N, Q], what targets and the other side's histories are
      made of: the teacher's, or the dense content where preferences are
      histories. Unscaled.
    history_total: float32 [N, P], sum of the other side's factors over the
      training history.
    history_count: int32 [N].
    preference_scaler: what scaled the factors to `preference`.
    history_scaler: scales history means alike.
    tokens: content that embeddings are looked up for; None without any.
    features: preference beside factors or histories; None without any.
    counts: statistics of training, beside both; None without any.
    trust: float32 [N], of `Told`; 1 for all others. None where it is 1 for all.
    history_smoothing: usual rows that count in what new rows are told of, and
      reactions that it takes to trust them by half.
  """

  content: Any
  preference: Any
  present: Any
  factors: Any
  history_total: Any
  history_count: Any
  preference_scaler: scaler_lib.Scaler
  history_scaler: scaler_lib.Scaler
  tokens: tokens_lib.Tokens | None = None
  features: PreferenceFeatures | None = None
  counts: statistics.Counts | None = None
  trust: Any = None
  history_smoothing: float = flax.struct.field(pytree_node=False, default=0.0)

  @property
  def has_content(self) -> bool:
    """Whether anything is left of a row whose preference is dropped."""
    return bool(self.content.shape[1]) or self.tokens is not None

  def select(self, rows: np.ndarray) -> 'SideTable':
    """Rows [C] as NumPy arrays; a row of -1 has neither content nor preference.

    That is what a new row has before anything is known of it.
    """
    known = rows >= 0

    def pick(values: Any) -> np.ndarray:
      own = np.asarray(values)[rows]
      return np.where(known.reshape(-1, *[1] * (own.ndim - 1)), own, 0).astype(
          own.dtype
      )

    scalers: Any = {
        'preference_scaler': self.preference_scaler,
        'history_scaler': self.history_scaler,
    }
    nothing: Any = dict.fromkeys((*scalers, 'counts'))
    picked = jax.tree.map(pick, dataclasses.replace(self, **nothing))
    if self.counts is not None:
      scalers['counts'] = self.counts.select(rows)
    return dataclasses.replace(picked, **scalers)

  def history_means(
      self,
      met: scipy.sparse.csr_array,
      factors: np.ndarray,
      is_new: np.ndarray | bool = True,
  ) -> Told:
    """The transform of Algorithm 1, for histories beyond training.

    Args:
      met: [C, M], the histories: whatever is stored was met once.
      factors: float32 [M, P] of the other side; rows of zeros do not count.
      is_new: bool [C] or one for all, whether training had nothing of a row;
        see `_told`.
    """
    met = blocks.pattern(met)
    count = _lengths(met, factors)
    return self._told(met @ factors, count, self.history_scaler, is_new)

  def folded_in(
      self,
      folded: np.ndarray,
      met: scipy.sparse.csr_array,
      factors: np.ndarray,
      is_new: np.ndarray | bool = True,
  ) -> Told:
    """The same of factors [C, P] that the teacher made of histories [C, M]."""
    count = _lengths(blocks.pattern(met), factors)
    total = count[:, None] * folded
    return self._told(total, count, self.preference_scaler, is_new)

  def _told(
      self,
      total: np.ndarray,
      count: np.ndarray,
      scaler: scaler_lib.Scaler,
      is_new: np.ndarray | bool,
  ) -> Told:
    """Means of rows that were told of after training.

    In training a row of one pair is one that hardly anybody cared for in all
    its time; a new one has only just come, and one pair says next to nothing
    of it. So `history_smoothing` usual rows count in the mean of a new one, and
    as many pairs of nothing in how far it is trusted.
    """
    usual = np.where(is_new, self.history_smoothing, 0.0)
    usual = np.broadcast_to(usual, count.shape).astype(np.float32)
    mean = total + np.outer(usual, scaler.mean)
    number = np.where(count > 0, count + usual, 1)
    mean /= number[:, None]
    value = np.asarray(scaler(mean.astype(np.float32)))
    return Told(
        np.where(count[:, None] > 0, value, np.float32(0)),
        count > 0,
        np.where(count > 0, count / number, 1).astype(np.float32),
    )

  def with_told(self, rows: np.ndarray, told: Told) -> 'SideTable':
    """The table of NumPy arrays where rows [C] were told of this [C]."""
    trust = self.trust
    if trust is None:
      trust = np.ones(len(self.present), np.float32)
    table = dataclasses.replace(
        self,
        preference=self.preference.copy(),
        present=self.present.copy(),
        trust=trust.copy(),
    )
    table.preference[rows] = told.preference
    table.present[rows], table.trust[rows] = told.present, told.trust
    return table

  def with_reactions(self, rows: np.ndarray, number: np.ndarray) -> 'SideTable':
    """The table where rows [C] have so many more reactions [C], all of now.

    They count in the statistics, where there are some, and nowhere else.
    """
    if self.counts is None:
      return self
    counts = self.counts.with_reactions(rows, number)
    return dataclasses.replace(self, counts=counts)


def _lengths(met: scipy.sparse.csr_array, factors: np.ndarray) -> np.ndarray:
  """How many of each history [C, M] of 1s have factors [M, P]: float32 [C]."""
  return met @ np.any(factors != 0, axis=1).astype(np.float32)


@flax.struct.dataclass
class LabelledRows:
  """N labelled pairs of users and items; label 1 is a reaction, 0 is none.

  Attributes:
    user: int32 [N].
    item: int32 [N].
    label: float32 [N], in [0, 1].
    weight: float32 [N] >= 0.
    session: int32 [N], the same for what a user was shown together; None where
      nothing asks for it.
    is_real: bool [N], False for padding of a batch; None without padding.
    counted: what counts of statistics have of its pair, `statistics.LeftOut`
      of N; None where there are no statistics.
  """

  user: Any
  item: Any
  label: Any
  weight: Any
  session: Any = None
  is_real: Any = None
  counted: Any = None


@flax.struct.dataclass
class Lists:
  """Lists of different lengths, end to end.

  Attributes:
    start: int32 [G], where each list begins.
    count: int32 [G], how long it is.
    value: int32 [E], what is in them; None where that are the places.
  """

  start: Any
  count: Any
  value: Any = None


@flax.struct.dataclass
class Tables:
  """Everything that a step reads.

  Attributes:
    user: rows of the users.
    item: rows of the items.
    train_users: int32 [U'], user rows that are trained on.
    target_items: int32 [I'], item rows that may be targets.
    user_history: int32 [U, L], training items of each user, -1 for padding;
      [0, 0] where no row ever becomes the mean over its history.
    top_items: int32 [U, N], each user's top target items by the teacher's
      score, published pairing only; else [0, 0].
    rows: labelled training rows, for terms on labels; else None. While they
      are streamed, [K, B]: the batches of K steps.
    log_frequency: float32 [I], log of each item's share of the labelled rows;
      with `rows` only.
    groups: of places in `rows`, by user or session, where a batch is made of
      groups; `rows` are then in the order of these.
    shown: items that each user was shown in vain, where these are negatives.
    popularity: of training items, where some are sampled.
    user_bits: uint32 [U, W], `user_history` as bits, where negatives are looked
      up in it and it is small; else None.
    history_windows: int32 [U, L], bits of the windows that count each pair of
      `user_history`; None unless there are statistics of likes.
    first_step: int32 [], the step of the first batch of `rows` where they are
      streamed; else None.
  """

  user: SideTable
  item: SideTable
  train_users: Any
  target_items: Any
  user_history: Any
  top_items: Any
  rows: LabelledRows | None = None
  log_frequency: Any = None
  groups: Lists | None = None
  shown: Lists | None = None
  popularity: popularity_lib.PopularityTable | None = None
  user_bits: Any = None
  history_windows: Any = None
  first_step: Any = None


def make_side(
    content: np.ndarray,
    factors: np.ndarray,
    present: np.ndarray,
    other_factors: np.ndarray,
    history: histories.History,
    scaling: str,
    preference: np.ndarray | None = None,
    history_smoothing: float = 0.0,
) -> SideTable:
  """Builds one side's table from its factors and histories.

  Args:
    content: [N, F].
    factors: [N, Q].
    present: bool [N], rows that have a preference.
    other_factors: [M, P] of the other side.
    history: of the N rows.
    scaling: kind of the scalers.
    preference: [N, P] before scaling; None takes the factors.
    history_smoothing: of new rows.
  """
  if preference is None:
    preference = factors
  scaler = scaler_lib.fit(preference[present], scaling)
  scaled = np.asarray(scaler(preference), np.float32)
  total, count = history.total(other_factors), history.count
  mean = total[count > 0] / count[count > 0, None]
  return SideTable(
      content=content.astype(np.float32),
      preference=np.where(present[:, None], scaled, 0).astype(np.float32),
      present=present,
      factors=factors.astype(np.float32),
      history_total=total,
      history_count=count,
      preference_scaler=scaler,
      history_scaler=scaler_lib.fit(mean, scaling),
      history_smoothing=history_smoothing,
  )


def make_tables(
    user: SideTable,
    item: SideTable,
    split: schema.Split,
    target_items: np.ndarray,
    user_history: np.ndarray,
    top_items: np.ndarray,
) -> Tables:
  """Joins both sides with the rows that are trained on."""
  train_users, _ = split.train_rows()
  return Tables(
      user=user,
      item=item,
      train_users=train_users.astype(np.int32),
      target_items=target_items.astype(np.int32),
      user_history=user_history.astype(np.int32),
      top_items=top_items.astype(np.int32),
  )
