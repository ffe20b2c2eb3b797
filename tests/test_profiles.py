# SPDX-License-Identifier: Apache-2.0
"""Profiles: what they set, in which order, and where it is written."""

import dataclasses
import runpy

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import profiles
from tests import command_line

NAMES = pytest.mark.parametrize('name', config.PROFILES)


def _raises(function, *arguments) -> str:
  with pytest.raises(errors.UserError) as caught:
    function(*arguments)
  return str(caught.value)


def test_the_table_in_build_md_is_the_one_that_is_printed(capsys):
  text = (command_line.ROOT / 'BUILD.md').read_text(encoding='utf-8')
  _, after = text.split('<!-- profiles -->\n\n')
  written, _ = after.split('\n<!-- end of profiles -->')
  runpy.run_path(profiles.__file__, run_name='__main__')
  printed = capsys.readouterr().out
  assert written == printed == profiles.table()
  assert len(printed.splitlines()) == len(profiles.SWITCHES) + 2


@NAMES
def test_every_profile_is_a_valid_configuration(name):
  features = config.FeaturesConfig(item=[config.Feature(column='tags')])
  cfg = profiles.apply(config.Config(features=features), name)
  cfg.validate()
  assert cfg.profile == name
  profiles.check_applied(cfg)
  found = config_tree.fields(cfg)
  for field, value in profiles.values(name).items():
    assert found[field] == value


def test_switches_are_distinct_and_none_of_them_is_idle():
  fields = [switch.field for switch in profiles.SWITCHES]
  assert len(set(fields)) == len(fields)
  default = config_tree.fields(config.Config())
  for switch in profiles.SWITCHES:
    assert {switch.layer6, switch.easyrec} - {None}
    assert len(switch.why) > 5 and '|' not in switch.why
    assert profiles.values('default')[switch.field] == default[switch.field]


def test_what_the_experiment_says_afterwards_counts():
  cfg = profiles.apply(config.Config(name='mine'), 'layer6')
  cfg.train.learning_rate = 0.1
  assert cfg.train.optimizer == 'sgd' and cfg.name == 'mine'
  again = profiles.apply(cfg, 'easyrec')
  assert again is cfg
  # What layer6 had set and EasyRec has no word on is the default again.
  assert cfg == profiles.apply(config.Config(name='mine'), 'easyrec')


def test_the_published_experiment_is_what_it_was_before_profiles():
  path = command_line.ROOT / 'experiments' / 'citeulike_a_cold_published.py'
  expected = config.Config(
      name='citeulike_a_cold_published',
      profile='layer6',
      data=config.DataConfig(
          name='citeulike-a', split='published-cold', validation='return'
      ),
      features=config.FeaturesConfig(
          item=[config.Feature(column='tags', idf='idf', rank=300)],
          scaling='column',
      ),
      dropout=config.DropoutConfig(
          user_rate=0.5, item_rate=0.5, drop_without_content=True
      ),
      model=config.ModelConfig(tower='paper', hidden=(200,), rank=200),
      objective=config.ObjectiveConfig(pairing='published', target_items='all'),
      train=config.TrainConfig(
          batch_size=100,
          num_steps=70_000,
          optimizer='sgd',
          learning_rate=0.005,
          schedule='piecewise',
          decay_every=2_500_000,
          steps_per_dispatch=500,
          log_every=1000,
          checkpoint_every=10_000,
      ),
      evaluation=config.EvaluationConfig(ridge_lambdas=(1.5, 3.0, 10.0)),
  )
  assert experiment.load(str(path)) == expected


@NAMES
@pytest.mark.parametrize('before', config.PROFILES)
def test_a_change_of_profile_is_as_if_it_had_been_applied_first(before, name):
  """Settings of the experiment stay, whatever profile they follow."""

  def own_settings(cfg):
    cfg.train.learning_rate = 0.02
    cfg.model.hidden = (3,)
    cfg.objective.mask_known = False
    return cfg

  cfg = own_settings(profiles.apply(config.Config(), before))
  profiles.change(cfg, before, name, keep=())
  expected = own_settings(profiles.apply(config.Config(), name))
  if before == 'easyrec':  # whose mask_known it is: nobody can tell
    expected.objective.mask_known = name != 'easyrec'
  assert cfg == expected


def test_fields_that_are_kept_stay():
  cfg = config.Config()
  profiles.change(cfg, 'default', 'layer6', {'train.optimizer', 'profile'})
  expected = profiles.apply(config.Config(), 'layer6')
  expected.train.optimizer = 'adam'
  assert cfg == expected


def test_a_name_alone_is_no_profile():
  message = _raises(profiles.check_applied, config.Config(profile='easyrec'))
  assert message.startswith("config.profile is 'easyrec', but no field has")
  assert "Begin with cfg = profiles.apply(config.Config(), 'easyrec')" in (
      message
  )
  cfg = profiles.apply(config.Config(), 'easyrec')
  default = config.Config(profile='easyrec')
  # One setting that is left of it is enough.
  default.model.normalize = cfg.model.normalize
  profiles.check_applied(default)


def test_unknown_profiles():
  for call in (profiles.values, lambda name: profiles.apply(_config(), name)):
    message = _raises(call, 'layr6')
    assert message.endswith("layer6, easyrec. Did you mean 'layer6'?")
  cfg = dataclasses.replace(_config(), profile='layr6')
  assert "config.profile is 'layr6'" in _raises(cfg.validate)


def _config() -> config.Config:
  return config.Config()
