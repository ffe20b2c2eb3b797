# SPDX-License-Identifier: Apache-2.0
"""The prior of a run: of its validation split, kept where it can be."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import belief_file
from dropoutnet_jax.exploring import belief_fit


@pytest.fixture(name='parts')
def fixture_parts(validated):
  """Problem and scorer of a run whose scores of new items mean something."""
  return validated[1:]


def _liked(asked, sign=1):
  """Likes that go with scores."""
  rng = np.random.default_rng(1)
  noise = rng.normal(size=asked.mean.shape)
  return sign * asked.mean / asked.mean.std() + noise > 1


def _patch_likes(monkeypatch, sign):
  ask = belief_file.held_out.ask

  def asked(*args):
    found = ask(*args)
    return found._replace(liked=_liked(found, sign))

  monkeypatch.setattr(belief_file.held_out, 'ask', asked)


def test_it_is_of_the_new_items_of_the_validation_split(
    parts, tmp_path, monkeypatch
):
  problem, scorer = parts
  _patch_likes(monkeypatch, 1)
  monkeypatch.setattr(belief_fit, 'SHARES', (0.1, 0.3))
  monkeypatch.setattr(belief_fit, 'LEVELS', (0.1, 0.3))
  found = belief_file.obtain(str(tmp_path), problem, scorer, 7)
  held_out = problem.split.evaluation['cold_item_validation']
  assert found.items == len(held_out.candidates)
  assert found.users == len(np.unique(held_out.user))
  assert (found.step, found.note) == (7, '') and found.slope > 0
  assert found.share in belief_fit.SHARES and found.level in belief_fit.LEVELS
  rank = scorer.all_embeddings()['item'].shape[1]
  directions = np.array(found.directions)
  assert directions.shape == (rank, min(rank, 8))
  known = problem.split.train_rows()[1]
  bare = belief_fit.embed_bare(scorer, scorer.tables.item.select(known))
  residual = scorer.all_embeddings()['item'][known] - bare
  np.testing.assert_allclose(
      np.sum(directions**2), np.mean(np.sum(residual**2, axis=1)), rtol=0.2
  )
  kept = json.loads((tmp_path / 'belief.json').read_text())
  assert kept == json.loads(json.dumps(dataclasses.asdict(found)))
  monkeypatch.setattr(belief_file, 'make', None)  # read, not made again
  assert belief_file.obtain(str(tmp_path), problem, scorer, 7) == found
  assert belief_file.read(str(tmp_path), 8) is None


def test_damaged_files_are_made_anew(tmp_path):
  kept = belief_file.Fitted(3, 1.0, -2.0, 0.3, 0.1, [[1.0], [0.5]])
  belief_file.write(str(tmp_path), kept)
  assert belief_file.read(str(tmp_path), 3) == kept
  for damage in (
      {'step': 4},
      {'slope': -1.0},
      {'share': None},
      {'level': float('nan')},
      {'directions': [1.0]},
      {'directions': [[1.0], [1.0, 2.0]]},
      {'unknown': 1},
  ):
    path = tmp_path / belief_file.FILE
    path.write_text(json.dumps(dataclasses.asdict(kept) | damage))
    assert belief_file.read(str(tmp_path), 3) is None, damage
  belief_file.write(str(tmp_path), kept)  # and of towers of another rank
  assert belief_file.read(str(tmp_path), 3, 2) == kept
  assert belief_file.read(str(tmp_path), 3, 3) is None
  path.write_text('{"step"')
  assert belief_file.read(str(tmp_path), 3) is None
  assert belief_file.read(None, 3) is None


def test_scores_that_say_nothing_leave_nothing_to_believe(parts, monkeypatch):
  problem, scorer = parts
  _patch_likes(monkeypatch, -1)
  found = belief_file.make(problem, scorer, 7)
  assert (found.slope, found.share, found.level) == (0, 0, 0)
  assert 'thompson and ucb are greedy' in found.note


def test_without_new_items_known_ones_are_taken_for_new(parts, monkeypatch):
  problem, scorer = parts
  monkeypatch.setattr(belief_file.held_out, 'new_items', lambda problem: None)
  asked = belief_file._as_if_new(problem, scorer, np.random.default_rng(0))
  likes = problem.likes()[asked.users][:, asked.items].toarray() > 0
  np.testing.assert_array_equal(asked.liked, likes)
  emb = scorer.all_embeddings()
  bare = belief_fit.embed_bare(scorer, scorer.tables.item.select(asked.items))
  np.testing.assert_allclose(
      asked.mean, emb['user'][asked.users] @ bare.T, rtol=1e-4, atol=1e-4
  )
  monkeypatch.setattr(
      belief_file,
      '_as_if_new',
      lambda *_: asked._replace(liked=_liked(asked)),
  )
  found = belief_file.make(problem, scorer, 7)
  assert (found.share, found.level) == (1, 1) and found.slope > 0
  assert 'kept no new items' in found.note and 'as a guess' in found.note
  # Of streamed pairs none are known.
  streamed = asked._replace(liked=np.zeros_like(asked.liked))
  monkeypatch.setattr(belief_file, '_as_if_new', lambda *_: streamed)
  found = belief_file.make(problem, scorer, 7)
  assert (found.slope, found.share, found.level) == (0, 0, 0)
  assert found.note.startswith('Scores of known items, as if they were new,')


def test_a_folder_that_cannot_be_written_is_no_hindrance(parts, tmp_path):
  found = belief_file.obtain(str(tmp_path / 'no'), *parts, 7)
  assert found.items and 'cannot be written' in found.note


def test_scores_that_are_not_finite_are_an_error(parts):
  problem, scorer = parts
  bad = jax.tree.map(lambda x: x * np.nan, scorer.variables)
  broken = dataclasses.replace(scorer, variables=bad)
  with pytest.raises(errors.UserError, match='held-out new items are not fin'):
    belief_file.make(problem, broken, 7)
