# SPDX-License-Identifier: Apache-2.0
"""What the data and the model of a run are, in numbers."""

from typing import Any

import jax
import numpy as np

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib


def of_data(problem: problem_lib.Problem) -> dict[str, Any]:
  """Counts of rows, pairs, evaluation sets and features, by section."""
  users, items = len(problem.user.ids), len(problem.item.ids)
  pairs = int(problem.like_counts()[0].sum())
  train_users, train_items = problem.split.train_rows()
  splits = {
      name: protocol.describe_set(held_out)
      for name, held_out in problem.split.evaluation.items()
  }
  return {
      'data': {
          'users': users,
          'items': items,
          'training pairs': pairs,
          'density': pairs / max(users * items, 1),
          'cold users': 1 - len(train_users) / users,
          'cold items': 1 - len(train_items) / items,
      },
      'splits': splits,
      'features': {
          f'{side}: dense / sparse columns, rows without content': (
              getattr(problem, side).dense.shape[1],
              getattr(problem, side).sparse.shape[1],
              _rows_without_content(getattr(problem, side)),
          )
          for side in ('user', 'item')
      }
      | _more_features(problem),
  }


def _more_features(problem: problem_lib.Problem) -> dict[str, Any]:
  """Tokens, their embedding tables and preference features, if any."""
  facts: dict[str, Any] = {}
  for name in ('user', 'item'):
    side = getattr(problem, name)
    width = side.preference_dense.shape[1]
    if width:
      known = int(side.preference_known.sum())
      facts[f'{name}: preference columns, rows with a value'] = (width, known)
    for group in ('tokens', 'preference_tokens'):
      tokens = getattr(side, group)
      tables = {t.table: (t.num_ids, t.width) for t in tokens.features}
      if tables:
        shown = [f'{t} {n:,} x {width}' for t, (n, width) in tables.items()]
        label = f'{name}: columns of {group.replace("_", " ")}, embeddings'
        facts[label] = f'{tokens.id.shape[1]} / {", ".join(shown)}'
  return facts


def of_model(runtime: runtime_lib.Runtime) -> dict[str, Any]:
  """Parameters and memory; the sparse part's own where there is one."""
  state, part = jax.eval_shape(runtime.fresh_state), runtime.sparse
  count = lambda tree: sum(int(x.size) for x in jax.tree.leaves(tree))
  size = lambda tree: sum(
      int(x.size) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )
  model: dict[str, Any] = {
      'user tower parameters': count(state.params['user_tower']),
      'item tower parameters': count(state.params['item_tower']),
      'embedding tables, parameters': count(state.params.get('embeddings', ())),
      'embedding rank': runtime.cfg.model.rank,
      'pairs per step': runtime.pairs_per_step,
  }
  memory = {'tables': size(runtime.tables), 'training state': size(state)}
  if part is not None:
    # Fitted in closed form: the users' histories and their side of the
    # correction, the map of content to the items' side, and the second kernel;
    # what content of users lets expect.
    fitted = [part.history.data, part.user_dense, part.correction.weights]
    fitted += [] if part.second is None else [*vars(part.second).values()]
    fitted += [] if part.predictor is None else [part.predictor]
    if part.expected is not None:
      fitted += [part.expected.weights, part.expected.bias]
    content = runtime.problem.item.sparse
    model |= {
        'sparse part: columns / correction rank': part.correction.weights.shape,
        'sparse part: fitted numbers': count(fitted),
        'sparse part: nonzeros of histories / item content': (
            int(part.history.nnz),
            int(content.nnz),
        ),
    }
    memory['sparse part'] = size(
        [*fitted, part.history.indices, part.history.indptr]
    )
    memory['sparse content of the items'] = size(
        [content.data, content.indices, content.indptr]
    )
  memory['peak of this process'] = results_lib.peak_memory()
  return {'model': model, 'memory in bytes': memory}


def _rows_without_content(side: problem_lib.Side) -> int:
  filled = np.diff(side.sparse.indptr) > 0
  if side.dense.shape[1]:
    filled |= side.dense.any(axis=1)
  filled |= (side.tokens.id > 0).any(axis=1)
  return int(len(filled) - filled.sum())
