# SPDX-License-Identifier: Apache-2.0
"""Profiles: the settings in which published systems differ, set at once.

'layer6' trains as the published code of DropoutNet does, 'easyrec' as the
DropoutNet of EasyRec, with what both do otherwise than the defaults here. They
set habits, not sizes: widths, ranks and columns belong to a data set. An
experiment applies a profile first and then says what is its own:

  cfg = profiles.apply(config.Config(name='mine'), 'easyrec')
  cfg.model.rank = 64

`python -m dropoutnet_jax.profiles` prints what each sets, and why.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from dropoutnet_jax import checks
from dropoutnet_jax import config
from dropoutnet_jax import errors


class Switch(NamedTuple):
  """A setting, and what a profile sets it to; None leaves the default."""

  field: str
  layer6: Any
  easyrec: Any
  why: str


SWITCHES = (
    Switch(
        'features.scaling',
        'column',
        'none',
        'layer6 standardises each column of the content and clips it at 5; '
        'EasyRec takes numbers as they come.',
    ),
    Switch(
        'features.preference',
        'factors',
        'none',
        'layer6 has the factors of its teacher; the preference of EasyRec is '
        "features of group 'preference', statistics among them.",
    ),
    Switch(
        'dropout.user_rate',
        0.5,
        0.0,
        'EasyRec drops no user unless told so: new users are not learnt for.',
    ),
    Switch('dropout.item_rate', 0.5, 0.5, 'Both; layer6 has one rate alone.'),
    Switch(
        'dropout.drop_without_content',
        True,
        True,
        'Both drop rows of a side without content too, which leaves nothing '
        'to learn from: a constant input.',
    ),
    Switch(
        'dropout.rescale_kept',
        False,
        True,
        'EasyRec divides what is kept by the share that is kept, as if it '
        'dropped neurons. At serving nothing is divided: at rate 0.5 the '
        'towers are trained on inputs of twice the size.',
    ),
    Switch(
        'model.tower',
        'paper',
        'groups',
        'EasyRec has a network for each group of features before the tower.',
    ),
    Switch(
        'model.activation',
        None,
        'relu',
        'What EasyRec takes unless told otherwise; that of layer6 is tanh, '
        "which the 'paper' tower always has.",
    ),
    Switch(
        'model.normalize',
        False,
        True,
        'Scores of EasyRec are cosines, those of layer6 dot products.',
    ),
    Switch(
        'model.scale_embeddings',
        None,
        False,
        'Towers of EasyRec see embeddings as they are in their tables.',
    ),
    Switch(
        'model.preference_scaling',
        'standard',
        'none',
        'layer6 standardises preferences and clips them at 5; EasyRec takes '
        'them as they come.',
    ),
    Switch(
        'objective.pairing',
        'published',
        'interactions',
        'layer6 draws pairs by the scores of its teacher; EasyRec reads rows '
        'with labels.',
    ),
    Switch(
        'objective.target_items',
        'all',
        None,
        'The random targets of layer6 are drawn from all items: the content '
        'of cold test items is trained on, towards a score of 0.',
    ),
    Switch('objective.teacher', 1.0, 0.0, 'EasyRec has no teacher.'),
    Switch(
        'objective.pointwise',
        0.0,
        1.0,
        'Logistic loss of the labels is the first loss of EasyRec.',
    ),
    Switch(
        'objective.temperature',
        None,
        1.0,
        'EasyRec takes the cosine itself as logit: probabilities stay within '
        '0.27 and 0.73, and the logistic loss of a perfect ranking is 0.31.',
    ),
    Switch(
        'objective.learn_scale',
        None,
        False,
        'EasyRec learns neither scale nor bias: rates below 0.27 are out of '
        'reach, and its softmax stays far above 0.',
    ),
    Switch(
        'objective.user_balance',
        None,
        0.0,
        'Every row of EasyRec counts alike, whoever it is of.',
    ),
    Switch(
        'objective.divide_by',
        None,
        'rows',
        'EasyRec divides sums of weighted losses by the number of rows, so '
        'that twice the weights are twice the loss.',
    ),
    Switch(
        'objective.sampling',
        None,
        'epochs',
        'EasyRec reads every row of its files before it reads one again.',
    ),
    Switch(
        'objective.mask_known',
        None,
        False,
        'EasyRec takes what a user is known to like as her negatives.',
    ),
    Switch(
        'objective.mask_same_item',
        None,
        False,
        'Nor does EasyRec notice the same item in another row.',
    ),
    Switch(
        'objective.shifts',
        None,
        'with_replacement',
        'EasyRec draws its rolled negatives with repeats: the same other row '
        'may count twice.',
    ),
    Switch(
        'objective.pairwise_weights',
        None,
        False,
        'The pairwise loss of EasyRec knows no weights of rows.',
    ),
    Switch(
        'objective.embedding_regularization_by',
        None,
        'batch',
        'EasyRec sums over the rows of a batch: a batch of twice the size '
        'regularises its embeddings twice as strongly.',
    ),
    Switch(
        'train.batch_size',
        100,
        None,
        'That of layer6; that of EasyRec is a setting of each data set.',
    ),
    Switch(
        'train.optimizer',
        'sgd',
        'adam',
        'layer6 has momentum; EasyRec has any, and Adam in its example.',
    ),
    Switch('train.momentum', 0.9, None, 'As published.'),
    Switch(
        'train.learning_rate',
        0.005,
        0.001,
        'As published, for batches of 100 pairs; as in the example of EasyRec.',
    ),
    Switch(
        'train.schedule',
        'piecewise',
        None,
        'layer6 takes a tenth of the rate from time to time.',
    ),
    Switch(
        'train.decay_every',
        2_500_000,
        None,
        'After 100 times 25,000 steps (on RecSys 2017: 50 times).',
    ),
)
_DEFAULT = config.Config()


def values(name: str) -> dict[str, Any]:
  """What a profile gives to each field of SWITCHES, by its dotted name.

  Raises:
    UserError: if there is no such profile.
  """
  checks.check_choice('profile', name, config.PROFILES)
  found = {}
  for switch in SWITCHES:
    value = None if name == 'default' else getattr(switch, name)
    found[switch.field] = (
        _get(_DEFAULT, switch.field) if value is None else value
    )
  return found


def apply(cfg: config.Config, name: str) -> config.Config:
  """Sets every field of SWITCHES as the profile has it.

  Args:
    cfg: changed in place. What it says of these fields is lost: apply a
      profile before the settings of an experiment.
    name: one of config.PROFILES.

  Returns:
    `cfg`.

  Raises:
    UserError: if there is no such profile.
  """
  for field, value in values(name).items():
    _set(cfg, field, value)
  cfg.profile = name
  return cfg


def change(
    cfg: config.Config, before: str, after: str, keep: Collection[str]
) -> None:
  """Changes the profile of an experiment that is already there.

  A field follows if it has what the profile before gave it, so that what the
  experiment sets to something else stays.

  Args:
    cfg: changed in place.
    before: the profile that the experiment has applied.
    after: the profile to come.
    keep: dotted names of fields that stay as they are.

  Raises:
    UserError: if there is no such profile.
  """
  old, new = values(before), values(after)
  for field, value in new.items():
    if field not in keep and _get(cfg, field) == old[field]:
      _set(cfg, field, value)
  cfg.profile = after


def check_applied(cfg: config.Config) -> None:
  """Raises UserError if a configuration names a profile that set nothing."""
  default = values('default')
  own = {k: v for k, v in values(cfg.profile).items() if v != default[k]}
  if own and not any(_get(cfg, field) == own[field] for field in own):
    raise errors.UserError(
        f'config.profile is {cfg.profile!r}, but no field has what that '
        'profile sets: the name alone changes nothing in an experiment file. '
        f'Begin with cfg = profiles.apply(config.Config(), {cfg.profile!r}).'
    )


def table() -> str:
  """Markdown of what each profile sets; an empty cell leaves the default."""
  named = [name for name in config.PROFILES if name != 'default']
  rows = [['field', 'default', *named, 'why'], ['---'] * (3 + len(named))]
  for switch in SWITCHES:
    cells = [_get(_DEFAULT, switch.field)]
    cells += [getattr(switch, name) for name in named]
    shown = ['' if cell is None else f'`{cell!r}`' for cell in cells]
    rows.append([f'`{switch.field}`', *shown, switch.why])
  return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def _get(cfg: config.Config, field: str) -> Any:
  section, name = field.split('.')
  return getattr(getattr(cfg, section), name)


def _set(cfg: config.Config, field: str, value: Any) -> None:
  section, name = field.split('.')
  setattr(getattr(cfg, section), name, value)


if __name__ == '__main__':
  print(table(), end='')
