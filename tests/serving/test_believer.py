# SPDX-License-Identifier: Apache-2.0
"""Beliefs of a run with a sparse part: draws, and labelled pairs of a table."""

import csv
import dataclasses
import warnings

import numpy as np
import pyarrow as pa
import pytest

from dropoutnet_jax.exploring import belief_file
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import told_impressions
from tests import command_line

SLOPE = 0.05


@pytest.fixture(name='folder')
def fixture_folder(shop, tmp_path):
  """A folder with a prior by which scores say little."""
  write_prior(shop, tmp_path)
  return str(tmp_path)


def write_prior(shop, folder):
  directions = np.eye(shop.model.cfg.model.rank)[:, :2].tolist()
  fitted = belief_file.Fitted(
      shop.model.step, SLOPE, -1.0, 1.0, 0.5, directions
  )
  belief_file.write(str(folder), fitted)


def _new_items(shop):
  items = shop.model.items()
  return items.ids[~shop.model.is_trained(items)].tolist()


def _table(shop, number=30):
  """New items a and b, both shown to all, of which b is liked; and others."""
  a, b, *_ = _new_items(shop)
  users = [f'u{n}' for n in range(number)] + ['somebody']
  rows = [(user, a, 0.0) for user in users] + [(user, b, 1.0) for user in users]
  rows += [('u1', 'i_unknown', 1.0), ('somebody', 'i3', 1.0)]
  names = ('user_id', 'item_id', 'label')
  return a, b, pa.table(dict(zip(names, map(list, zip(*rows)))))


def _read(shop, believer, table, items):
  named = facade.given_tables.read(
      table, 'history', {'user_id': '', 'item_id': ''}
  )
  pairs = request_tables.pairs_of(named, shop.model)
  return told_impressions.read(shop.model, believer, pairs, items)


def test_draws_are_of_new_items_alone_and_around_their_scores(shop, folder):
  model = shop.model
  explorer = explorer_lib.Explorer(model, folder)
  users, items = model.users().select(slice(0, 5)), model.items()
  place = np.broadcast_to(np.arange(len(items)), (5, len(items)))
  lists = next(iter(model.recommend(users, items, len(items))))
  mean = np.zeros(place.shape, np.float32)
  np.put_along_axis(mean, lists.item, lists.score, axis=1)
  pool = explorer_lib.Pool(place, mean, np.ones(place.shape, bool))
  is_new = ~model.is_trained(items)
  plan = plans.Plan(policies.Policy('thompson'), 64)
  rng = np.random.default_rng(0)
  passes = explorer.passes(users, items, is_new, pool, plan, rng)
  np.testing.assert_allclose(passes.mean(axis=0), mean, atol=1e-3)
  assert np.all(passes[:, :, ~is_new] == mean[:, ~is_new])
  # The taste in units of the score, with the weight that towers have there.
  tower = model.user_parts(users)[0] * model.scorer.tower_weight
  variance = np.sum(tower[:, :2] ** 2, axis=1) + 0.5 / SLOPE**2
  found = passes[:, :, is_new].var(axis=0).mean(axis=1)
  np.testing.assert_allclose(found, variance, rtol=0.4)
  # One item for all users: their draws go together.
  one = np.flatnonzero(is_new)[0]
  assert np.corrcoef(passes[:, 0, one], passes[:, 1, one])[0, 1] > 0.8


