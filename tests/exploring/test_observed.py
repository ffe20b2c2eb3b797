# SPDX-License-Identifier: Apache-2.0
"""Impressions and clicks, in whatever order they come, and what they teach."""

import numpy as np
import pytest
from scipy import optimize

from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import observed as observed_lib
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model

LINK = reward_model.RewardModel(1.5, -2.0, True)
PRIOR = belief_lib.Prior(np.diag([1.0, 0.5]), 0.8, 0.5, LINK)
NAMES = ['a', 'b', 7, None]


def _rows(count=400, seed=0):
  rng = np.random.default_rng(seed)
  item = [NAMES[n] for n in rng.integers(0, 4, count)]
  return item, rng.normal(size=(count, 2)), rng.normal(size=count)


def _told(rows, click, told=True):
  found = observed_lib.Observed(PRIOR, told)
  found.add(*rows, click)
  return found


def _same(one, other, **more):
  for a, b in zip(one, other, strict=True):
    np.testing.assert_allclose(a, b, **(dict(atol=1e-5) | more))


def test_the_offset_is_the_mode_beside_all_levels():
  item, _, score = _rows()
  code = np.array([NAMES.index(x) if x is not None else -1 for x in item])
  rng = np.random.default_rng(1)
  base = LINK.slope * score
  click = rng.random(400) < reward_model.sigmoid(base - 0.5 + 0.4 * (code == 1))

  def cost(x):
    level = np.append(x[1:], 0.0)
    logit = base + x[0] + level[code]
    loss = np.sum(np.logaddexp(0, logit) - click * logit)
    return loss + np.sum(x[1:] ** 2) / (2 * 0.5) + (x[0] + 2.0) ** 2 / 8

  expected = optimize.minimize(cost, np.zeros(4), tol=1e-10).x[0]
  found = observed_lib.fit_offset(base, code, click, 0.5, -2.0)
  assert found == pytest.approx(expected, abs=1e-4)
  assert found > -1.2  # far from where it was expected
  nothing = np.zeros(0)
  assert observed_lib.fit_offset(nothing, nothing, nothing, 0.5, -2.0) == -2.0


@pytest.mark.parametrize('told', [True, False])
def test_beliefs_are_those_of_posterior_with_the_offset(told):
  item, inputs, score = _rows()
  click = np.random.default_rng(2).random(400) < 0.3
  found = _told((item, inputs, score), click, told)
  mine = np.array([n for n, x in enumerate(item) if x == 'b'])
  expected = posterior.update(
      PRIOR.start(1),
      np.zeros(len(mine), int),
      PRIOR.seen(inputs[mine]),
      LINK.slope * score[mine] + found.offset,
      click[mine] * 1.0,
      slice(2 if told else 0, None),
  )
  _same(found.of(['b']), expected)
  if told:  # scores know the rest
    assert not found.of(['b']).mean[0, :2].any()
  _same(found.of(['new', 'b']), [x[[1, 0]] for x in found.of(['b', 'new'])])
  _same(found.of(['new']), PRIOR.start(1))


def test_the_order_of_impressions_and_of_clicks_is_of_no_matter():
  rows = _rows()
  click = np.random.default_rng(3).random(400) < 0.3
  whole = _told(rows, click)
  order = np.random.default_rng(4).permutation(400)
  other = _told(([rows[0][n] for n in order], *(x[order] for x in rows[1:])), 0)
  later = observed_lib.Observed(PRIOR)
  for part in range(0, 400, 50):  # and who asks in between
    later.add(*(x[part : part + 50] for x in rows))
    later.of(['a'])
  for number in order:
    later.set_click(int(number) + 1, bool(click[number]))
  _same(later.of(NAMES[:3]), whole.of(NAMES[:3]))
  for place, number in enumerate(order, start=1):
    other.set_click(place, bool(click[number]))
  _same(other.of(NAMES[:3]), whole.of(NAMES[:3]))


