# SPDX-License-Identifier: Apache-2.0
"""What is compiled before the first request, so that none waits for it."""

import dataclasses

from dropoutnet_jax.evaluation import model_scores
from tests.serving.service import test_paths


def test_histories_wait_for_no_compilation(start, shop, tmp_path, monkeypatch):
  """Towers are traced while the service starts, and not again."""
  traced = []
  blended = model_scores.trust.blended

  def counted(*arguments):
    traced.append(arguments)
    return blended(*arguments)

  monkeypatch.setattr(model_scores.trust, 'blended', counted)
  scorer = shop.model.scorer
  fresh = model_scores.Embedder(scorer.embedder.model)
  scorer = dataclasses.replace(scorer, embedder=fresh)
  model = dataclasses.replace(shop.model, scorer=scorer)
  with start(tmp_path / 'state.sqlite', model=model) as running:
    before = len(traced)
    assert before
    running.lists({'id': 'u1'}, {'history': ['i4']}, {'content': {'age': 30}})
    items = [{'id': 'fresh', 'content': test_paths.CONTENT}]
    running.post('/items', items=items)
    told = [{'user': user, 'item': 'fresh'} for user in ('u1', 'late')]
    running.post('/interactions', interactions=told)
    running.lists({'id': 'u1'}, {'id': 'late', 'history': ['i1', 'i2']})
    running.post('/embed', users=[{'history': ['i3']}])
    running.post('/embed', items=[{'id': 'fresh'}])
    assert len(traced) == before