def test_labelled_pairs_are_impressions_of_new_items(shop, folder):
  believer = explorer_lib.Explorer(shop.model, folder).believer
  a, b, table = _table(shop)
  items = shop.model.items()
  found = _read(shop, believer, table, items)
  assert len(found) == 62
  # By hand: scores of the lists, and what towers make of users.
  ids = table['user_id'].to_pylist()[:31]
  rows = facade.Recommender(shop.model).recommend(
      [name for name in ids],
      len(items),
      history={'somebody': ['i3']},
      exclude_seen=False,
  )
  score = {(r['user_id'], r['item_id']): r['score'] for r in rows.to_pylist()}
  expected = facade.Recommender(shop.model).embed_users(
      ids, history={'somebody': ['i3']}
  )
  users = expected.dense[:, -shop.model.cfg.model.rank :]
  belief = posterior.update(
      believer.prior.start(1),
      np.zeros(31, int),
      believer.prior.seen(believer.prior.inputs(users)),
      np.array([SLOPE * score[name, b] for name in ids]) + found.offset,
      np.ones(31),
  )
  got = found.of([a, b])
  np.testing.assert_allclose(got.mean[1], belief.mean[0], atol=1e-3)
  np.testing.assert_allclose(got.precision[1], belief.precision[0], rtol=1e-3)
  assert got.mean[0, 2] < 0 < got.mean[1, 2]
  # Other candidates, and no labels: there are no impressions.
  others = items.select(np.flatnonzero(shop.model.is_trained(items)))
  assert _read(shop, believer, table, others) is None
  bare = table.select(['user_id', 'item_id'])
  assert _read(shop, believer, bare, items) is None


def test_the_library_shows_what_was_liked_and_not_what_was_shown_in_vain(
    shop, folder
):
  a, b, table = _table(shop)
  model = facade.Recommender(shop.model, folder)

  def first(history, **more):
    shown = model.recommend(
        ['u1', 'u2', 'u3', 'somebody'],
        1,
        candidates=[a, b],
        history=history,
        exclude_seen=False,
        policy=policies.Policy('thompson'),
        passes=64,
        seed=3,
        **more,
    )
    assert {*shown['policy'].to_pylist()} == {'thompson spread=belief'}
    chance = shown['propensity'].to_numpy()
    is_b = np.array(shown['item_id'].to_pylist()) == b
    return np.where(is_b, chance, 1 - chance)

  told, untold = first(table), first(None)
  assert np.all(told > 0.95) and np.all((untold > 0.1) & (untold < 0.9))


def test_recommend_learns_from_labels(shop, here, monkeypatch):
  a, b, table = _table(shop)
  with open('told.csv', 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(x.to_pylist() for x in table.columns)))
  with open('items.csv', 'w', encoding='utf-8') as file:
    file.write(f'item_id\n{a}\n{b}\n')
  try:
    write_prior(shop, here / 'run')
    shares = []
    for more in ((), ('--interactions=told.csv',)):
      ended = command_line.call(
          'recommend',
          '--workdir=run',
          '--output=slates.csv',
          '--items=items.csv',
          '--policy=thompson',
          '--k=1',
          '--seed=1',
          '--noexclude_seen',
          *more,
      )
      assert (ended.status, ended.err) == (0, ''), ended.err
      with open('slates.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
      assert {row['policy'] for row in rows} == {'thompson spread=belief'}
      shares.append(np.mean([row['item_id'] == b for row in rows]))
    assert shares[0] < 0.8 < 0.95 < shares[1]
    assert '62 labelled pairs of told.csv are impressions of new' in ended.out
  finally:
    (here / 'run' / 'belief.json').unlink(missing_ok=True)


def test_a_run_without_a_prior_gets_one(shop, tmp_path):
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    model = facade.Recommender(shop.model, str(tmp_path))
    assert len(model.recommend(['u1'], 3, policy='thompson', seed=1)) == 3
  assert ['kept no new items' in str(one.message) for one in said] == [True]
  kept = belief_file.read(str(tmp_path), shop.model.step)
  assert kept is not None and len(kept.directions) == shop.model.cfg.model.rank
  for other in (
      dataclasses.replace(kept, step=kept.step + 1),
      dataclasses.replace(kept, directions=[*kept.directions, [0.0] * 8]),
  ):
    belief_file.write(str(tmp_path), other)
    explorer = explorer_lib.Explorer(shop.model, str(tmp_path))
    assert not explorer.believer.is_fitted()
