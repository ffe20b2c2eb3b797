# SPDX-License-Identifier: Apache-2.0
"""Impressions in the order in which they were shown, and what they teach.

An impression is one without a click until a click is told. Its score is the one
that it was shown by, so that a level says what scores have missed. Beliefs are
a function of the impressions that are kept, in whatever order they and their
clicks came; they are made when somebody asks, of items of which there is news.

How often what is shown is clicked on is not how often items are liked at large.
So the offset of the log-odds is estimated together with the levels of all items
(the mode of a logistic regression with a random intercept for each item), from
where the calibration has it, which is held for unsure.
"""

import collections
from collections.abc import Hashable, Sequence

import numpy as np

from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model

IGNORED = object()  # what somebody saw whose clicks nobody could tell
_OFFSET = 4.0  # variance of the offset around that of the calibration
_STEPS = 50  # of Newton, at most
_LONGEST = 2.0  # of these
_NEAR = 1e-6  # of the best offset
_SAME = 0.01  # of many impressions, which makes no beliefs anew
_FEW = 1 << 14  # impressions, of which every one makes a new offset ...
_GROWTH = 0.01  # ... and beyond which so many more do


class Observed:
  """Impressions, numbered from 1 without gaps; the first may be forgotten."""

  def __init__(self, prior: belief_lib.Prior, towers_are_told: bool = True):
    """Nothing was shown yet.

    Args:
      prior: of all items.
      towers_are_told: whether scores know of clicks on new items by
        themselves; then of beliefs the level alone is moved by clicks, and all
        of it gets narrower.
    """
    self.prior = prior
    self._free = slice(prior.width - 1 if towers_are_told else 0, None)
    self._begin = self._end = 0  # rows that are kept
    self._forgotten = 0  # rows before them that are in no array any more
    self._names: dict[Hashable, int] = {}  # code of each item
    self._rows: list[collections.deque[int]] = []  # by code, numbers
    self._news: set[int] = set()
    self._code = np.zeros(0, np.int32)
    self._inputs = np.zeros((0, prior.width - 1), np.float32)
    self._score = np.zeros(0, np.float32)
    self._click = np.zeros(0, bool)
    size = prior.width
    self._mean = np.zeros((0, size))
    self._precision = np.zeros((0, size, size))
    self._offset, self._changes, self._fitted = prior.link.offset, 0, 0

  def __len__(self) -> int:
    return self._end - self._begin

  def add(
      self,
      item: Sequence[Hashable],
      inputs: np.ndarray,
      score: np.ndarray,
      click: np.ndarray | None = None,
  ) -> None:
    """N impressions that were shown after all others.

    Args:
      item: N names; None is an item that nothing more is believed of, and
        IGNORED an impression that says nothing.
      inputs: float [N, q], `Prior.inputs` of who saw them.
      score: float [N], by which they were shown.
      click: bool [N]; None for none yet.
    """
    new = len(item)
    self._make_room(new)
    part = slice(self._place(self._end), self._place(self._end) + new)
    codes = [self._code_of(name) for name in item]
    self._code[part], self._inputs[part] = codes, inputs
    self._score[part] = score
    self._click[part] = False if click is None else np.asarray(click) > 0
    for number, code in enumerate(codes, start=self._end):
      if code >= 0:
        self._rows[code].append(number)
        self._news.add(code)
    self._end += new
    self._changes += new

  def set_click(self, number: int, click: bool) -> None:
    """What came of an impression; one that is forgotten changes nothing."""
    if not self._begin < number <= self._end:
      return
    place = self._place(number - 1)
    if self._click[place] != click:
      self._click[place] = click
      self._changes += 1
      if self._code[place] >= 0:
        self._news.add(int(self._code[place]))

  def keep(self, most: int) -> None:
    """Forgets all but the last so many."""
    begin = max(self._end - most, self._begin)
    for number in range(self._begin, begin):
      code = self._code[self._place(number)]
      if code >= 0:
        self._rows[code].popleft()
        self._news.add(int(code))
    self._changes += begin - self._begin
    self._begin = begin

  def of(self, items: Sequence[Hashable]) -> posterior.Belief:
    """What is believed of J items, with all that was told of them."""
    self._fit_offset()
    codes = np.array([self._names.get(name, -1) for name in items], int)
    self._update([code for code in set(codes.tolist()) if code in self._news])
    found = self.prior.start(len(codes))
    known = codes >= 0
    found.mean[known] = self._mean[codes[known]]
    found.precision[known] = self._precision[codes[known]]
    return found

  @property
  def offset(self) -> float:
    """Log-odds of a click at score 0."""
    self._fit_offset()
    return self._offset

  def _code_of(self, name: Hashable) -> int:
    if name is None or name is IGNORED:
      return -1 if name is None else -2
    code = self._names.setdefault(name, len(self._rows))
    if code == len(self._rows):
      self._rows.append(collections.deque())
      if code == len(self._mean):
        more = self.prior.start(max(code, 64))
        self._mean = np.concatenate([self._mean, more.mean])
        self._precision = np.concatenate([self._precision, more.precision])
    return code

  def _place(self, number: int) -> int:
    """Where the arrays have a row."""
    return number - self._forgotten

  def _make_room(self, new: int) -> None:
    """Lets go of what is forgotten, and doubles the arrays, when they end."""
    if self._place(self._end) + new <= len(self._code):
      return
    kept = slice(self._place(self._begin), self._place(self._end))
    room = np.arange(max(2 * (len(self) + new), 1024)) < 0

    def longer(rows: np.ndarray) -> np.ndarray:
      found = np.zeros((len(room), *rows.shape[1:]), rows.dtype)
      found[: len(self)] = rows[kept]
      return found

    self._code, self._inputs = longer(self._code), longer(self._inputs)
    self._score, self._click = longer(self._score), longer(self._click)
    self._forgotten = self._begin
    self._let_go()

  def _let_go(self) -> None:
    """Of items without impressions, when most of them have none any more."""
    kept = {x: code for x, code in self._names.items() if self._rows[code]}
    if 2 * len(kept) >= len(self._names):
      return
    old = np.fromiter(kept.values(), int, len(kept))
    new = np.full(len(self._rows), -1, np.int32)
    new[old] = np.arange(len(kept))
    has_item = self._code >= 0
    self._code[has_item] = new[self._code[has_item]]
    self._names = dict(zip(kept, range(len(kept))))
    self._rows = [self._rows[code] for code in kept.values()]
    self._news = {int(new[code]) for code in self._news if new[code] >= 0}
    self._mean, self._precision = self._mean[old], self._precision[old]

  def _fit_offset(self) -> None:
    """Where there is enough news of it; then all beliefs are news."""
    count = len(self)
    if self._changes <= (0 if count <= _FEW else _GROWTH * self._fitted):
      return
    kept = np.arange(self._place(self._begin), self._place(self._end))
    kept = kept[self._code[kept] >= -1]
    link = self.prior.link
    found = fit_offset(
        link.slope * self._score[kept].astype(np.float64),
        self._code[kept],
        self._click[kept],
        self.prior.level,
        link.offset,
    )
    self._changes, self._fitted = 0, count
    if abs(found - self._offset) > (_NEAR if count <= _FEW else _SAME):
      self._offset = found
      self._news.update(range(len(self._rows)))

  def _update(self, codes: Sequence[int]) -> None:
    """Beliefs of items, from the first impression on."""
    if not codes:
      return
    self._news.difference_update(codes)
    counts = [len(self._rows[code]) for code in codes]
    owner = np.repeat(np.arange(len(codes)), counts)
    rows = np.array([n for code in codes for n in self._rows[code]], int)
    place = rows - self._forgotten
    link = self.prior.link
    found = posterior.update(
        self.prior.start(len(codes)),
        owner,
        self.prior.seen(self._inputs[place].astype(np.float64)),
        link.slope * self._score[place].astype(np.float64) + self._offset,
        self._click[place].astype(np.float64),
        self._free,
    )
    self._mean[codes], self._precision[codes] = found


