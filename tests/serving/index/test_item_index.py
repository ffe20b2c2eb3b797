# SPDX-License-Identifier: Apache-2.0
"""Any sequence of changes and searches gives what a dictionary gives."""

import sys
import threading

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.index import item_index
from dropoutnet_jax.serving.index import nearest
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.index import store
from tests.serving.index import slow_index

APPROXIMATE = ('flat', 'ivf', 'hnsw')
# So wide that even approximate indexes of a few items find all of them.
WIDE = options_lib.Options(
    candidates=1000, terms=99, probes=999, search_breadth=999, fresh=3
)


@pytest.fixture(name='kind', scope='module', params=options_lib.KINDS)
def fixture_kind(request):
  """Each kind; FAISS is an extra."""
  if request.param in APPROXIMATE:
    pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  return request.param


def _name(number, is_text):
  return f'item {number}' if is_text else int(number) * 10**12


@pytest.mark.parametrize('is_text', [False, True])
@pytest.mark.parametrize('is_sparse', [False, True])
@hypothesis.settings(max_examples=8)
@hypothesis.given(seed=strategies.integers(0, 2**31))
def test_changes_and_searches(kind, is_sparse, is_text, seed):
  rng = np.random.default_rng(seed)
  names = lambda most: [
      _name(n, is_text) for n in rng.permutation(30)[: rng.integers(0, most)]
  ]
  first = names(15)
  items = slow_index.draw(rng, len(first), is_sparse)
  index = factory.build(kind, first, items, WIDE)
  slow = slow_index.SlowIndex(first, items)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(item_index, '_LEAST_DEAD', 4)
    patch.setattr(store, '_MOST_INT32', 60)  # entries; then 64 bits
    for step in range(8):
      if rng.random() < 0.6:
        some = names(8)
        items = slow_index.draw(rng, len(some), is_sparse)
        index.upsert(some, items)
        slow.upsert(some, items)
      else:
        some = names(8)
        assert index.delete(some) == slow.delete(some)
      if step % 3 == 0:
        index.settle()
      assert index.ids.tolist() == list(slow.items)
      assert len(index) == len(slow.items)
      assert all(name in index for name in slow.items)
      users = slow_index.draw(rng, 3, is_sparse)
      exclude = [names(6) for _ in range(3)] if rng.random() < 0.5 else None
      allow = names(30) if rng.random() < 0.5 else None
      k = int(rng.integers(1, 12))
      filters = {'exclude': exclude, 'allow': allow}
      found = index.search(users, k, **filters)
      assert found.ids.shape == found.scores.shape == (3, k)
      assert found.lists() == slow.search(users, k, **filters)
      assert np.isneginf(found.scores[found.ids == None]).all()  # noqa: E711


def test_an_empty_index_takes_its_first_items(kind):
  users = slow_index.embedding([[1.0, 0, 0]])
  empty = slow_index.embedding(np.zeros((0, 3)))
  index = factory.build(kind, [], empty)
  found = index.search(users, 2)
  assert found.ids.tolist() == [[None, None]]
  assert not len(index) and index.delete(['a']) == 0
  index.upsert(['a'], slow_index.embedding([[2.0, 0, 0]]))
  assert index.search(users, 2).lists() == [[('a', 2.0)]]
  assert index.search(users, 2, allow=[]).lists() == [[]]


def test_embeddings_of_the_host_are_taken_as_well():
  rng = np.random.default_rng(0)
  items, users = slow_index.draw(rng, 9), slow_index.draw(rng, 2)
  of_host = lambda emb: embedding_files.on_host(np.arange(9), emb)
  index = factory.build('exact', range(9), of_host(items))
  slow = slow_index.SlowIndex(range(9), items)
  assert index.search(of_host(users), 4).lists() == slow.search(users, 4)


def test_what_comes_in_becomes_part_of_the_approximate_index():
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  rng = np.random.default_rng(0)
  draw = lambda number: slow_index.embedding(rng.normal(size=(number, 3)))
  settings = options_lib.Options(fresh=10, recall_queries=0)
  index = factory.build('hnsw', range(50), draw(50), settings)
  index.upsert(range(50, 60), draw(10))
  index.settle()
  assert len(index._nearest) == 50, 'ten are few'
  index.upsert([60], draw(1))
  index.settle()
  assert len(index._nearest) == 61
  assert index.recall is None


def test_rows_of_items_that_went_are_cleared_away(monkeypatch):
  monkeypatch.setattr(item_index, '_LEAST_DEAD', 20)
  index = factory.build('exact', ['a'], slow_index.embedding([[1.0]]))
  for value in range(200):
    index.upsert(['a', 'b'], slow_index.embedding([[value], [-value]]))
  index.settle()
  assert len(index._store.snapshot) < 60
  users = slow_index.embedding([[1.0]])
  assert index.search(users, 3).lists() == [[('a', 199.0), ('b', -199.0)]]