def test_what_is_forgotten_is_as_if_it_had_never_been():
  rows = _rows(3000)
  click = np.random.default_rng(5).random(3000) < 0.3
  found = observed_lib.Observed(PRIOR)
  for part in range(0, 3000, 100):
    found.add(*(x[part : part + 100] for x in (*rows, click)))
    found.keep(250)
  assert len(found) == 250 and len(found._code) < 3000
  last = _told([x[-250:] for x in rows], click[-250:])
  _same(found.of(NAMES[:3]), last.of(NAMES[:3]))
  found.set_click(100, not click[99])  # it is gone
  found.set_click(9999, True)
  _same(found.of(NAMES[:3]), last.of(NAMES[:3]))
  changed = click[-250:].copy()
  changed[0] = not changed[0]
  found.set_click(2751, bool(changed[0]))
  last = _told([x[-250:] for x in rows], changed)
  _same(found.of(NAMES[:3]), last.of(NAMES[:3]))
  found.keep(0)
  _same(found.of(NAMES[:3]), PRIOR.start(3))
  assert found.offset == pytest.approx(LINK.offset)


def test_shown_in_vain_it_sinks_and_clicked_on_it_rises_and_both_narrow():
  found = observed_lib.Observed(PRIOR)
  item = ['vain', 'liked', 'usual'] * 30
  found.add(item, np.ones((90, 2)), np.zeros(90))
  for number in range(30):
    found.set_click(3 * number + 2, number % 2 == 0)
    found.set_click(3 * number + 3, number % 5 == 0)
  vain, liked, usual, new = found.of(['vain', 'liked', 'usual', 'new']).mean
  assert vain[2] < usual[2] < liked[2] and vain[2] < new[2] == 0 < liked[2]
  seen = PRIOR.seen(np.array([[1.0, 1.0], [1.0, -2.0]]))
  wide = posterior.deviation(found.of(['vain', 'liked', 'new']), seen)
  assert wide[0, 1] < wide[0, 0] < 0.6 * wide[0, 2]
  # Of somebody unlike those who saw it less is known.
  assert np.all(wide[1, :2] > 0.9 * wide[1, 2])


def test_what_nobody_can_click_on_says_nothing():
  rows = _rows()
  click = np.random.default_rng(3).random(400) < 0.3
  item = list(rows[0])
  item[::3] = [observed_lib.IGNORED] * len(item[::3])
  some = np.arange(400) % 3 > 0
  found = _told((item, *rows[1:]), click)
  fewer = [x for x, is_in in zip(rows[0], some) if is_in]
  other = _told((fewer, *(x[some] for x in rows[1:])), click[some])
  assert len(found) == 400
  _same(found.of(NAMES[:3]), other.of(NAMES[:3]))


def test_items_of_which_nothing_is_kept_cost_nothing():
  found = observed_lib.Observed(PRIOR)
  for begin in range(0, 20_000, 100):
    names = [f'item {n // 10}' for n in range(begin, begin + 100)]
    found.add(names, np.ones((100, 2)), np.zeros(100), np.ones(100))
    found.keep(150)
    found.of(names[:1])
  assert len(found._names) < 400 and len(found._mean) < 400
  last = observed_lib.Observed(PRIOR)
  names = [f'item {n // 10}' for n in range(20_000 - 150, 20_000)]
  last.add(names, np.ones((150, 2)), np.zeros(150), np.ones(150))
  asked = ['item 0', 'item 1990', 'item 1999', 'item 1500']
  _same(found.of(asked), last.of(asked))
  _same([x[:1] for x in found.of(asked)], PRIOR.start(1))


def test_of_many_impressions_a_few_more_make_no_new_offset(monkeypatch):
  monkeypatch.setattr(observed_lib, '_FEW', 100)
  found = _told(_rows(), np.zeros(400))
  before = found.offset
  found.add(['a'], np.zeros((1, 2)), np.zeros(1), np.ones(1))
  assert found.offset == before
  found.add(['a'] * 9, np.zeros((9, 2)), np.zeros(9), np.ones(9))
  assert found.offset > before
