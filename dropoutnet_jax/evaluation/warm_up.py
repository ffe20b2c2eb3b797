# SPDX-License-Identifier: Apache-2.0
"""The warm-up curve: what the first interactions of a new row are worth.

Of the held-out pairs of each cold user or item some are shown to a model that
stays as it is: they become the row's preference, as at serving, and the model
ranks for the pairs that stay hidden. These are the same for every number of
shown pairs, and so the points of a curve compare.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import teacher
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import baselines as base
from dropoutnet_jax.evaluation import bootstrap
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import ridge_method
from dropoutnet_jax.model import embeddings

SIDES = ('item', 'user')


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """Held-out pairs of one side's cold rows: those to show and the others.

  Attributes:
    side: 'user' or 'item'.
    rows: int32 [C], the cold rows, ascending.
    showable: pairs that may be shown.
    rank: int64 [E], which pair of its cold row each showable one is.
    held_out: the pairs that stay hidden at every count.
    likes: [U, I], training pairs and showable ones: no candidates.
  """

  side: str
  rows: np.ndarray
  showable: schema.Interactions
  rank: np.ndarray
  held_out: schema.EvaluationSet
  likes: scipy.sparse.csr_array

  def shown(self, count: int) -> scipy.sparse.csr_array:
    """The first `count` pairs of each cold row: 1s, [C, rows of the other]."""
    matrix = self.showable.select(self.rank < count).matrix(*self.likes.shape)
    return (
        matrix.T.tocsr()[self.rows]
        if self.side == 'item'
        else matrix[self.rows]
    )


def plan(
    problem: problem_lib.Problem,
    side: str,
    most: int,
    seed: int,
    max_users: int = 0,
) -> WarmUp | None:
  """Draws the pairs to show, from `cold_item` or `cold_user`.

  A row shows at most half of its pairs, so that every row with pairs keeps
  some to be found.

  Args:
    problem: the data of the run.
    side: 'user' or 'item'.
    most: pairs of a row that are shown at most.
    seed: of the draw.
    max_users: whose lists are evaluated at most; 0 is all. All cold rows show
      what they have to show either way.

  Returns:
    None where no pair of a cold row is held out.
  """
  held_out = problem.split.evaluation.get(f'cold_{side}')
  if held_out is None:
    return None
  user, column = protocol.relevant_pairs(held_out)
  item = held_out.candidates[column]
  if not len(user):
    return None
  own = item if side == 'item' else user
  generator = np.random.default_rng(seed)
  order = np.lexsort((generator.permutation(len(own)), own))
  user, item, own = user[order], item[order], own[order]
  rank = np.arange(len(own)) - np.searchsorted(own, own)
  is_shown = rank < np.minimum(np.bincount(own)[own] // 2, most)
  showable = schema.Interactions(user[is_shown], item[is_shown])
  asked = np.unique(user[~is_shown])
  if max_users and len(asked) > max_users:
    asked = generator.choice(asked, max_users, replace=False)
  is_found = ~is_shown & np.isin(user, asked)
  train = problem.likes()
  return WarmUp(
      side,
      held_out.candidates if side == 'item' else np.unique(held_out.user),
      showable,
      rank[is_shown],
      schema.EvaluationSet(
          user[is_found],
          item[is_found],
          held_out.candidates,
          exclude_train=True,
      ),
      scipy.sparse.csr_array(train + showable.matrix(*train.shape)),
  )


def teacher_method(
    problem: problem_lib.Problem, warm_up: WarmUp, folded: np.ndarray
) -> protocol.Method:
  """Scores by the teacher's factors; the cold rows have folded ones, [C, P]."""
  user, item = problem.factors.user.copy(), problem.factors.item.copy()
  (user if warm_up.side == 'user' else item)[warm_up.rows] = folded

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    across = jnp.asarray(item[held_out.candidates])

    def score(rows: np.ndarray) -> jax.Array:
      return embeddings.dense_scores(jnp.asarray(user[rows]), across)

    return score

  return method


class OfModel(NamedTuple):
  """One side's curve of the model and the teacher.

  Where all processes take part in the model's scores, this is their part.

  Attributes:
    plan: what is shown.
    curve: {shown pairs: {method: where it ranks the hidden ones}}.
  """

  plan: WarmUp
  curve: dict[int, dict[str, protocol.Ranks]]


def measure(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    cfg: config.Config,
) -> dict[str, OfModel | None]:
  """The model's part of `evaluate` by side; None without cold rows."""
  settings = cfg.evaluation
  most = max(settings.warm_up_counts, default=0)
  found: dict[str, OfModel | None] = {}
  for side in SIDES:
    drawn = plan(problem, side, most, cfg.train.seed, settings.warm_up_users)
    if drawn is None:
      found[side] = None
      continue
    found[side] = OfModel(
        drawn,
        {
            count: _ranks(
                make_methods(problem, scorer, cfg, drawn, count),
                cfg,
                drawn,
                count,
            )
            for count in settings.warm_up_counts
        },
    )
  return found


