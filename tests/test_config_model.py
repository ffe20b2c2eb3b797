# SPDX-License-Identifier: Apache-2.0
"""Settings of the towers: networks of groups, and what is refused."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import profiles


def _easyrec() -> config.Config:
  features = config.FeaturesConfig(item=[config.Feature('tags')])
  return profiles.apply(config.Config(features=features), 'easyrec')


@pytest.mark.parametrize(
    'section, options, message',
    [
        (
            'groups',
            {'user_content': (8, 0)},
            'config.model.groups.user_content is (8, 0); it must be widths of '
            'at least 1, or (0,) for no layer.',
        ),
        (
            'groups',
            {'no_batch_norm': ('user_towr',)},
            "item_preference, item_tower. Did you mean 'user_tower'?",
        ),
        (
            'groups',
            {'no_batch_norm': ('user_tower', 'user_tower')},
            "('user_tower', 'user_tower'); it must be distinct.",
        ),
        (
            'objective',
            {'divide_by': 'row'},
            "weights, rows. Did you mean 'rows'",
        ),
        (
            'objective',
            {'kernel_regularization': -1.0},
            'config.objective.kernel_regularization is -1.0; it must be at ',
        ),
        (
            'objective',
            {'softmax_temperature': 1e-9},
            'softmax_temperature is 1e-09; it must be 0 or at least 0.0001.',
        ),
        (
            'objective',
            {'softmax_temperature': 0.1, 'learn_scale': True}
            | {'temperature': 0.1},
            'softmax_temperature is 0.1; it must be 0 where objective.learn_',
        ),
        ('model', {'activation': 'reluu'}, "sigmoid. Did you mean 'relu'?"),
        (
            'features',
            {'scaling': 'non'},
            "row, column, none. Did you mean 'none'?",
        ),
    ],
)
def test_what_is_refused(section, options, message):
  cfg = _easyrec()
  nodes = {'groups': cfg.model.groups}
  node = nodes.get(section) or getattr(cfg, section)
  for name, value in options.items():
    setattr(node, name, value)
  with pytest.raises(errors.UserError) as caught:
    cfg.validate()
  assert message in str(caught.value)


def test_networks_of_groups_are_for_their_tower():
  cfg = config.Config()
  cfg.model.groups.item_tower = (8,)
  with pytest.raises(errors.UserError, match="'groups' reads it"):
    cfg.validate()


def test_widths_of_networks():
  groups = config.GroupsConfig(user_content=(3, 2), item_tower=(0,))
  assert groups.widths('user_content', (9,)) == (3, 2)
  assert groups.widths('item_content', (9,)) == (9,)
  assert groups.widths('item_tower', (9,)) == ()
