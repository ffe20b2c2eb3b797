# SPDX-License-Identifier: Apache-2.0
"""An index of items that is searched and changed by many threads at once.

A search takes a snapshot under the lock, and then needs no lock. A change is
made under the lock too, and costs what it brings. What is slow, an approximate
index of what came in or rows without those that went, is made by a thread of
its own and put in place when it is ready; until then every search scores these
rows exactly.
"""

from collections.abc import Iterable, Sequence
import logging
import threading
import time

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.serving.index import banned as banned_lib
from dropoutnet_jax.serving.index import index_files
from dropoutnet_jax.serving.index import names as names_lib
from dropoutnet_jax.serving.index import nearest as nearest_lib
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.index import pair_scores
from dropoutnet_jax.serving.index import protocol
from dropoutnet_jax.serving.index import recall as recall_lib
from dropoutnet_jax.serving.index import scan
from dropoutnet_jax.serving.index import store as store_lib
from dropoutnet_jax.serving.index import vectors

_FEW = 4  # one item in so many is few: they are searched apart
_LEAST_DEAD = 4096  # rows of items that went, before they are cleared away
_RETRY_SECONDS = 60.0  # after something that failed in the background
_LOG = logging.getLogger('dropoutnet_jax.index')


class ItemIndex(protocol.Index):
  """See `protocol.Index`, which this is.

  Attributes:
    kind: of `options.KINDS`.
    options: of the approximate kinds.
    recall: what was measured when it was built; None if nothing was.
  """

  def __init__(
      self,
      kind: str,
      settings: options_lib.Options,
      store: store_lib.Store,
      nearest: nearest_lib.Nearest | None = None,
      recall: recall_lib.Recall | None = None,
  ):
    self.kind = kind
    self.options = settings
    self.recall = recall
    self._store = store
    self._nearest = nearest
    self._lock = threading.Lock()
    self._keeper: threading.Thread | None = None
    self._idle_until = -float('inf')  # as time.monotonic() has it

  @property
  def ids(self) -> np.ndarray:
    """int64 or object [J], the items in their order."""
    now = self._store.snapshot
    return now.ids[now.alive]

  def __len__(self) -> int:
    return self._store.snapshot.number

  def __contains__(self, name: object) -> bool:
    with self._lock:
      return name in self._store.place

  def upsert(
      self,
      ids: Sequence[protocol.Id] | np.ndarray,
      embedding: protocol.Embedded,
  ) -> None:
    """See `protocol.Index`."""
    items = vectors.of(embedding, 'the items')
    self._check_widths(items, 'The items')
    names = names_lib.array(ids, self._store.snapshot.ids)
    names_lib.check_number(names, len(items))
    with self._lock:
      self._store.put(names, items)
      self._tend()

  def delete(self, ids: Sequence[protocol.Id] | np.ndarray) -> int:
    """See `protocol.Index`."""
    with self._lock:
      number = self._store.remove(names_lib.listed(ids))
      self._tend()
    return number

  def search(
      self,
      users: protocol.Embedded,
      k: int,
      *,
      exclude: Sequence[Sequence[protocol.Id]] | None = None,
      allow: Sequence[protocol.Id] | np.ndarray | None = None,
  ) -> protocol.Found:
    """See `protocol.Index`."""
    wanted = vectors.of(users, 'the users')
    return self.find(wanted, k, exclude=exclude, allow=allow)

  def find(
      self,
      users: vectors.Vectors,
      k: int,
      *,
      exclude: Sequence[Sequence[protocol.Id]] | None = None,
      allow: Sequence[protocol.Id] | np.ndarray | None = None,
      exact: bool = False,
  ) -> protocol.Found:
    """`search` for users as arrays; by all items if it must be exact."""
    self._check_widths(users, 'The users')
    names_lib.check_k(k)
    lists = names_lib.exclusions(exclude, len(users))
    with self._lock:
      now, nearest = self._store.snapshot, self._nearest
      banned = _banned(self._store, lists)
      only = None
      if allow is not None:
        only = np.unique(self._store.rows(names_lib.listed(allow)))
    nearest = None if exact else nearest
    rows, score = _search(now, nearest, users, k, banned, only)
    found = np.full(rows.shape, None, object)
    there = rows >= 0
    found[there] = now.ids[rows[there]].tolist()
    return protocol.Found(found, score)

  def settle(self) -> None:
    """Waits until nothing is made in the background any more."""
    while True:
      with self._lock:
        keeper = self._keeper
      if keeper is None:
        return
      keeper.join()

  def save(self, folder: str) -> None:
    """See `protocol.Index`."""
    with self._lock:
      now, nearest = self._store.snapshot, self._nearest
    index_files.save(
        folder,
        index_files.Saved(self.kind, self.options, now, nearest, self.recall),
    )

  def measure_recall(self, queries: vectors.Vectors | None) -> None:
    """Compares lists with exact ones, and keeps the share that is found.

    Args:
      queries: users; None: some of the items stand for users.
    """
    of, number = 'users', self.options.recall_queries
    if not number or not len(self):
      return
    if queries is None:
      of, now = 'items', self._store.snapshot
      rows = np.flatnonzero(now.alive)
      rng = np.random.default_rng(0)
      sample = rng.choice(len(rows), min(number, len(rows)), replace=False)
      queries = now.items.select(rows[np.sort(sample)])
    k = min(self.options.recall_k, len(self))
    found, exact = (self.find(queries, k, exact=flag) for flag in (False, True))
    share = recall_lib.share_found(found, exact)
    self.recall = recall_lib.Recall(round(share, 6), k, len(queries), of)

  def _check_widths(self, found: vectors.Vectors, what: str) -> None:
    wanted = self._store.snapshot.items.widths
    if found.widths != wanted:
      raise errors.UserError(
          f'{what} have {_described(found.widths)}, and the index has '
          f'{_described(wanted)}; both must come from the same model.'
      )

  def _tend(self) -> None:
    """Starts what is due, in a thread; called under the lock."""
    if self._keeper is not None or time.monotonic() < self._idle_until:
      return
    if self._is_full() or self._is_littered():
      self._keeper = threading.Thread(
          target=self._keep, name='index-keeper', daemon=True
      )
      self._keeper.start()

  def _is_littered(self) -> bool:
    """Whether more rows are of items that went than of items."""
    now = self._store.snapshot
    dead = len(now) - now.number
    return dead > max(now.number, _LEAST_DEAD)

  def _is_full(self) -> bool:
    """Whether many rows are outside of the approximate index."""
    if self.kind == 'exact':
      return False
    covered = 0 if self._nearest is None else len(self._nearest)
    return len(self._store.snapshot) - covered > self.options.fresh

  def _keep(self) -> None:
    """What the thread does, until nothing is due."""
    try:
      while True:
        with self._lock:
          littered, full = self._is_littered(), self._is_full()
          now, nearest = self._store.snapshot, self._nearest
          if not (littered or full):
            self._keeper = None
            return
        if littered:
          self._clear(now)
        else:
          self._cover(now, nearest)
    except Exception:
      # No change is refused for it: lists are right, if slower, without.
      _LOG.exception(
          'The index cannot be made anew now; what came in is scored item by '
          'item, and the first change after %.0f s tries again.',
          _RETRY_SECONDS,
      )
      with self._lock:
        self._idle_until = time.monotonic() + _RETRY_SECONDS
        self._keeper = None

  def _cover(
      self,
      now: store_lib.Snapshot,
      nearest: nearest_lib.Nearest | None,
  ) -> None:
    """Puts all rows of the snapshot into the approximate index."""
    if nearest is None:
      made = nearest_lib.make(self.kind, self.options, now.items)
    else:
      made = nearest.extended(now.items)
    with self._lock:
      self._nearest = made

  def _clear(self, before: store_lib.Snapshot) -> None:
    """Makes rows of the items that are left, then adds what came meanwhile."""
    kept = np.flatnonzero(before.alive)
    store = store_lib.Store(before.ids[kept], before.items.select(kept))
    made = None
    if self.kind != 'exact' and len(kept):
      made = nearest_lib.make(self.kind, self.options, store.snapshot.items)
    with self._lock:
      now = self._store.snapshot
      gone = kept[~now.alive[kept]]
      store.remove(before.ids[gone].tolist())
      came = len(before) + np.flatnonzero(now.alive[len(before) :])
      store.put(now.ids[came], now.items.select(came))
      self._store, self._nearest = store, made