def evaluate(
    measured: Mapping[str, OfModel | None],
    cfg: config.Config,
    baselines: Mapping[str, protocol.Method],
) -> dict[str, Any]:
  """The `warm_up` of results.json.

  Args:
    measured: of the model, by `measure`.
    cfg: the experiment.
    baselines: of the tables; those that can be told histories of users take
      part in the curve of users.

  Returns:
    By side and number of shown pairs what a split has: counts and 'methods';
    with 'shown_mean', the pairs that were shown of each cold row, and
    'rows_with_fewer', the cold rows that did not have so many to show, and
    'more': this point less the one before, recall and NDCG by method
    (`bootstrap.two_way`), so that harm by more history is seen to be none or
    noise.
    'model' sees the mean of the shown partners' factors (the transform) and
    'model, folded in' the teacher's fold-in of them, both smoothed; 'teacher'
    is the fold-in, which the teacher of a sparse part has in both. Features of
    a cold row stay unknown; where preference is made of them alone, its towers
    learn nothing from what is shown.
  """
  return {
      side: _curve(of_model, cfg, baselines) if of_model else {}
      for side, of_model in measured.items()
  }


def _curve(
    of_model: OfModel,
    cfg: config.Config,
    baselines: Mapping[str, protocol.Method],
) -> dict[str, Any]:
  """One side's part of `evaluate`."""
  curve, warm_up = {}, of_model.plan
  before: dict[str, protocol.Ranks] = {}
  for count, ranks in of_model.curve.items():
    shown = warm_up.shown(count).sum(axis=1)
    point: dict[str, Any] = protocol.describe_set(warm_up.held_out)
    point['shown_mean'] = round(float(np.mean(shown)), 3)
    point['rows_with_fewer'] = int(np.sum(shown < count))
    told = _told(baselines, warm_up, count)
    ranks = ranks | _ranks(told, cfg, warm_up, count)
    point['methods'] = {
        name: metrics.summary(one.user_metrics(cfg.evaluation))
        for name, one in ranks.items()
    }
    if cfg.evaluation.bootstrap and cfg.evaluation.cutoffs and before:
      point['more'] = _more(ranks, before, cfg.evaluation)
    before, curve[str(count)] = ranks, point
  return curve


def _more(
    ranks: Mapping[str, protocol.Ranks],
    before: Mapping[str, protocol.Ranks],
    settings: config.EvaluationConfig,
) -> dict[str, dict[str, Any]]:
  """What the pairs shown since the point before have changed.

  Users and items are drawn again: the next new films are others, and on a
  shelf of three hundred a single one that everybody wants decides the mean.
  """
  gaps: dict[str, np.ndarray] = {}
  for name in [name for name in ranks if name in before]:
    now, then = (of[name].pair_metrics(settings) for of in (ranks, before))
    gaps |= {f'{name}/{metric}': now[metric] - then[metric] for metric in now}
  pairs = next(iter(ranks.values()))  # of all methods and points
  _, item = np.unique(pairs.item, return_inverse=True)
  bounds = bootstrap.two_way(gaps, pairs.group, item, settings.bootstrap)
  num_users = len(pairs.users)
  flat = {}
  for name, gap in gaps.items():
    of_user = np.bincount(pairs.group, gap, num_users)
    flat[name] = bootstrap.describe(of_user, bounds[name])
  return bootstrap.nested(flat)


def _ranks(
    methods: Mapping[str, protocol.Method],
    cfg: config.Config,
    warm_up: WarmUp,
    count: int,
) -> dict[str, protocol.Ranks]:
  """Of the hidden pairs by method, at one point."""
  side, held_out = warm_up.side, warm_up.held_out
  return {
      name: protocol.rank(
          method(f'cold_{side}', held_out),
          held_out,
          warm_up.likes,
          cfg.evaluation,
          f'{name}, {count} interactions of each new {side} shown',
      )
      for name, method in methods.items()
  }


def _told(
    baselines: Mapping[str, protocol.Method], warm_up: WarmUp, count: int
) -> dict[str, protocol.Method]:
  """Baselines that know `count` pairs of each new user."""
  if warm_up.side == 'item':
    return {}
  shown = warm_up.shown(count)
  return {
      name: method.told(warm_up.rows, shown)
      for name, method in baselines.items()
      if isinstance(method, (base.ContentKnn, ridge_method.ContentRidge))
  }


def make_methods(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    cfg: config.Config,
    warm_up: WarmUp,
    count: int,
) -> dict[str, protocol.Method]:
  """The methods of one point: they know `count` pairs of each cold row."""
  side = warm_up.side
  other = 'item' if side == 'user' else 'user'
  shown, rows = warm_up.shown(count), warm_up.rows
  table = getattr(scorer.tables, side)
  told = scorer.with_reactions(side, rows, shown.sum(axis=1))
  if side == 'user':
    told = told.with_histories(rows, shown, problem.user.dense[rows])
  else:
    told = told.with_item_likes(rows, shown)
  if cfg.features.preference != 'none':
    met = _factors(problem, scorer, cfg, other)
    told = told.with_told(side, rows, table.history_means(shown, met))
  methods = told.methods()
  factors = getattr(problem.factors, other)
  # Factors from elsewhere were not fitted with these settings.
  if not factors.shape[1] or cfg.teacher.source != 'als':
    return methods
  folded = teacher.fold_in(factors, shown, cfg.teacher)
  methods['teacher'] = teacher_method(problem, warm_up, folded)
  if cfg.features.preference == 'factors':
    told = told.with_told(side, rows, table.folded_in(folded, shown, factors))
    methods |= {
        f'{name}, folded in': method for name, method in told.methods().items()
    }
  return methods


def _factors(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    cfg: config.Config,
    side: str,
) -> np.ndarray:
  """What histories of the other side are means of: float32 [M, P]."""
  if scorer.embedder.split is None:
    return np.asarray(getattr(scorer.tables, side).factors)
  # Of which no device has all rows; these are on the host in any case.
  if cfg.features.preference == 'factors':
    return getattr(problem.factors, side)
  return getattr(problem, side).dense.astype(np.float32)
