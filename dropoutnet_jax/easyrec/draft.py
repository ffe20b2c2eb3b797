# SPDX-License-Identifier: Apache-2.0
"""The experiment that a configuration becomes: settings, and comments."""

import copy
import dataclasses

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import profiles


@dataclasses.dataclass
class Draft:
  """Settings on top of a profile.

  Attributes:
    base: the profile.
    cfg: the experiment as far as it is.
    comments: on fields, by their dotted names.
    feature_comments: likewise on features, by side and number.
  """

  base: str
  cfg: config.Config
  comments: dict[str, str] = dataclasses.field(default_factory=dict)
  feature_comments: dict[tuple[str, int], str] = dataclasses.field(
      default_factory=dict
  )

  @property
  def is_compatible(self) -> bool:
    """Whether the experiment is to compute what EasyRec does."""
    return self.base == 'easyrec'

  def set(self, field: str, value: object, comment: str = '') -> None:
    """Sets a field such as 'model.rank', for a reason where it needs one."""
    *parents, last = field.split('.')
    node = self.cfg
    for name in parents:
      node = getattr(node, name)
    setattr(node, last, value)
    if comment:
      self.comments[field] = comment

  def add_feature(
      self, side: str, feature: config.Feature, comment: str = ''
  ) -> None:
    """Adds a feature to 'user' or 'item'."""
    listed = getattr(self.cfg.features, side)
    if comment:
      self.feature_comments[side, len(listed)] = comment
    listed.append(feature)

  def differences(self) -> dict[str, object]:
    """Values by dotted name that are not those of the profile; no features."""
    found = config_tree.fields(_without_features(self.cfg))
    before = config_tree.fields(new_draft(self.base, self.cfg.name).cfg)
    return {
        field: value for field, value in found.items() if value != before[field]
    }


def new_draft(base: str, name: str) -> Draft:
  """A draft that has nothing but the profile."""
  return Draft(base, profiles.apply(config.Config(name=name), base))


def _without_features(cfg: config.Config) -> config.Config:
  cfg = copy.deepcopy(cfg)
  cfg.features.user, cfg.features.item = [], []
  return cfg
