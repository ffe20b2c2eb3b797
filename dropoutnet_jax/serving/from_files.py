# SPDX-License-Identifier: Apache-2.0
"""From files of users to a file of lists: what `run.py recommend` does.

Users are read, ranked and written block by block: memory does not grow with
their number. Candidates are held, and so are interactions.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import sys

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.serving import explorer
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving import policy_flags
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import row_sources
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_files
from dropoutnet_jax.serving import told_impressions
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import telemetry

_SHOWN_USERS = 5
_Lists = recommender_lib.Lists | explorer.Slates


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for; the fields are the flags of that name.

  Attributes:
    output: file of the lists.
    users: file of users; None asks for all of the run.
    items: file of candidates; None takes those of the run.
    interactions: file of what users met, beside training; None for none.
    k: items of each user, at most.
    candidates: 'all', 'new' (items without training pairs) or 'known' ones.
    exclude_seen: whether users get nothing that they are known to have met.
    policy: kind of `policies.Policy` that fills slates; None for lists.
    epsilon: of the policy, as all that follows; None for its default.
    width: likewise.
    new_share: likewise.
    boost: likewise.
    passes: likewise.
    seed: likewise.
    spread: likewise.
  """

  output: str | None
  users: str | None = None
  items: str | None = None
  interactions: str | None = None
  k: int = 20
  candidates: str = 'all'
  exclude_seen: bool = True
  policy: str | None = None
  epsilon: float | None = None
  width: float | None = None
  new_share: float | None = None
  boost: float | None = None
  passes: int | None = None
  seed: int | None = None
  spread: str | None = None

  def plan(self) -> plans.Plan | None:
    """The policy with its numbers; None for lists.

    Raises:
      UserError: for a policy that there is not, or numbers without one.
    """
    values = {name: getattr(self, name) for name in policy_flags.NAMES}
    return policy_flags.plan(self.policy, values)

  def check(self, workdir: str | None) -> tuple[str, str]:
    """The run folder and the file of the lists.

    Raises:
      UserError: for what can be told before anything is read.
    """
    names = ('output', 'users', 'items', 'interactions')
    empty = [name for name in names if getattr(self, name) == '']
    if empty:
      raise errors.UserError(f'--{empty[0]} is empty; name a file.')
    if workdir is None or self.output is None:
      raise errors.UserError(
          'recommend needs a run and a file for its lists; write python run.py '
          'recommend --workdir=RUN --output=FILE.csv.'
      )
    if self.k < 1:
      raise errors.UserError(f'--k={self.k}: a list has at least 1 item.')
    known = recommender_lib.CANDIDATES
    if self.candidates not in known:
      raise errors.UserError(
          f'--candidates={self.candidates}: it must be one of '
          f'{", ".join(known)}.' + errors.did_you_mean(self.candidates, known)
      )
    self.plan()
    inputs = [self.users, self.items, self.interactions]
    list_files.check(self.output, [path for path in inputs if path])
    run_folder.check_not_owned(workdir, 'output', self.output)
    return workdir, self.output


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was written, and its beginning.

  Attributes:
    step: of the checkpoint.
    num_users: who were asked about.
    num_candidates: items that were ranked.
    num_rows: of the file.
    lists: of the first users: (id, [(item id, score), ...]), best first.
    notes: what was left out or is missing, one sentence each.
  """

  step: int
  num_users: int
  num_candidates: int
  num_rows: int
  lists: list[tuple[str, list[tuple[str, float]]]]
  notes: list[str]


def answer(workdir: str | None, request: Request) -> Answer:
  """Ranks with the best checkpoint of a run folder, and writes the lists.

  Args:
    workdir: the run folder, of a training that is finished or not.
    request: what is asked for.

  Raises:
    UserError: for whatever is wrong with the request, its files or the folder;
      no file is written or changed then.
  """
  workdir, output = request.check(workdir)
  model = recommender_lib.load(workdir)
  items = model.items()
  item_notes: list[str] = []
  if request.items:
    items, item_notes = request_files.read_rows(request.items, 'item', model)
  items = _choose(model, items, request.candidates)
  told = None
  if request.interactions:
    told = told_files.Told(request.interactions, 'user', model, items.ids)
  source = row_sources.of(request.users, 'user', model, distinct=True)
  users = _Users(model, source, told, items)
  watch = _Watch(source.total, items)
  asked, k = users.read(request.exclude_seen), min(request.k, len(items))
  plan, plan_notes = request.plan(), []
  which = np.ones(len(items), bool)
  parts: Iterable[tuple[rows_lib.Rows, _Lists]]
  if plan is None:
    ranked = _told_of(told, model, items, which)
    parts = model.recommend_parts(asked, ranked, k)
  else:
    by_policy = explorer.Explorer(model, workdir)
    plan_notes = [note for note in (by_policy.check(plan),) if note]
    plan_notes.append(f'Slates by {plan}, drawn with --seed={plan.seed}.')
    observed = None
    if told is not None and plan.reads_beliefs:
      observed = told_impressions.read(
          model, by_policy.believer, told.pairs, items
      )
    if observed is not None:
      plan_notes.append(
          f'{len(observed):,} labelled pairs of {request.interactions} are '
          'impressions of new items.'
      )
      which = model.is_trained(items)  # of the others beliefs know already
    ranked = _told_of(told, model, items, which)
    parts = by_policy.slate_parts(asked, ranked, k, plan, observed)
  num_rows = list_files.write(
      output,
      model.problem.user.ids,
      items.ids,
      watch.lists(parts),
      None if plan is None else str(plan),
  )
  notes = source.notes() + item_notes + users.told_notes
  if request.exclude_seen and model.problem.split.streamed is not None:
    notes.append(
        'Training interactions were streamed, so that what users met there '
        'stays in their lists; --interactions=FILE takes out what it holds.'
    )
  notes += plan_notes
  if users.bare:
    notes.append(
        f'Of {users.bare:,} new users neither content nor history is known; '
        'they all get the same list.'
    )
  return Answer(
      model.step, users.count, len(items), num_rows, watch.first, notes
  )


def _told_of(
    told: told_files.Told | None,
    model: recommender_lib.Ranker,
    items: rows_lib.Rows,
    which: np.ndarray,
) -> rows_lib.Rows:
  """Candidates [J], of which some [J] know who likes them."""
  if told is None:
    return items
  found = told_files.with_likes(items, told.pairs, model, which)
  told.tell(found)
  return found


@dataclasses.dataclass
class _Users:
  """Who is asked about, block by block, and what they must not get.

  Attributes:
    model: of the run.
    source: of the users.
    told: what they met beside training, or None.
    items: the candidates.
    count: users that were read.
    bare: of them, new ones of whom nothing at all is known.
    told_notes: on what they met, when all are read.
  """

  model: recommender_lib.Ranker
  source: row_sources.Run
  told: told_files.Told | None
  items: rows_lib.Rows
  count: int = 0
  bare: int = 0
  told_notes: list[str] = dataclasses.field(default_factory=list)

  def read(
      self, exclude_seen: bool
  ) -> Iterator[tuple[rows_lib.Rows, scipy.sparse.csr_array | None]]:
    """Users and the candidates that each is known to have met."""
    for users in self.source.read():
      exclude = met = None
      if self.told is not None:
        users, met = self.told.add(users)
      if exclude_seen:
        exclude = self.model.seen(users, self.items)
        if met is not None:
          exclude = scipy.sparse.csr_array(exclude + met)
      self._count(users)
      yield users, exclude
    if self.told is not None:
      self.told_notes = self.told.check()

  def _count(self, users: rows_lib.Rows) -> None:
    self.count += len(users)
    if users.entities is not None and users.entities.columns:
      return
    is_bare = users.is_new()
    if users.history is not None:
      is_bare &= np.diff(users.history.indptr) == 0
    self.bare += int(is_bare.sum())


def _choose(
    model: recommender_lib.Ranker, items: rows_lib.Rows, which: str
) -> rows_lib.Rows:
  """The candidates among items: all, or those with or without training pairs.

  Raises:
    UserError: if there are none.
  """
  if which == 'all':
    return items
  is_trained = model.is_trained(items)
  chosen = np.flatnonzero(is_trained == (which == 'known'))
  if not len(chosen):
    have = 'all of them have' if which == 'new' else 'none of them has'
    raise errors.UserError(
        f'--candidates={which} leaves nothing of {len(items):,} items: {have} '
        'training pairs.'
    )
  return items.select(chosen)


class _Watch:
  """A bar of lists on the standard error.

  Attributes:
    first: lists of the first users.
  """

  def __init__(self, total: int | None, items: rows_lib.Rows):
    self._total, self._items = total, items
    self.first: list[tuple[str, list[tuple[str, float]]]] = []

  def lists(
      self, parts: Iterable[tuple[rows_lib.Rows, _Lists]]
  ) -> Iterator[tuple[np.ndarray, _Lists]]:
    """Ids of users and lists, while the bar shows how far they are."""
    bar = telemetry.Bar('recommend', 'user', self._total, file=sys.stderr)
    done = 0
    try:
      for users, lists in parts:
        ids = users.ids[lists.users]
        self._keep_first(ids, lists)
        yield users.ids, lists
        done += len(ids)
        bar.show(done, lambda rate: f'{rate:,.0f} users/s')
    finally:
      bar.close()

  def _keep_first(self, ids: np.ndarray, lists: _Lists) -> None:
    for row, name in enumerate(ids[: _SHOWN_USERS - len(self.first)]):
      best = zip(lists.item[row].tolist(), lists.score[row].tolist())
      named = [(str(self._items.ids[n]), score) for n, score in best if n >= 0]
      self.first.append((str(name), named))
