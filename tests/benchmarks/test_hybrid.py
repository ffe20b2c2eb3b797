# SPDX-License-Identifier: Apache-2.0
"""The hybrid of feature embeddings: features, WARP, learning, its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import feature_sums
from benchmarks import hybrid
from dropoutnet_jax import experiment
from dropoutnet_jax.evaluation import baselines
from dropoutnet_jax.evaluation import protocol
from tests.benchmarks import tiny_task


def test_a_new_row_is_its_content_alone(problem):
  found = feature_sums.features(problem, 'item')
  content = problem.item.sparse.toarray()
  width = content.shape[1]
  known = np.zeros(len(content), bool)
  known[problem.split.train_rows()[1]] = True
  assert known.any() and not known.all()
  assert not found[~known, width:].any()
  own = found[known, width:]
  assert ((own > 0).sum(axis=1) == 1).all()
  for row in (np.flatnonzero(known)[0], np.flatnonzero(~known)[0]):
    total = np.abs(content[row]).sum() + known[row]
    np.testing.assert_allclose(
        found[row, :width], content[row] / total, rtol=1e-6
    )


def test_warp_by_hand():
  positive = jnp.array([2.0, 2.0, 2.0])
  drawn = jnp.array([[0.5, 1.5, 3.0], [9.0, 0.0, 1.25], [0.0, 0.5, 0.9]])
  allowed = jnp.array([[1, 1, 1], [0, 1, 1], [1, 1, 1]], bool)
  # The second of the first row violates the margin; in the second row the
  # first may not count and the third does; in the last one none does.
  expected = np.log(50 // 1 // 2 + 0.0) * (1 - 2 + 1.5)
  expected += np.log(50 // 3) * (1 - 2 + 1.25)
  found = feature_sums.warp_loss(positive, drawn, allowed, 51)
  np.testing.assert_allclose(found, expected / 3, rtol=1e-6)
  grad = jax.grad(feature_sums.warp_loss, argnums=1)(
      positive, drawn, allowed, 51
  )
  assert (np.asarray(grad) != 0).tolist() == [
      [False, True, False],
      [False, False, True],
      [False, False, False],
  ]


def test_it_learns_who_likes_what(problem):
  cfg = tiny_task.get_config()
  settings = feature_sums.Settings(rank=8, num_epochs=20)
  found = hybrid.measure(cfg, problem, settings, seed=0)
  again = hybrid.measure(cfg, problem, settings, seed=0)
  assert found == again
  assert set(found) == {'warm', 'cold_item'}
  held_out = problem.split.evaluation['warm']
  by_chance = protocol.evaluate(
      baselines.make_random(0)('warm', held_out),
      held_out,
      problem.likes(),
      cfg.evaluation,
      'chance',
  )
  assert found['warm'] > 1.2 * by_chance[hybrid.METRIC]


def test_new_rows_are_known_by_their_content(problem):
  """A known row made new is what any new row of its content is."""
  settings = feature_sums.Settings(rank=8, num_epochs=2)
  fitted = feature_sums.fit(problem, settings, seed=0)
  cold = problem.split.evaluation['cold_item'].candidates
  content = problem.item.sparse.toarray()[cold]
  _, same = np.unique(content, axis=0, return_inverse=True)
  for number in range(same.max() + 1):
    rows = fitted.item[cold][same == number]
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
  assert len(np.unique(fitted.item[cold], axis=0)) == same.max() + 1


def test_the_table_has_means_and_bars():
  ours = [{'warm': 0.2, 'cold_item': 0.3}, {'warm': 0.4, 'cold_item': 0.3}]
  others = [{'warm': 0.3, 'cold_item': 0.2}, {'warm': 0.3, 'cold_item': 0.4}]
  warm, cold = hybrid.summarize(ours, others).rows
  assert (warm.ours, warm.other, warm.met) == pytest.approx((0.3, 0.3, True))
  assert cold.ratio == pytest.approx(1.0) and cold.met is False


def test_the_experiment_has_all_quadrants():
  cfg = experiment.load(hybrid.EXPERIMENT)
  assert cfg.data.cold_user_share == cfg.data.cold_item_share == 0.2
  assert cfg.data.warm_share > 0
