# SPDX-License-Identifier: Apache-2.0
"""From files of users to a file of lists: what `run.py recommend` does."""

from collections.abc import Iterable, Iterator
import dataclasses

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.serving import explorer
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import rows as rows_lib
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

  def plan(self) -> explorer.Plan | None:
    """The policy with its numbers; None for lists.

    Raises:
      UserError: for a policy that there is not, or numbers without one.
    """
    given = {
        name: getattr(self, name)
        for name in ('epsilon', 'width', 'new_share', 'boost', 'passes', 'seed')
        if getattr(self, name) is not None
    }
    if self.policy is None:
      if given:
        raise errors.UserError(
            f'--{next(iter(given))} is of a policy; name one with --policy, '
            f'such as {policies.KINDS[-1]}, or leave it out.'
        )
      return None
    own = {x: given.pop(x) for x in ('passes', 'seed') if x in given}
    policy = policies.Policy(self.policy, **given)
    return explorer.Plan(policy, **own).with_seed()

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
  users, items, notes = model.users(), model.items(), []
  if request.users:
    users, more = request_files.read_rows(request.users, 'user', model)
    notes += more
  if request.items:
    items, more = request_files.read_rows(request.items, 'item', model)
    notes += more
  items = _choose(model, items, request.candidates)
  exclude = None
  if request.interactions:
    path = request.interactions
    users, met, more = request_files.read_history(path, model, users, items)
    notes += more
    exclude = model.seen(users, items) + met
  elif request.exclude_seen:
    exclude = model.seen(users, items)
  if request.exclude_seen and model.problem.split.streamed is not None:
    notes.append(
        'Training interactions were streamed, so that what users met there '
        'stays in their lists; --interactions=FILE takes out what it holds.'
    )
  notes += request_files.describe_unknown(users)
  k = min(request.k, len(items))
  exclude = exclude if request.exclude_seen else None
  plan = request.plan()
  first: list[tuple[str, list[tuple[str, float]]]] = []
  lists: Iterable[_Lists]
  if plan is None:
    lists = model.recommend(users, items, k, exclude)
  else:
    by_policy = explorer.Explorer(model, workdir)
    note = by_policy.check(plan)
    notes += [note] * bool(note)
    notes.append(f'Slates by {plan.policy}, drawn with --seed={plan.seed}.')
    lists = by_policy.slates(users, items, k, plan, exclude)
  num_rows = list_files.write(
      output,
      users.ids,
      items.ids,
      _watched(lists, users, items, first),
      None if plan is None else str(plan.policy),
  )
  return Answer(model.step, len(users), len(items), num_rows, first, notes)


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


def _watched(
    lists: Iterable[_Lists],
    users: rows_lib.Rows,
    items: rows_lib.Rows,
    first: list[tuple[str, list[tuple[str, float]]]],
) -> Iterator[_Lists]:
  """The lists, while a bar shows how far they are; those of the first users."""
  bar = telemetry.Bar('recommend', 'user', len(users))
  try:
    for part in lists:
      for place in range(*part.users.indices(_SHOWN_USERS)):
        row = place - part.users.start
        best = zip(part.item[row].tolist(), part.score[row].tolist())
        named = [(str(items.ids[n]), score) for n, score in best if n >= 0]
        first.append((str(users.ids[place]), named))
      yield part
      bar.show(part.users.stop, lambda rate: f'{rate:,.0f} users/s')
  finally:
    bar.close()