def test_a_failure_in_the_background_is_logged_and_tried_again(
    monkeypatch, caplog
):
  """And no change is refused, or made by half, for it."""
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  one = slow_index.embedding([[1.0]])
  settings = options_lib.Options(fresh=0, recall_queries=0)
  index = factory.build('flat', ['a'], one, settings)
  asked = []

  def fail(*unused):
    asked.append(len(index))
    raise MemoryError('no memory for a copy')

  with monkeypatch.context() as patch:
    patch.setattr(nearest.Nearest, 'extended', fail)
    for name in ('b', 'c'):
      index.upsert([name], one)
      index.settle()
    assert asked == [2], 'not with every change'
    (record,) = caplog.records
    assert 'cannot be made anew' in record.message
    assert record.exc_info[1].args == ('no memory for a copy',)
    assert index.search(one, 3).ids.tolist() == [['a', 'b', 'c']]
    patch.setattr(item_index, '_RETRY_SECONDS', 0.0)
    index._idle_until = 0.0
    index.upsert(['d'], one)
    index.settle()
  assert len(asked) == 2 and len(index._nearest) == 1
  index.upsert(['e'], one)
  index.settle()
  assert len(index._nearest) == 5
  assert index.search(one, 5).ids.tolist() == [['a', 'b', 'c', 'd', 'e']]


def test_readers_never_miss_an_item_that_a_writer_changes(kind, monkeypatch):
  """The best item is changed all the time: always there, always once."""
  monkeypatch.setattr(item_index, '_LEAST_DEAD', 8)
  rng = np.random.default_rng(0)
  rest = slow_index.embedding(rng.normal(size=(300, 4)))
  settings = options_lib.Options(fresh=8, recall_queries=0)
  index = factory.build(kind, range(300), rest, settings)
  best = lambda value: slow_index.embedding([[value, 0, 0, 0]])
  index.upsert([1000], best(50.0))
  done, wrong = threading.Event(), []

  def read():
    user, last = best(1.0), 0.0
    while not done.is_set():
      (found,) = index.search(user, 3).lists()
      name, score = found[0]
      others = [other for other, _ in found[1:]]
      if name != 1000 or score < last or 1000 in others:
        wrong.append((found, last))
      last = score

  readers = [threading.Thread(target=read) for _ in range(3)]
  for reader in readers:
    reader.start()
  for step in range(120):
    changed = slow_index.embedding([[50.0 + step, 0, 0, 0], [1.0, 0, 0, 0]])
    index.upsert([1000, step], changed)
    index.delete([299 - step])
  done.set()
  for reader in readers:
    reader.join()
  index.settle()
  assert not wrong
  assert len(index) == 181


def test_recall_is_measured():
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  rng = np.random.default_rng(0)
  items = slow_index.embedding(rng.normal(size=(600, 8)))
  users = slow_index.embedding(rng.normal(size=(20, 8)))
  settings = options_lib.Options(candidates=1, lists=30, probes=2, recall_k=10)
  index = factory.build('ivf', range(600), items, settings, queries=users)
  exact = factory.build('exact', range(600), items)
  pairs = zip(index.search(users, 10).ids, exact.search(users, 10).ids)
  shares = [len(set(mine) & set(best)) / 10 for mine, best in pairs]
  assert 0.1 < np.mean(shares) < 0.9
  assert index.recall.value == pytest.approx(np.mean(shares), abs=1e-5)
  assert (index.recall.k, index.recall.queries) == (10, 20)
  assert index.recall.of == 'users'
  flat = factory.build('flat', range(600), items, settings)
  assert flat.recall.value == 1.0 and flat.recall.of == 'items'


@pytest.mark.parametrize('other', APPROXIMATE)
def test_lists_are_full_where_there_are_items(other):
  """However many are asked for, banned, or not allowed."""
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  rng = np.random.default_rng(1)
  embedded = lambda number: slow_index.embedding(rng.normal(size=(number, 8)))
  first, more, users = embedded(800), embedded(100), embedded(3)
  settings = options_lib.Options(probes=1, search_breadth=1, fresh=200)
  index = factory.build(other, range(800), first, settings)
  exact = factory.build('exact', range(800), first)
  for one in (index, exact):
    one.upsert(range(800, 900), more)
  for k in (20, 700, 1000):
    lists = index.search(users, k).lists()
    assert [len(one) for one in lists] == [min(k, 900)] * 3
  best = exact.search(users, 900).ids.tolist()
  banned = [best[0][:600] + best[0][:1], [], best[2][:50]]
  half = range(0, 900, 2)
  for k in (100, 900):
    found = index.search(users, k, exclude=banned, allow=half).lists()
    for mine, less in zip(found, banned):
      left = set(half) - set(less)
      assert len(mine) == min(k, len(left))
      assert {name for name, _ in mine} <= left


@pytest.mark.parametrize('other', APPROXIMATE)
def test_exact_and_approximate_agree_on_scores(other):
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  rng = np.random.default_rng(0)
  sparse = lambda n: rng.random((n, 40)) * (rng.random((n, 40)) < 0.1)
  draw = lambda n: slow_index.embedding(rng.normal(size=(n, 16)), sparse(n))
  items, users = draw(500), draw(30)
  exact = factory.build('exact', range(500), items)
  settings = options_lib.Options(probes=40)
  index = factory.build(other, range(500), items, settings, queries=users)
  everything = exact.search(users, 500)
  for mine, whole in zip(index.search(users, 20).lists(), everything.lists()):
    scores = dict(whole)
    assert len(mine) == 20
    for name, score in mine:
      assert score == pytest.approx(scores[name], abs=1e-5)
  assert index.recall.value > 0.8


def test_without_faiss_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'faiss', None)
  one = slow_index.embedding([[1.0]])
  with pytest.raises(errors.UserError, match=r'dropoutnet_jax\[ann\]'):
    factory.build('hnsw', ['a'], one)
  factory.build('exact', ['a'], one)
