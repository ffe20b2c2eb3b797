# SPDX-License-Identifier: Apache-2.0
"""A run that fills slates: pools, passes with a sparse part, who gets what."""

import dataclasses
import json

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import calibration_file
from dropoutnet_jax.exploring import masks
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import uncertainty
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import plans

Policy, Plan = policies.Policy, plans.Plan


@pytest.fixture(scope='module', name='explorer')
def fixture_explorer(shop):
  return explorer_lib.Explorer(shop.model)


def _whole(found):
  """Slates of some users and of others as one."""
  parts = list(found)
  return [
      np.concatenate([getattr(part, name) for part in parts])
      for name in ('item', 'score', 'propensity')
  ]


def test_greedy_slates_are_the_lists(shop, explorer):
  users, items = shop.model.users(), shop.model.items()
  exclude = shop.model.seen(users, items)
  item, score, propensity = _whole(
      explorer.slates(users, items, 30, Plan(Policy('greedy')), exclude)
  )
  lists = next(iter(shop.model.recommend(users, items, 30, exclude)))
  np.testing.assert_array_equal(item, lists.item)
  np.testing.assert_array_equal(score, lists.score)
  np.testing.assert_array_equal(propensity, item >= 0)


@pytest.mark.parametrize('spread', plans.SPREADS)
@pytest.mark.parametrize('kind', ['ucb', 'thompson'])
def test_a_seed_gives_the_same_slates_whoever_else_is_asked(
    shop, explorer, kind, spread
):
  items = shop.model.items()
  plan = Plan(Policy(kind), 4, 7, spread)
  whole = _whole(explorer.slates(shop.model.users(), items, 4, plan))
  again = _whole(explorer.slates(shop.model.users(), items, 4, plan))
  for one, other in zip(whole, again):
    np.testing.assert_array_equal(one, other)
  other = _whole(
      explorer.slates(
          shop.model.users(), items, 4, dataclasses.replace(plan, seed=8)
      )
  )
  assert (whole[0] != other[0]).any()


def test_small_pools_have_the_best_of_all_and_of_the_new(
    shop, explorer, monkeypatch
):
  monkeypatch.setattr(explorer_lib, 'POOL', 3)
  monkeypatch.setattr(explorer_lib, 'NEW', 2)
  monkeypatch.setattr(explorer_lib, '_USERS', 10)
  users, items = shop.model.users(), shop.model.items()
  is_new = ~shop.model.is_trained(items)
  uniform = Plan(Policy('epsilon', 1.0), seed=1)
  item, _, propensity = _whole(explorer.slates(users, items, 3, uniform))
  lists = next(iter(shop.model.recommend(users, items, 30)))
  for shown, best in zip(item, lists.item):
    pool = {*best[:3], *best[is_new[best]][:2]}
    assert set(shown) <= pool
    count = len(pool)
  np.testing.assert_allclose(
      propensity[-1], [1 / (count - n) for n in range(3)], rtol=1e-6
  )


def test_passes_without_masks_are_the_scores(shop, explorer, monkeypatch):
  """Both parts are put together as in the lists; new rows as well."""
  model = shop.model
  rates = masks.Rates(0.0, 0.0)
  monkeypatch.setattr(masks, 'CONTENT', 0.0)
  monkeypatch.setattr(masks, 'rates_of', lambda *_: rates)
  spread = uncertainty.Uncertainty(model.cfg, model.scorer)
  users, items = model.users(), model.items()
  pool = np.broadcast_to(np.arange(len(items)), (len(users), len(items)))
  found = spread.passes(
      explorer._users(users), explorer._items(items), pool, 2, 0
  )
  lists = next(iter(model.recommend(users, items, len(items))))
  scores = np.take_along_axis(found[1], lists.item, axis=1)
  np.testing.assert_allclose(scores, lists.score, atol=1e-4)
  np.testing.assert_array_equal(found[0], found[1])


def test_what_is_known_is_surer_than_what_is_new(shop, explorer):
  model = shop.model
  users, items = model.users(), model.items()
  pool = np.broadcast_to(np.arange(len(items)), (len(users), len(items)))
  inputs = explorer._users(users), explorer._items(items)
  found = explorer._uncertainty.passes(*inputs, pool, 16, 0)
  assert found.std(axis=0).min() > 0
  known = inputs[1]._replace(met=inputs[1].met + 1000)
  surer = explorer._uncertainty.passes(inputs[0], known, pool, 16, 0)
  assert surer.std(axis=0).mean() < 0.8 * found.std(axis=0).mean()


