# SPDX-License-Identifier: Apache-2.0
"""A planted world: users, films and likes whose true scores are known.

Made for the quickstart and for tests: no files, no download, and an oracle to
compare with. What a user likes follows from content, but never additively:

- Region and age together place a user on two rings of taste, genre and year a
  film. Each region turns the effect of age by another angle, so that over all
  regions age says little and region alone nothing.
- Interests (tags) and the film's tags meet on three axes of topics, with two
  opposite topics on each; every genre but one turns one axis round, as in a
  comedy about war.

Linear maps of the content and overlaps of tags therefore see a part of the
truth only; a small network sees nearly all that content tells. The rest is
private: the share 1 - content_strength of both sides' taste, and the part of a
film's popularity that the critics' marks for its quality do not show.

Knows the shapes of `schema.py` and nothing of splits, features or models.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import schema

REGIONS = ('north', 'east', 'south', 'west')
GENRES = ('drama', 'comedy', 'thriller', 'documentary')
TOPICS = ('sea', 'desert', 'war', 'family', 'space', 'history')

_NUM_RINGS = 2
_NUM_AXES = len(TOPICS) // 2
_RING_TURN = 0.75  # turns of a ring from the youngest to the oldest
_RING_WEIGHT = 0.7  # shares of the variance of the taste; they add up to 1
_TOPIC_WEIGHT = 0.3
_SHARPNESS = 6.0  # log-odds between a film exactly to one's taste and neither
_POPULARITY = 0.5  # standard deviation, in log-odds
_VISIBLE_POPULARITY = 0.75  # share of its variance that quality shows
_ITEM_TAGS, _USER_TAGS = 50, 10  # tags per topic
_OFF_TOPIC = 0.1  # share of tags that are of any topic
_TAG_SKEW = 1.2  # frequency of a topic's n-th tag falls as n ** -this
_TOPIC_CONCENTRATION = 0.05  # of the Dirichlet over topics: mostly one or two
_ACTIVITY_SPREAD = 0.5  # standard deviation of log(likes of a user)
_LEAST_LIKES = 3
_USERS_PER_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class World:
  """A data set and the truth that it was drawn from.

  Attributes:
    dataset: users, items and likes, as from any reader.
    user_taste: float32 [U, D].
    item_taste: float32 [I, D].
    popularity: float32 [I], log-odds.
  """

  dataset: schema.Dataset
  user_taste: np.ndarray
  item_taste: np.ndarray
  popularity: np.ndarray

  def true_scores(
      self, user_rows: np.ndarray, item_rows: np.ndarray
  ) -> np.ndarray:
    """Log-odds float32 [U, I] of liking an item, up to a constant per user.

    To rank by them is the best that can be done: likes were drawn one by one,
    without replacement, with odds exp(score).
    """
    taste = self.user_taste[user_rows] @ self.item_taste[item_rows].T
    return _SHARPNESS * taste + self.popularity[item_rows]


def make_world(settings: config.SyntheticConfig) -> World:
  """Draws a world; a pure function of the settings.

  Every user likes at least 3 items and at most half of them; the mean number
  is close to `likes_per_user` where these bounds leave room. With
  `content_strength` 0 content tells nothing at all; with 1 it decides taste,
  and popularity stays partly hidden.
  """
  generators = [
      np.random.default_rng([settings.seed, part]) for part in range(4)
  ]
  users, user_content = _make_users(generators[0], settings.num_users)
  items, item_content, quality = _make_items(generators[1], settings.num_items)
  strength = settings.content_strength
  user_taste = _add_private(generators[2], user_content, strength)
  item_taste = _add_private(generators[2], item_content, strength)
  hidden = generators[2].normal(size=settings.num_items)
  visible_share = strength * _VISIBLE_POPULARITY
  popularity = _POPULARITY * (
      np.sqrt(visible_share) * quality + np.sqrt(1 - visible_share) * hidden
  )
  nothing = np.zeros(0, np.int32)
  world = World(
      schema.Dataset(
          'synthetic', users, items, schema.Interactions(nothing, nothing)
      ),
      user_taste.astype(np.float32),
      item_taste.astype(np.float32),
      popularity.astype(np.float32),
  )
  likes = _draw_likes(generators[3], world, settings.likes_per_user)
  dataset = dataclasses.replace(world.dataset, interactions=likes)
  return dataclasses.replace(world, dataset=dataset)


def _make_users(
    generator: np.random.Generator, num_users: int
) -> tuple[schema.Entities, np.ndarray]:
  """Users and the taste [U, D] that their content decides."""
  region = generator.integers(len(REGIONS), size=num_users)
  age = generator.random(num_users)  # from the youngest to the oldest
  interests, shares = _draw_tags(
      generator, num_users, _USER_TAGS, mean_tags=6.0, least_tags=2
  )
  columns: dict[str, schema.Column] = {
      'region': np.asarray(REGIONS, object)[region],
      'age': np.floor(16 + 65 * age).astype(np.float32),
      'interests': interests,
  }
  taste = _taste(region, age, _on_axes(shares))
  return schema.Entities(_ids('user', num_users), columns), taste


def _make_items(
    generator: np.random.Generator, num_items: int
) -> tuple[schema.Entities, np.ndarray, np.ndarray]:
  """Films, the taste [I, D] of their content, and their quality [I]."""
  genre = generator.integers(len(GENRES), size=num_items)
  year = generator.random(num_items)
  tags, shares = _draw_tags(
      generator, num_items, _ITEM_TAGS, mean_tags=9.0, least_tags=3
  )
  quality = generator.normal(size=num_items)
  columns: dict[str, schema.Column] = {
      'genre': np.asarray(GENRES, object)[genre],
      'year': np.floor(1950 + 75 * year).astype(np.float32),
      'quality': np.round(6 + 1.2 * quality, 2).astype(np.float32),
      'tags': tags,
  }
  # Genre g turns axis g round; the last genre has none left to turn.
  sign = 1.0 - 2.0 * np.eye(len(GENRES), _NUM_AXES)[genre]
  taste = _taste(genre, year, sign * _on_axes(shares))
  return schema.Entities(_ids('item', num_items), columns), taste, quality


def _ids(side: str, count: int) -> np.ndarray:
  """'user-00000', 'user-00001', …; row n has the same id in every world."""
  return np.asarray([f'{side}-{row:05d}' for row in range(count)])


def _taste(
    category: np.ndarray, position: np.ndarray, topics: np.ndarray
) -> np.ndarray:
  """Places on the rings beside those on the axes of topics: [N, D], norm 1.

  Args:
    category: int [N], region or genre; turns ring k by k + 1 quarters each.
    position: float [N] in [0, 1), age or year.
    topics: float [N, axes], norm 1.
  """
  ring = np.arange(1, _NUM_RINGS + 1)
  start = category[:, None] * ring / len(REGIONS)
  angle = 2 * np.pi * (start + _RING_TURN * position[:, None])
  rings = np.concatenate([np.cos(angle), np.sin(angle)], 1)
  return np.concatenate(
      [
          np.sqrt(_RING_WEIGHT / _NUM_RINGS) * rings,
          np.sqrt(_TOPIC_WEIGHT) * topics,
      ],
      axis=1,
  )


def _on_axes(shares: np.ndarray) -> np.ndarray:
  """Topic shares [N, topics] as directions [N, axes] of norm 1 (or 0)."""
  place = shares[:, 0::2] - shares[:, 1::2]  # neighbours are opposites
  norm = np.linalg.norm(place, axis=1, keepdims=True)
  return place / np.maximum(norm, 1e-9)


def _draw_tags(
    generator: np.random.Generator,
    num_rows: int,
    tags_per_topic: int,
    *,
    mean_tags: float,
    least_tags: int,
) -> tuple[schema.Tags, np.ndarray]:
  """Distinct tags of each row and the topic shares [N, topics] they make up.

  Rows are about one or two topics. Within a topic the frequency of a tag falls
  with its number (Zipf), so that the last ones are rare.
  """
  concentration = np.full(len(TOPICS), _TOPIC_CONCENTRATION)
  mixture = generator.dirichlet(concentration, num_rows)
  frequency = np.arange(1, tags_per_topic + 1) ** -_TAG_SKEW
  frequency /= frequency.sum()
  mixture = (1 - _OFF_TOPIC) * mixture + _OFF_TOPIC / len(TOPICS)
  probability = np.kron(mixture, frequency)
  count = np.maximum(generator.poisson(mean_tags, num_rows), least_tags)
  count = np.minimum(count, probability.shape[1])
  row, tag = _gumbel_top(generator, np.log(probability), count)
  matrix = scipy.sparse.csr_array(
      (np.ones(len(row), np.float32), (row, tag)), shape=probability.shape
  )
  names = [
      f'{topic}-{number + 1:02d}'
      for topic in TOPICS
      for number in range(tags_per_topic)
  ]
  topic_of_tag = np.kron(np.eye(len(TOPICS)), np.ones((tags_per_topic, 1)))
  shares = matrix @ topic_of_tag / count[:, None]
  return schema.Tags(matrix, np.asarray(names)), shares


def _add_private(
    generator: np.random.Generator, content: np.ndarray, strength: float
) -> np.ndarray:
  """Mixes taste [N, D] with private taste of the same size per column."""
  size = np.sqrt(np.mean(content**2, axis=0))
  private = size * generator.normal(size=content.shape)
  return np.sqrt(strength) * content + np.sqrt(1 - strength) * private


def _draw_likes(
    generator: np.random.Generator, world: World, likes_per_user: float
) -> schema.Interactions:
  """Likes of each user, drawn without replacement with odds exp(score)."""
  num_users, num_items = len(world.user_taste), len(world.item_taste)
  activity = np.exp(_ACTIVITY_SPREAD * generator.normal(size=num_users))
  count = np.round(likes_per_user * activity / activity.mean()).astype(int)
  count = np.clip(count, _LEAST_LIKES, num_items // 2)
  items = np.arange(num_items)
  user, item = [], []
  for begin in range(0, num_users, _USERS_PER_CHUNK):
    rows = np.arange(begin, min(begin + _USERS_PER_CHUNK, num_users))
    scores = world.true_scores(rows, items)
    row, liked = _gumbel_top(generator, scores, count[rows])
    user.append(rows[row])
    item.append(liked)
  return schema.Interactions(
      np.concatenate(user).astype(np.int32),
      np.concatenate(item).astype(np.int32),
  )


def _gumbel_top(
    generator: np.random.Generator, log_odds: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Draws count[n] distinct columns of each row n without replacement.

  The largest of log-odds plus Gumbel noise are such a draw (Kool, van Hoof &
  Welling, "Stochastic Beams and Where to Find Them", ICML 2019).

  Args:
    generator: of the noise.
    log_odds: [N, C].
    count: int [N], at most C.

  Returns:
    (rows, columns) of all drawn cells, ascending by row, then by column.
  """
  # log(-log(uniform)) in place of `gumbel`: float32 draws are twice as fast.
  noise = generator.standard_exponential(log_odds.shape, np.float32)
  keys = (
      np.log(np.maximum(noise, 1e-30)) - log_odds
  )  # ascending: the smallest are drawn
  most = int(count.max())
  first = np.argpartition(keys, most - 1, axis=1)[:, :most]
  order = np.argsort(np.take_along_axis(keys, first, axis=1), axis=1)
  first = np.take_along_axis(first, order, axis=1)
  drawn = np.zeros(log_odds.shape, bool)
  taken = np.arange(most) < count[:, None]
  drawn[np.nonzero(taken)[0], first[taken]] = True
  rows, columns = np.nonzero(drawn)
  return rows, columns
