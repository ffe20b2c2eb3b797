# SPDX-License-Identifier: Apache-2.0
"""All results where no device has all rows of a table, and no row of scores."""

import dataclasses

import jax
import numpy as np

from dropoutnet_jax.evaluation import examples
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.evaluation import split_scores
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run


def with_labels(labelled):
  """The problem with labelled rows in a test set: every other one in vain."""
  held_out = labelled.split.evaluation['cold_item']
  rng = np.random.default_rng(0)
  rows = dataclasses.replace(
      labelled.labelled.train,
      user=np.repeat(held_out.user, 2),
      item=rng.choice(held_out.candidates, 2 * len(held_out)),
      label=np.tile(np.float32([0, 1]), len(held_out)),
      session=None,
  )
  more = dataclasses.replace(labelled.labelled, evaluation={'cold_item': rows})
  return dataclasses.replace(labelled, labelled=more)


def test_whole_embeddings_are_evaluated_like_on_one_device(labelled):
  """Towers and sparse part, of tables whose rows eight does not divide."""
  problem, found = with_labels(labelled), []
  assert len(problem.user.ids) % 8
  for num_devices, model in ((1, 1), (8, 8)):
    cfg = tiny_run.changed(
        mesh={'model': model},
        objective={'pairing': 'interactions', 'pointwise': 1.0},
        train={'batch_size': 64},
        evaluation={'users_per_chunk': 20},
    )
    cfg.model.sparse.enabled = True
    cfg.model.sparse.history_weight = 0.5
    cfg.model.sparse.teacher_weight = 0.5
    cfg.model.sparse.landmarks = 20
    cfg.model.sparse.predicted_weight = 0.2
    cfg.model.sparse.norm_power = 0.3
    part = sparse_fit.fit(problem, cfg.model.sparse, 0)
    runtime = runtime_lib.build(cfg, problem, part, num_devices)
    state = runtime.fresh_state()
    results, per_user = results_lib.evaluate(
        runtime, state, loop.Outcome(0, 1.0)
    )
    scorer = runtime.scorer(state)
    score = scorer.methods()['model'](
        'cold_item', problem.split.evaluation['cold_item']
    )
    kind = split_scores.SplitScores if model > 1 else jax.Array
    assert isinstance(score(np.arange(20)), kind)
    named = ('splits', 'warm_up', 'embedding_rank')
    shown = examples.collect(problem, scorer, cfg.evaluation)
    found.append([[results[name] for name in named], shown, per_user])
  flat = [
      {
          jax.tree_util.keystr(path): x
          for path, x in jax.tree_util.tree_leaves_with_path(one)
      }
      for one in found
  ]
  assert flat[0].keys() == flat[1].keys() and len(flat[0]) > 300
  assert any("['labelled']['tower']['log_loss']" in name for name in flat[0])
  for name, expected in flat[0].items():
    if isinstance(expected, (str, bool)):
      assert flat[1][name] == expected, name
    else:
      # Known and new items of one genre differ by rounding in the sparse part.
      is_loose = "['mixed']['methods']['model']" in name
      np.testing.assert_allclose(
          flat[1][name],
          expected,
          rtol=1e-4,
          atol=0.02 if is_loose else 1e-6,
          err_msg=name,
      )
