# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests and answers as JSON: their fields, types and bounds.

They are what OpenAPI describes; of content the columns are added, which differ
from run to run. What only the run or the state can tell is checked later.
"""

from typing import Annotated, Any, Literal

import pydantic

from dropoutnet_jax.exploring import policies
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving.service import ids
from dropoutnet_jax.serving.service import limits

_LIMIT = 2**63


def _read_id(value: Any) -> int | str:
  """One message for all that is no id, where a union would have two."""
  if isinstance(value, str) and 0 < len(value) <= limits.ID_LENGTH:
    return value
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if is_whole and -_LIMIT <= value < _LIMIT:
    return value
  raise ValueError(
      f'an id is a string of 1 to {limits.ID_LENGTH} characters, or a whole '
      'number of 64 bits'
  )


_ID_SCHEMA = {
    'anyOf': [
        {'type': 'integer', 'minimum': -_LIMIT, 'maximum': _LIMIT - 1},
        {
            'type': 'string',
            'minLength': 1,
            'maxLength': limits.ID_LENGTH,
            'pattern': ids.PATTERN,
        },
    ]
}
Id = Annotated[
    int | str,
    pydantic.PlainValidator(_read_id),
    pydantic.WithJsonSchema(_ID_SCHEMA),
]
Flag = Annotated[bool, pydantic.Field(strict=True)]
Candidates = Literal['all', 'new', 'known']
K = Annotated[int, pydantic.Field(strict=True, ge=1, le=limits.K)]
History = Annotated[list[Id], pydantic.Field(max_length=limits.HISTORY)]


class Body(pydantic.BaseModel):
  """Fields that are not there are refused: a slip would pass unnoticed."""

  model_config = pydantic.ConfigDict(extra='forbid')


_CHANCE = pydantic.Field(strict=True, ge=0, le=1)
_DEVIATIONS = pydantic.Field(1.0, strict=True, ge=0, le=1e6)


class Policy(Body):
  """How slates are filled; its kind alone may stand for it."""

  kind: Literal['greedy', 'epsilon', 'ucb', 'thompson']
  epsilon: Annotated[float, _CHANCE] | None = None
  width: float = _DEVIATIONS
  new_share: Annotated[float, _CHANCE] = 0.0
  boost: Annotated[float, _DEVIATIONS] = 0.0
  half_life: float = pydantic.Field(100.0, strict=True, gt=0, le=1e9)
  passes: int = pydantic.Field(
      plans.PASSES, strict=True, ge=1, le=plans.MOST_PASSES
  )
  seed: Annotated[int, pydantic.Field(strict=True, ge=0, lt=2**31)] | None = (
      None
  )
  spread: Literal['belief', 'masks'] = 'belief'


def _spell_out(value: Any) -> Any:
  return {'kind': value} if isinstance(value, str) else value


_POLICY_SCHEMA = {
    'anyOf': [
        {'type': 'string', 'enum': list(policies.KINDS)},
        Policy.model_json_schema(),
        {'type': 'null'},
    ]
}
PolicyOrKind = Annotated[
    Policy | None,
    pydantic.BeforeValidator(_spell_out),
    pydantic.WithJsonSchema(_POLICY_SCHEMA),
]


class UserContent(pydantic.RootModel[dict[str, Any]]):
  """Columns of a user as in training; missing ones may be left out."""


class ItemContent(pydantic.RootModel[dict[str, Any]]):
  """Columns of an item as in training; missing ones may be left out."""


class User(Body):
  """A user: by id, by content, by what she met, or all of it."""

  id: Id | None = None
  content: UserContent | None = None
  history: History = []


class Item(Body):
  """An item that is known by its id, or content that nobody has seen yet."""

  id: Id | None = None
  content: ItemContent | None = None


class NewItem(Body):
  """An item with its content, as it shall be from now on."""

  id: Id
  content: ItemContent = ItemContent({})


class Interaction(Body):
  """A user met an item; label 0 says that it was shown without a reaction."""

  user: Id
  item: Id
  label: float = pydantic.Field(1.0, strict=True, ge=0, le=1e6)


_BATCH = pydantic.Field(min_length=1, max_length=limits.BATCH)
Users = Annotated[list[User], _BATCH]
Items = Annotated[list[Item], _BATCH]


class Recommend(Body):
  """Asks for the best items of each user."""

  model_config = pydantic.ConfigDict(
      extra='forbid',
      json_schema_extra={'examples': [{'users': [{}], 'k': 10}]},
  )
  users: Users
  k: K = 20
  candidates: Candidates = 'all'
  exclude_seen: Flag = True
  reasons: Flag = False
  policy: PolicyOrKind = None


class Embed(Body):
  """Asks for embeddings of users or of items, one of the two."""

  model_config = pydantic.ConfigDict(
      extra='forbid',
      json_schema_extra={
          'oneOf': [{'required': ['users']}, {'required': ['items']}]
      },
  )
  users: Users | None = None
  items: Items | None = None


class PutItems(Body):
  """Items that are new or have changed."""

  items: Annotated[list[NewItem], _BATCH]


class PutInteractions(Body):
  """What users met since."""

  interactions: Annotated[list[Interaction], _BATCH]


class Reason(pydantic.BaseModel):
  """What adds to a score, or what it loses without it."""

  kind: Literal['tag', 'feature', 'preference', 'history', 'expected']
  side: Literal['user', 'item', 'both']
  name: str
  value: float


class Listed(pydantic.BaseModel):
  """An item of a list."""

  id: Id
  score: float
  propensity: float | None = None
  about: str | None = None
  reasons: list[Reason] | None = None


class UserList(pydantic.BaseModel):
  """The list of one user, best first; a slate as its policy filled it."""

  user: Id | None
  known: bool
  items: list[Listed]
  slate: int | None = None


class Lists(pydantic.BaseModel):
  """A list for each user of the request, in its order."""

  step: int
  lists: list[UserList]


class SparseRow(pydantic.BaseModel):
  """Columns that are not 0, and their values."""

  columns: list[int]
  values: list[float]


class EmbeddingRow(pydantic.BaseModel):
  """Scores are the dense dot product plus the sparse one."""

  dense: list[float]
  sparse: SparseRow | None


class Embeddings(pydantic.BaseModel):
  """An embedding for each row of the request, in its order."""

  step: int
  embeddings: list[EmbeddingRow]


class ItemsPut(pydantic.BaseModel):
  """How many items were put, and how many were not there before."""

  put: int
  new: int


class InteractionsPut(pydantic.BaseModel):
  """How many interactions were taken in."""

  added: int


class Deleted(pydantic.BaseModel):
  """The item that is gone."""

  deleted: Id


class Health(pydantic.BaseModel):
  """Whether requests are answered."""

  status: Literal['ready', 'starting', 'stopping']


class _Error(pydantic.BaseModel):
  code: str
  message: str
  where: str


class Error(pydantic.BaseModel):
  """What every refusal looks like."""

  error: _Error
