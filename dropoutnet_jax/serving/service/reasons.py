# SPDX-License-Identifier: Apache-2.0
"""Why an item is in a list, in a few words and numbers.

explain.py says all that there is to say of a score; here are the largest parts
of it. `value` is what a thing adds to the score, or what the score loses
without it: such losses do not add up.
"""

from typing import Any

from dropoutnet_jax.serving import explain as explain_lib
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.service import limits

_LEAST = 0.01  # of the largest part: what is less is left out


def of_pair(
    ranker: recommender_lib.Ranker, user: rows_lib.Rows, item: rows_lib.Rows
) -> list[dict[str, Any]]:
  """The reasons of one user, one row, and one item, one row.

  Returns:
    The largest first, at most so many of content and preference, and as many
    items: 'kind' ('tag', 'feature' and 'preference'; 'history' of items that
    the user has met, 'expected' of others that somebody like her meets), 'side'
    ('user', 'item' or 'both'), 'name' and 'value'.
  """
  found = explain_lib.explain(ranker, user, item)
  history: dict[tuple[str, Any], float] = {}
  for share in found.history:
    key = 'history' if share.met else 'expected', share.item
    history[key] = history.get(key, 0.0) + share.value
  parts = [_reason('tag', 'both', name, value) for name, value in found.tags]
  for loss in found.without:
    if loss.kind == 'history':
      key = 'history', loss.name
      history[key] = history.get(key, 0.0) + loss.value
    else:
      parts.append(_reason(loss.kind, loss.side, loss.name, loss.value))
  met = [
      _reason(kind, 'user', name, value)
      for (kind, name), value in history.items()
  ]
  return [*_largest(parts), *_largest(met)]


def _reason(kind: str, side: str, name: Any, value: float) -> dict[str, Any]:
  return {'kind': kind, 'side': side, 'name': str(name), 'value': value}


def _largest(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The largest, and none that is small beside the first."""
  found = sorted(found, key=lambda reason: -abs(reason['value']))
  least = _LEAST * abs(found[0]['value']) if found else 0.0
  kept = [reason for reason in found if abs(reason['value']) > least]
  return kept[: limits.REASONS]
