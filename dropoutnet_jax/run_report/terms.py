# SPDX-License-Identifier: Apache-2.0
"""What splits, methods and metrics are, for readers who were not there."""

from collections.abc import Iterable
from typing import Any

from dropoutnet_jax.run_report import document

_SPLITS = {
    'warm': (
        'known users, known items: held-out interactions; what a user is known '
        'to like already is no candidate'
    ),
    'cold_item': 'new items for known users: training saw none of these items',
    'cold_user': 'known items for new users: training saw none of these users',
    'cold_both': 'new items for new users: content is all that is known',
}
_METHODS = {
    'model': 'what this run trained: two towers, and the sparse part if any',
    'tower': 'the two towers of the model without its sparse part',
    'oracle': (
        'the true scores that a planted world was drawn from: nothing can be '
        'expected to rank better'
    ),
    'content_ridge': (
        'ridge regression from the content of items to what each user likes, '
        'in closed form; its settings are chosen on held-out training rows'
    ),
    'linear_content': (
        "a linear map from content to the teacher's factors, in closed form"
    ),
    'content_knn': "what is most like the user's items, by its content",
    'teacher': (
        'matrix factorisation (ALS) of the training interactions; of what is '
        'new it knows nothing'
    ),
    'ease': (
        'how much one liked item speaks for another, in closed form (EASE); of '
        'what is new it knows nothing'
    ),
    'popularity': 'the same list for everybody: the most liked items first',
    'ideal_popularity': (
        'the same list for everybody, ordered by the held-out interactions '
        'themselves: about the most that lists can do which do not depend on '
        'the user'
    ),
    'random': 'a random order: what chance gives',
    'model, folded in': (
        "the model where the teacher's factors of a new row are solved for "
        'from the interactions shown, instead of their mean; beside either, a '
        'few usual rows count, and what the model says of the content alone '
        '(features.history_smoothing)'
    ),
    'tower, folded in': 'as above, for the towers alone',
}
_METRICS = {
    'recall': (
        'share of the held-out items of a user that are among the first K of '
        'her list'
    ),
    'ndcg': (
        'as recall, but hits near the top count more; 1 is a list that begins '
        'with all that is held out'
    ),
    'hit': 'share of users with at least one hit among the first K',
    'mrr': '1 / rank of the first hit',
    'precision': 'share of the first K that are held-out items of the user',
    'recall_min': 'hits / K, or / the number of held-out items if that is less',
    'pooled_recall': 'recall of all users together instead of their mean',
    'auc': (
        'probability that an interaction with a reaction is scored above one '
        'without; 0.5 is chance'
    ),
    'gauc': 'AUC within each user, averaged',
    'cold_share': 'share of new items among the first K',
    'coverage': 'share of all candidates that are in any list of K',
    'gini': (
        'how unequally the lists show the candidates: 0 is all alike, 1 is the '
        'same few for everybody'
    ),
    'distinct_lists': 'number of different lists of K',
}


def split_name(name: str) -> str:
  """What a set is, in half a sentence; '' if it is not known."""
  return _SPLITS.get(name.removesuffix('_validation'), '')


def metric_name(name: str) -> str:
  """'NDCG@20' for 'ndcg@20'."""
  kind, at, cutoff = name.partition('@')
  known = {'ndcg': 'NDCG', 'mrr': 'MRR', 'auc': 'AUC', 'gauc': 'GAUC'}
  return known.get(kind, kind) + at + cutoff


def blocks(results: dict[str, Any]) -> list[document.Block]:
  """The terms that the tables of these results use, and their rules."""
  splits = results['splits']
  methods: dict[str, None] = {}
  metrics: dict[str, None] = {}
  curves = results.get('warm_up', {}).values()
  points = [point for curve in curves for point in curve.values()]
  for part in (*splits.values(), *points):
    for kind in ('methods', 'labelled'):
      _collect(part.get(kind, {}), methods, metrics)
    _collect(part.get('mixed', {}).get('methods', {}), methods, metrics)
  found: list[document.Block] = []
  for title, known, used in (
      ('Evaluation sets', _SPLITS, splits),
      ('Methods', _METHODS, methods),
      ('Metrics', _METRICS, metrics),
  ):
    rows = [[name, known[name]] for name in known if name in used]
    if rows:
      found.append(document.Part(title, [_table(rows)]))
  rules = [[name, text] for name, text in results.get('rules', {}).items()]
  if rules:
    found.append(document.Part('Rules of the evaluation', [_table(rules)]))
  return found


def _collect(
    methods: dict[str, Any], names: dict[str, None], metrics: dict[str, None]
) -> None:
  """Adds the names of methods, and of metrics without their cut-offs."""
  for method, values in methods.items():
    names[method] = None
    metrics |= dict.fromkeys(_kinds(values))


def _kinds(names: Iterable[str]) -> list[str]:
  return [name.partition('@')[0] for name in names]


def _table(rows: list[list[str]]) -> document.Table:
  return document.Table(['name', 'meaning'], rows, left=2)