def fit_offset(
    logit: np.ndarray,
    item: np.ndarray,
    click: np.ndarray,
    level: float,
    offset: float,
) -> float:
  """The offset of log-odds, at the mode of it and of the levels of all items.

  Args:
    logit: float64 [N], of impressions, without an offset.
    item: int [N], whose level counts; -1 for items without one.
    click: bool [N].
    level: variance of levels.
    offset: where it is expected.
  """
  count = int(item.max(initial=-1)) + 1
  own = np.where(item < 0, count, item)
  levels, found = np.zeros(count + 1), offset
  # Of the last one nothing is free: of items without a level.
  variance = np.full(count + 1, level)
  variance[count] = 0.0
  for _ in range(_STEPS if len(logit) else 0):
    chance = reward_model.sigmoid(logit + found + levels[own])
    gap = np.bincount(own, click - chance, count + 1)
    curve = np.bincount(own, chance * (1 - chance), count + 1)
    # Each level given the offset; what is left of the curve is the offset's.
    share = variance / (1 + variance * curve)
    pull = gap * variance - levels
    slope = gap.sum() - (found - offset) / _OFFSET
    slope -= np.sum(curve * pull / (1 + variance * curve))
    total = curve.sum() + 1 / _OFFSET - np.sum(curve**2 * share)
    step = slope / total
    steps = pull / (1 + variance * curve) - share * curve * step
    largest = max(abs(step), float(np.abs(steps).max()))
    shorter = min(1.0, _LONGEST / max(largest, 1e-12))
    found, levels = found + shorter * step, levels + shorter * steps
    if largest < _NEAR:
      break
  return float(found)
