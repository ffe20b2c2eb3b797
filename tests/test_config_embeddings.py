# SPDX-License-Identifier: Apache-2.0
"""Settings of embeddings and their tables that contradict each other."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors

Feature = config.Feature


def embedded(column='x', kind='category', table='t', **settings):
  settings = {'embedding': 4, 'embedding_table': table, **settings}
  return Feature(column, kind, **settings)


@pytest.mark.parametrize(
    'feature, message',
    [
        (
            Feature('x', 'category', embedding_table='t'),
            "embedding_table is 't'; it must be left alone without an",
        ),
        (
            Feature('x', pooling='max'),
            "pooling is 'max'; it must be left alone without an embedding",
        ),
        (
            Feature('x', max_length=3),
            'max_length is 3; it must be left alone without an embedding',
        ),
        (
            Feature('x', rank=8, embedding=4),
            'rank is 8; it must be 0 where an embedding takes the place of '
            'dense columns',
        ),
        (
            Feature('x', 'sequence', idf='idf'),
            "idf is 'idf'; it must be left alone where kind is 'sequence'",
        ),
        (
            Feature('x', 'category', counts='log'),
            "counts is 'log'; it must be left alone where kind is 'category'",
        ),
        (
            Feature('x', 'category', rank=3),
            "rank is 3; it must be left alone where kind is 'category'",
        ),
        (
            Feature('x', 'numeric', embedding=4),
            "embedding is 4; it must be left alone where kind is 'numeric', "
            'which has no ids',
        ),
        (
            Feature('x', 'sequence', embedding=4, max_length=0),
            'max_length is 0; it must be at least 1',
        ),
    ],
)
def test_one_feature(feature, message):
  settings = config.FeaturesConfig(item=[Feature('y'), feature])
  with pytest.raises(errors.UserError) as caught:
    settings.validate()
  assert f'config.features.item[1].{message}' in str(caught.value)


@pytest.mark.parametrize(
    'name, value, shown',
    [
        ('embedding', 8, '4'),
        ('embedding_std', 0.5, '0.0'),
        ('hash_buckets', 9, '0'),
        ('num_buckets', 9, '0'),
        ('min_rows', 2, '1'),
    ],
)
@pytest.mark.parametrize('side', ['user', 'item'])
def test_features_of_one_table_agree(name, value, shown, side):
  settings = config.FeaturesConfig(user=[embedded()], item=[Feature('y')])
  getattr(settings, side).append(embedded('z', **{name: value}))
  with pytest.raises(errors.UserError) as caught:
    settings.validate()
  assert str(caught.value) == (
      f'config.features.{side}[1].{name} is {value!r}; it must be {shown} like '
      f'config.features.user[0].{name}, since both name embedding_table '
      "'t'."
  )


@pytest.mark.parametrize(
    'first, second, message',
    [
        (
            {'boundaries': (1.0, 2.0)},
            {'boundaries': (1.0, 3.0)},
            'boundaries is (1.0, 3.0); it must be (1.0, 2.0) like',
        ),
        (
            {'num_intervals': 3},
            {'boundaries': (1.0, 3.0)},
            'boundaries is (1.0, 3.0); it must be () like',
        ),
        (
            {'num_intervals': 3},
            {'num_intervals': 3},
            "num_intervals is 3; it must be 0 where 't' is shared: set "
            'boundaries, the same ones',
        ),
    ],
)
def test_intervals_of_one_table_agree(first, second, message):
  settings = config.FeaturesConfig(
      item=[
          embedded('x', 'numeric', **first),
          embedded('y', 'numeric', **second),
      ]
  )
  with pytest.raises(errors.UserError) as caught:
    settings.validate()
  assert f'config.features.item[1].{message}' in str(caught.value)


def test_numbers_and_categories_share_no_table():
  settings = config.FeaturesConfig(
      user=[embedded('x', 'numeric', num_intervals=3)], item=[embedded('y')]
  )
  with pytest.raises(
      errors.UserError, match='num_intervals is 0; it must be 3'
  ):
    settings.validate()


def test_what_may_differ_in_one_table():
  settings = config.FeaturesConfig(
      user=[
          embedded('seen', 'sequence', max_length=3, pooling='attention'),
          embedded('likes', 'tags', group='preference', idf='none'),
      ],
      item=[
          embedded('item_id', sparse=False),
          embedded('price', 'numeric', table='own', num_intervals=3),
          embedded('size', 'numeric', table='cut', boundaries=(1.0,)),
          embedded('width', 'numeric', table='cut', boundaries=(1.0,)),
      ],
  )
  settings.validate()