def test_impressions_and_quota_reach_the_policy(shop, explorer):
  users, items = shop.model.users(), shop.model.items()
  is_new = ~shop.model.is_trained(items)
  plan = Plan(Policy('greedy', new_share=1.0), seed=0)
  item = _whole(explorer.slates(users, items, 3, plan))[0]
  assert is_new[item].all()
  shown = np.full(len(items), 10**6)
  item = _whole(explorer.slates(users, items, 3, plan, impressions=shown))[0]
  greedy = _whole(explorer.slates(users, items, 3, Plan(Policy('greedy'))))[0]
  np.testing.assert_array_equal(item, greedy)


def test_the_library_shows_by_a_policy(shop):
  shown = facade.Recommender(shop.model)
  with pytest.warns(UserWarning, match='kept no new items for validation'):
    table = shown.recommend(
        ['u1', 'new'],
        4,
        policy=Policy('thompson', 0.1, new_share=0.5),
        passes=4,
        seed=2,
        spread='masks',
        impressions={'i1': 3},
    )
  assert table.column_names == [
      'user_id',
      'rank',
      'item_id',
      'score',
      'propensity',
      'policy',
  ]
  assert len(table) == 8
  assert {*table['policy'].to_pylist()} == {
      'thompson epsilon=0.1 new_share=0.5'
  }
  chances = table['propensity'].to_numpy()
  assert ((chances > 0) & (chances <= 1)).all()
  greedy = shown.recommend(['u1'], 4, policy='greedy')
  plain = shown.recommend(['u1'], 4)
  assert greedy.select(plain.column_names).equals(plain)


def test_a_model_without_input_dropout_has_no_spread(shop, monkeypatch):
  cfg = dataclasses.replace(
      shop.model.cfg,
      dropout=dataclasses.replace(
          shop.model.cfg.dropout, user_rate=0.0, item_rate=0.0
      ),
  )
  model = dataclasses.replace(shop.model, cfg=cfg)
  recommender = facade.Recommender(model)
  with pytest.raises(errors.UserError, match='without input dropout'):
    recommender.recommend(['u1'], 3, policy='ucb', spread='masks')
  with pytest.warns(UserWarning, match='as a guess'):
    assert len(recommender.recommend(['u1'], 3, policy='ucb')) == 3
  assert len(recommender.recommend(['u1'], 3, policy='epsilon')) == 3


@pytest.mark.parametrize(
    'plan, message',
    [
        ({'passes': 0}, 'passes of the policy are 0; they must be 1 to 64'),
        ({'passes': 65}, 'passes of the policy are 65'),
        ({'seed': -1}, 'seed of the policy is -1; it must be 0 to 2147483647'),
        (
            {'spread': 'mask'},
            "spread of the policy is 'mask'; it must be one of belief, masks. "
            "Did you mean 'masks'",
        ),
        ({'spread': None}, 'spread of the policy is None; it must be one of'),
        ({'policy': 'best'}, "'best' is no policy"),
        ({'policy': 3}, '3 is no policy; name one of greedy, epsilon, ucb'),
        ({'policy': Policy('ucb'), 'passes': 2**40}, 'passes of the policy'),
    ],
)
def test_what_the_library_refuses(shop, plan, message):
  recommender = facade.Recommender(shop.model)
  with pytest.raises(errors.UserError, match=message):
    recommender.recommend(['u1'], 3, **({'policy': 'greedy'} | plan))


def test_a_calibration_is_kept_for_its_step_and_read_again(tmp_path, shop):
  kept = calibration_file.Calibration(shop.model.step, 2.5, note='kept')
  calibration_file.write(str(tmp_path), kept)
  explorer = explorer_lib.Explorer(shop.model, str(tmp_path))
  assert explorer.calibration == kept
  path = tmp_path / calibration_file.FILE
  for damage in (
      {'step': shop.model.step + 1},
      {'scale': -1.0},
      {'scale': 'x'},
      {'unknown': 1},
  ):
    path.write_text(json.dumps(dataclasses.asdict(kept) | damage))
    assert calibration_file.read(str(tmp_path), shop.model.step) is None
  path.write_text('{"step"')
  again = explorer_lib.Explorer(shop.model, str(tmp_path)).calibration
  assert again.scale == 1.0 and 'kept no new items' in again.note
  assert calibration_file.read(str(tmp_path), shop.model.step) == again


def test_what_is_prepared_is_compiled(shop, monkeypatch):
  """Whatever the number of passes."""
  explorer = explorer_lib.Explorer(shop.model)
  explorer.prepare([1, 8], 'masks')
  spread = explorer._uncertainty
  compiled = lambda: [
      embed._cache_size() for embed in spread._embed_side.values()
  ]
  before = compiled()
  users, items = shop.model.users(), shop.model.items()
  for passes in (2, 5):
    plan = Plan(Policy('thompson'), passes, 3, 'masks')
    _whole(explorer.slates(users.select(slice(0, 5)), items, 4, plan))
  assert compiled() == before and min(before) > 0
