# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of search measures, on few items."""

import numpy as np
import pytest

from benchmarks import search
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving.index import factory

pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")


@pytest.fixture(autouse=True)
def few_items(monkeypatch):
  sizes = {'_ITEMS': 300, '_WIDTH': 8, '_USERS': 6, '_K': 5}
  for name, size in {**sizes, '_ROUNDS': 2, '_UPSERTS': 3}.items():
    monkeypatch.setattr(search, name, size)


def test_both_sides_rank_the_same_items():
  found = search.run(None)
  batch, as_it_comes, upsert, soon = found.rows
  assert all(min(row.ours, row.other, row.ratio) > 0 for row in found.rows)
  assert batch.bar == soon.bar == 1.0 and soon.ours == upsert.ours
  assert as_it_comes.bar is None and upsert.bar is None
  assert '100.00 % of the places' in found.notes[0]


def test_an_item_that_is_not_found_stops_the_benchmark(monkeypatch):
  items = embeddings.Embedding(np.ones((3, 8), np.float32))
  index = factory.build('exact', [0, 1, 2], items)
  monkeypatch.setattr(index, 'upsert', lambda *unused: None)
  with pytest.raises(AssertionError, match='-1 was put in'):
    search.upsert_seconds(index, np.random.default_rng(0))
