# SPDX-License-Identifier: Apache-2.0
"""Kinds of indexes, and what can be set of the approximate ones."""

import dataclasses

from dropoutnet_jax import errors

KINDS = ('exact', 'flat', 'ivf', 'hnsw')


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of an index; 0 is a default that depends on the items.

  Attributes:
    candidates: that are scored exactly for each item asked for, from the dense
      and from the sparse part each.
    terms: of a query's sparse part that are looked up: the strongest.
    lists: 'ivf': of items; by default 4 times the root of their number, of 39
      items and more each.
    probes: 'ivf': lists that a query reads; by default a sixteenth of them, and
      8 at least.
    links: 'hnsw': of an item to others.
    build_breadth: 'hnsw': items looked at to find these links.
    search_breadth: 'hnsw': items that a query keeps in sight.
    fresh: items that came in since, and are scored exactly by every query,
      before they become part of the approximate index.
    recall_queries: queries that recall is measured with when it is built; 0
      measures none.
    recall_k: items of each.
  """

  candidates: int = 4
  terms: int = 32
  lists: int = 0
  probes: int = 0
  links: int = 32
  build_breadth: int = 80
  search_breadth: int = 128
  fresh: int = 16384
  recall_queries: int = 100
  recall_k: int = 100

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      least = 0 if field.name in _MAY_BE_ZERO else 1
      if isinstance(value, bool) or not isinstance(value, int):
        raise errors.UserError(
            f'Option {field.name} of an index is {value!r}; it must be a whole '
            'number.'
        )
      if not least <= value < 2**31:
        raise errors.UserError(
            f'Option {field.name} of an index is {value}; it must be from '
            f'{least} to 2147483647.'
        )


_MAY_BE_ZERO = ('lists', 'probes', 'fresh', 'recall_queries')


def check_kind(kind: str) -> None:
  """Raises UserError for a kind that there is not."""
  if kind not in KINDS:
    raise errors.UserError(
        f'There is no index of kind {kind!r}; there are {", ".join(KINDS)}.'
        f'{errors.did_you_mean(str(kind), KINDS)}'
    )
