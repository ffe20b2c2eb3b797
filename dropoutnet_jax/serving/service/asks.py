# SPDX-License-Identifier: Apache-2.0
"""What requests ask of the model, after they were checked.

Ids are those of the run's kind and content has columns of the run; whether an
id is known is for the model's thread to say, which sees all changes in order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving.service import ids as ids_lib

Id = ids_lib.Id
Content = Mapping[str, Any]


class User(NamedTuple):
  """Somebody who is asked about.

  Attributes:
    id: of the run, of interactions that were told, or new; None for nobody in
      particular.
    content: columns; None where none were given.
    history: items that she met, beside what is known of her id.
    is_forgotten: whether nothing but content is taken from what is known of her
      id, as if she had just come.
  """

  id: Id | None = None
  content: Content | None = None
  history: Sequence[Id] = ()
  is_forgotten: bool = False


class Item(NamedTuple):
  """An item that is asked about: one that is known by its id, or content."""

  id: Id | None = None
  content: Content | None = None


class Recommend(NamedTuple):
  """Lists for some users.

  Attributes:
    users: whose.
    k: items of each.
    candidates: 'all', 'new' (items without training pairs) or 'known'.
    exclude_seen: whether users get nothing that they are known to have met.
    reasons: whether each item comes with what carried its score.
    plan: the policy that fills slates; None for lists.
  """

  users: Sequence[User]
  k: int
  candidates: str = 'all'
  exclude_seen: bool = True
  reasons: bool = False
  plan: plans.Plan | None = None


class PutItem(NamedTuple):
  """An item with its content from now on."""

  id: Id
  content: Content


class Embed(NamedTuple):
  """Embeddings of users, or of items."""

  side: str
  rows: Sequence[Any]


class Interaction(NamedTuple):
  """Somebody met an item."""

  user: Id
  item: Id
  label: float