def _search(
    now: store_lib.Snapshot,
    nearest: nearest_lib.Nearest | None,
    users: vectors.Vectors,
    k: int,
    banned: banned_lib.Banned | None,
    only: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Rows and scores [N, k] of a snapshot.

  Args:
    now: the snapshot.
    nearest: of its first rows, or None: all are scored.
    users: N.
    k: items of each.
    banned: pairs that must not be found.
    only: int64 [C], ascending rows that alone may be found; None: all.
  """
  allowed = None if now.number == len(now) else now.alive
  if only is not None:
    only = only[now.alive[only]]
    if len(only) * _FEW <= len(now):
      pairs = None if banned is None else banned.among(only)
      rows, score = scan.best(users, now.items.select(only), k, banned=pairs)
      there = rows >= 0
      rows[there] = only[rows[there]]
      return rows, score
    allowed = np.zeros(len(now), bool)
    allowed[only] = True
  if nearest is None:
    return scan.best(users, now.items, k, allowed, banned)
  return _search_nearest(now.items, nearest, users, k, allowed, banned)


def _search_nearest(
    items: vectors.Vectors,
    nearest: nearest_lib.Nearest,
    users: vectors.Vectors,
    k: int,
    allowed: np.ndarray | None,
    banned: banned_lib.Banned | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Candidates of the approximate index, and all rows that it has not.

  All rows for users of whom these leave too few.
  """
  covered = len(nearest)
  inside = None if allowed is None else allowed[:covered]
  if inside is not None and inside.all():
    inside = None
  most = 0 if banned is None else banned.most()
  rows = nearest.candidates(users, k, inside, most)
  if covered < len(items):
    rest = slice(covered, len(items))
    fresh, _ = scan.best(
        users,
        items.select(rest),
        min(k, len(items) - covered),
        None if allowed is None else allowed[rest],
        None if banned is None else banned.of_rows(covered, len(items)),
    )
    rows = np.hstack([rows, np.where(fresh >= 0, fresh + covered, -1)])
  if banned is not None:
    rows = np.where(banned.holds(rows, len(items)), -1, rows)
  score = pair_scores.pair_scores(users, items, rows)
  rows, score = pair_scores.best(rows, score, k)
  # Few candidates are left where most are banned or not allowed, or k is large.
  most = len(items) if allowed is None else int(np.count_nonzero(allowed))
  taken = 0 if banned is None else banned.count(len(users), allowed)
  wanted = np.minimum(k, most - taken)
  short = np.flatnonzero((rows >= 0).sum(axis=1) < wanted)
  if len(short):
    pairs = None if banned is None else banned.of(short)
    rows[short], score[short] = scan.best(
        users.select(short), items, k, allowed, pairs
    )
  return rows, score


def _banned(
    store: store_lib.Store, lists: Sequence[Iterable[protocol.Id]] | None
) -> banned_lib.Banned | None:
  """The pairs of rows and users that lists of ids name."""
  if lists is None or not any(lists):
    return None
  rows = [store.rows(names) for names in lists]
  user = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
  return banned_lib.make_banned(np.concatenate(rows), user)


def _described(widths: tuple[int, int | None]) -> str:
  dense, sparse = widths
  return f'{dense} dense and {sparse or "no"} sparse columns'
