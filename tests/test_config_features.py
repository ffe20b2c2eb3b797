# SPDX-License-Identifier: Apache-2.0
"""Settings of features: which ones go together."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors

GOOD = [
    {'kind': 'numeric', 'transform': 'quantile'},
    {'kind': 'numeric', 'boundaries': (0.5, 2.0)},
    {'kind': 'numeric', 'num_intervals': 2, 'embedding': 8},
    {'kind': 'category', 'hash_buckets': 2},
    {'kind': 'category', 'num_buckets': 100},
    {'kind': 'cross', 'columns': ('a', 'b'), 'hash_buckets': 9},
    {'kind': 'lookup', 'key': 'genre', 'transform': 'log1p'},
    {'kind': 'expression', 'expression': 'a / b', 'num_intervals': 4},
]


@pytest.mark.parametrize('settings', GOOD, ids=str)
def test_what_goes_together(settings):
  feature = config.Feature(column='c', **settings)
  feature.validate('features.item[0]')
  assert feature.name == ('c[genre]' if feature.key else 'c')


@pytest.mark.parametrize(
    'settings, name, rule',
    [
        (
            {'transform': 'standart', 'kind': 'numeric'},
            'transform',
            "Did you mean 'standard'?",
        ),
        (
            {'transform': 'log1p', 'kind': 'category'},
            'transform',
            "left alone where kind is 'category', which is no number.",
        ),
        (
            {'transform': 'log1p', 'kind': 'numeric', 'boundaries': (1.0,)},
            'transform',
            'left alone where the numbers are cut into intervals.',
        ),
        (
            {'kind': 'numeric', 'boundaries': (1.0, 1.0)},
            'boundaries',
            'ascending.',
        ),
        (
            {'kind': 'numeric', 'boundaries': (1.0,), 'num_intervals': 3},
            'boundaries',
            'empty where num_intervals is set.',
        ),
        (
            {'kind': 'numeric', 'num_intervals': 1},
            'num_intervals',
            '0 or at least 2.',
        ),
        (
            {'kind': 'dense', 'num_intervals': 3},
            'num_intervals',
            "left alone where kind is 'dense', which is no number.",
        ),
        (
            {'kind': 'numeric', 'num_intervals': 3, 'hash_buckets': 9},
            'hash_buckets',
            'left alone where the numbers are cut into intervals.',
        ),
        (
            {'kind': 'numeric', 'hash_buckets': 9},
            'hash_buckets',
            "left alone where kind is 'numeric', which has no ids.",
        ),
        (
            {'kind': 'category', 'hash_buckets': 1},
            'hash_buckets',
            '0 or at least 2.',
        ),
        (
            {'kind': 'category', 'num_buckets': -1},
            'num_buckets',
            'at least 0.',
        ),
        (
            {'kind': 'category', 'hash_buckets': 9, 'num_buckets': 9},
            'num_buckets',
            '0 where hash_buckets is set.',
        ),
        (
            {'kind': 'cross', 'columns': ('a',)},
            'columns',
            'two or more different columns.',
        ),
        (
            {'kind': 'cross', 'columns': ('a', 'b', 'a')},
            'columns',
            'two or more different columns.',
        ),
        (
            {'kind': 'cross', 'columns': ('a', 'b'), 'num_buckets': 9},
            'num_buckets',
            "0 where kind is 'cross', whose values are no numbers.",
        ),
        ({'kind': 'lookup'}, 'key', 'not empty.'),
        (
            {'kind': 'numeric', 'key': 'genre'},
            'key',
            "left alone where kind is not 'lookup'.",
        ),
        ({'kind': 'expression'}, 'expression', 'not empty.'),
        (
            {'kind': 'numeric', 'expression': 'a + b'},
            'expression',
            "left alone where kind is not 'expression'.",
        ),
        (
            {'kind': 'numeric', 'embedding': 8},
            'embedding',
            "left alone where kind is 'numeric', which has no ids.",
        ),
    ],
)
def test_what_does_not(settings, name, rule):
  cfg = config.Config()
  cfg.features.item = [config.Feature(column='c', **settings)]
  with pytest.raises(errors.UserError) as caught:
    cfg.validate()
  message = str(caught.value)
  assert message.startswith(f'config.features.item[0].{name} is ')
  assert message.endswith(rule)
