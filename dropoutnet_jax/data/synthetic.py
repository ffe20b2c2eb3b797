# SPDX-License-Identifier: Apache-2.0
"""A planted world: content that explains taste, but not linearly.

Users and items lie on two circles. An angle comes from a category and a number
together (region and age, genre and year): the category shifts the phase, so
neither says anything alone, and no linear method on the columns can find it.
Tags and interests add a linear part, and the rest is private taste, which no
content knows. Likes are drawn from the softmax of the true scores, so that an
oracle, which ranks by them, bounds every method.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config as config_lib
from dropoutnet_jax.data import schema

_CIRCLES = 2
_TOPICS = 8
_TOPIC_WIDTH = 4
_CIRCLE_SHARE, _TOPIC_SHARE = 0.75, 0.66  # lengths of the two parts of taste
_SCALE = 8.0  # log-odds per unit of taste
_SMALLEST_HISTORY = 3
_LARGEST_SHARE = 0.25  # of all items that one user can like
_TOPIC_NAMES = (
    'space', 'music', 'ocean', 'garden', 'robots', 'history', 'sports', 'food',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class World:
  """A data set and the truth behind it.

  Attributes:
    dataset: what a reader would return.
    user_taste: float32 [U, D].
    item_taste: float32 [I, D].
    item_appeal: float32 [I], log-odds that an item has for everybody.
  """

  dataset: schema.Dataset
  user_taste: np.ndarray
  item_taste: np.ndarray
  item_appeal: np.ndarray

  def true_scores(
      self, user_rows: np.ndarray, item_rows: np.ndarray
  ) -> np.ndarray:
    """What the oracle ranks by: float32 [len(user_rows), len(item_rows)]."""
    taste = self.user_taste[user_rows] @ self.item_taste[item_rows].T
    return (_SCALE * taste + self.item_appeal[item_rows]).astype(np.float32)


def make_world(config: config_lib.SyntheticConfig) -> World:
  """Draws a world; a pure function of the settings.

  Raises:
    UserError: if the settings are out of range.
  """
  config.validate()
  rng = np.random.default_rng([config.seed, 1])
  directions = rng.normal(size=(_TOPICS, _TOPIC_WIDTH))
  user_taste, user_columns = _draw_side(
      rng, config.num_users, directions, 64, 4.0, ('region', 'age', 'interests')
  )
  item_taste, item_columns = _draw_side(
      rng, config.num_items, directions, 304, 7.0, ('genre', 'year', 'tags')
  )
  user_taste = _with_private(rng, user_taste, config.content_strength)
  item_taste = _with_private(rng, item_taste, config.content_strength)
  quality = rng.normal(size=config.num_items)
  appeal = 0.5 * quality + 0.2 * rng.normal(size=config.num_items)
  item_columns['quality'] = quality.astype(np.float32)
  world = World(
      schema.Dataset('synthetic', *_tables(user_columns, item_columns), _NONE),
      user_taste.astype(np.float32),
      item_taste.astype(np.float32),
      appeal.astype(np.float32),
  )
  likes = _draw_likes(rng, world, config.likes_per_user)
  dataset = dataclasses.replace(world.dataset, interactions=likes)
  return dataclasses.replace(world, dataset=dataset)


_NONE = schema.Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))


def _tables(
    user_columns: dict[str, schema.Column],
    item_columns: dict[str, schema.Column],
) -> tuple[schema.Entities, schema.Entities]:
  """Users u0, u1, ... and items i0, i1, ..."""

  def table(prefix: str, columns: dict[str, schema.Column]) -> schema.Entities:
    number = next(c for c in columns.values() if isinstance(c, np.ndarray))
    ids = np.array([f'{prefix}{row}' for row in range(len(number))])
    return schema.Entities(ids, columns)

  return table('u', user_columns), table('i', item_columns)


def _draw_side(
    rng: np.random.Generator,
    num_rows: int,
    directions: np.ndarray,
    num_tags: int,
    mean_tags: float,
    names: tuple[str, str, str],
) -> tuple[np.ndarray, dict[str, schema.Column]]:
  """Content of one side and the taste [N, D] that it stands for."""
  tags, topics = _draw_tags(rng, num_rows, num_tags, mean_tags)
  category = rng.integers(0, 4, num_rows)
  number = rng.random(num_rows)
  # Phases of the categories are spread evenly, so that the mean over the
  # categories of anything linear in the number is nothing.
  phase = rng.uniform(0, 2 * np.pi, _CIRCLES) + np.outer(
      np.arange(4), np.arange(1, _CIRCLES + 1) * np.pi / 2
  )
  angle = phase[category] + 2 * np.pi * number[:, None]
  circles = np.hstack([np.cos(angle), np.sin(angle)]) / _CIRCLES**0.5
  linear = topics @ directions
  linear /= np.linalg.norm(linear, axis=1, keepdims=True)
  taste = np.hstack([_CIRCLE_SHARE * circles, _TOPIC_SHARE * linear])
  labels = np.array([f'{names[0]} {letter}' for letter in 'ABCD'], object)
  columns: dict[str, schema.Column] = {
      names[0]: labels[category],
      names[1]: number.astype(np.float32),
      names[2]: tags,
  }
  return taste, columns


def _draw_tags(
    rng: np.random.Generator, num_rows: int, num_tags: int, mean_tags: float
) -> tuple[schema.Tags, np.ndarray]:
  """Tags of N rows, and how often each topic is among them [N, topics].

  A row mixes few topics; within a topic the tag of rank r is drawn with
  probability 1 / r, so most tags are rare. 15 % are noise.
  """
  topic = np.arange(num_tags) % _TOPICS
  rank = np.arange(num_tags) // _TOPICS + 1
  of_topic = np.where(topic == np.arange(_TOPICS)[:, None], 1.0 / rank, 0.0)
  of_topic /= of_topic.sum(axis=1, keepdims=True)
  mix = rng.dirichlet(np.full(_TOPICS, 0.1), num_rows)
  chance = 0.85 * mix @ of_topic + 0.15 / num_tags
  count = np.maximum(rng.poisson(mean_tags, num_rows), 2)
  columns = _draw_without_replacement(rng, np.log(chance), count)
  matrix = scipy.sparse.csr_array(
      (
          np.ones(count.sum(), np.float32),
          columns,
          np.concatenate([[0], np.cumsum(count)]),
      ),
      shape=(num_rows, num_tags),
  )
  names = np.array([f'{_TOPIC_NAMES[t]}-{r}' for t, r in zip(topic, rank)])
  return schema.Tags(matrix, names), matrix @ np.eye(_TOPICS)[topic]


def _draw_without_replacement(
    rng: np.random.Generator, log_weight: np.ndarray, count: np.ndarray
) -> np.ndarray:
  """count[n] distinct columns of each row, all rows joined (Gumbel top-k)."""
  noisy = log_weight + rng.gumbel(size=log_weight.shape)
  largest = int(count.max())
  top = np.argpartition(-noisy, largest - 1, axis=1)[:, :largest]
  order = np.argsort(-np.take_along_axis(noisy, top, axis=1), axis=1)
  top = np.take_along_axis(top, order, axis=1)
  return top[np.arange(largest) < count[:, None]].astype(np.int32)


def _with_private(
    rng: np.random.Generator, taste: np.ndarray, strength: float
) -> np.ndarray:
  """Replaces a share 1 - strength of the variance by private taste."""
  noise = rng.normal(size=taste.shape) * np.sqrt((taste**2).mean(axis=0))
  return np.sqrt(strength) * taste + np.sqrt(1 - strength) * noise


def _draw_likes(
    rng: np.random.Generator, world: World, mean: float
) -> schema.Interactions:
  """Likes of each user without replacement from the softmax of the truth."""
  num_users, num_items = len(world.user_taste), len(world.item_taste)
  count = rng.lognormal(0.0, 0.5, num_users)
  count = np.round(count / count.mean() * mean).astype(int)
  largest = max(_SMALLEST_HISTORY, int(_LARGEST_SHARE * num_items))
  count = np.clip(count, _SMALLEST_HISTORY, largest)
  truth = world.true_scores(np.arange(num_users), np.arange(num_items))
  item = _draw_without_replacement(rng, truth, count)
  user = np.repeat(np.arange(num_users, dtype=np.int32), count)
  return schema.Interactions(user, item)
