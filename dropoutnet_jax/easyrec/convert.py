# SPDX-License-Identifier: Apache-2.0
"""`python run.py convert`: an experiment file from an EasyRec configuration."""

import os
import re

from dropoutnet_jax import checks
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax.easyrec import data_settings
from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import experiment_file
from dropoutnet_jax.easyrec import feature_settings
from dropoutnet_jax.easyrec import ledger
from dropoutnet_jax.easyrec import loss_settings
from dropoutnet_jax.easyrec import messages
from dropoutnet_jax.easyrec import model_settings
from dropoutnet_jax.easyrec import train_settings

BASES = ('easyrec', 'default')


def run(
    easyrec: str | None,
    out: str | None,
    base_profile: str = 'easyrec',
    strict: bool = False,
    overwrite: bool = False,
    user_id: str | None = None,
    item_id: str | None = None,
) -> str:
  """Converts a configuration; returns what became of its fields.

  Args:
    easyrec: path of the configuration.
    out: of the experiment file.
    base_profile: one of BASES, what the experiment is set on.
    strict: refuse a configuration with something that is not supported.
    overwrite: replace `out` if it is there.
    user_id: column of the id of users; None guesses.
    item_id: likewise.

  Raises:
    UserError: for flags and configurations that cannot be converted; nothing
      is written then.
  """
  out = _check_flags(easyrec, out, base_profile, overwrite)
  assert easyrec is not None
  pipeline = messages.read(easyrec)
  name = os.path.splitext(os.path.basename(out))[0]
  draft, rows = convert(
      pipeline, name, easyrec, base_profile, {'user': user_id, 'item': item_id}
  )
  if strict:
    ledger.check_strict(rows, easyrec)
  table = ledger.describe(rows, os.path.basename(easyrec))
  text = experiment_file.write(draft, os.path.basename(easyrec), out, table)
  _write(text, out, draft, easyrec)
  return f'{out}: written.\n\n{table}'


def convert(
    pipeline: messages.Pipeline,
    name: str,
    path: str,
    base: str = 'easyrec',
    ids: dict[str, str | None] | None = None,
) -> tuple[draft_lib.Draft, list[ledger.Row]]:
  """What a configuration becomes.

  Args:
    pipeline: as it was read.
    name: of the experiment.
    path: of the configuration, for messages.
    base: one of BASES.
    ids: columns of the ids by side, None to guess.

  Returns:
    The experiment, and a row for each field of the configuration.

  Raises:
    UserError: for what cannot be converted.
  """
  book = ledger.Ledger(pipeline)
  root, draft = book.root, draft_lib.new_draft(base, name)
  model = model_settings.check_class(root, path)
  names = data_settings.input_names(root, path)
  features = feature_settings.Reader(root, names, path)
  found, comments = data_settings.find_ids(
      root,
      names,
      features.guesses(),
      ids or {'user': None, 'item': None},
      path,
  )
  columns = features.convert(draft, found)
  train_settings.convert(root, draft)
  model_settings.convert(model, draft, features.groups, path)
  sessions = loss_settings.convert(model, draft, path)
  sessions += data_settings.metric_sessions(root)
  columns = columns._replace(
      session=data_settings.one_session(sessions, names, path)
  )
  data_settings.convert(root, draft, names, columns, comments, path)
  model_settings.settle(model)
  return draft, book.rows()


def _check_flags(
    easyrec: str | None, out: str | None, base_profile: str, overwrite: bool
) -> str:
  """Returns the path of the experiment file."""
  if not easyrec or not out:
    missing = 'easyrec=pipeline.config' if not easyrec else 'out=mine.py'
    raise errors.UserError(
        f'convert wants to know --{missing}; write python run.py convert '
        '--easyrec=pipeline.config --out=experiments/mine.py.'
    )
  if base_profile not in BASES:
    raise errors.UserError(
        f'--base_profile={base_profile}: there are {" and ".join(BASES)}.'
        + errors.did_you_mean(base_profile, BASES)
    )
  stem, ending = os.path.splitext(os.path.basename(out))
  if ending != '.py' or not re.fullmatch(r'[\w-]+', stem):
    raise errors.UserError(
        f'--out={out}: an experiment is a Python file; let its name be letters,'
        ' digits and _ before .py.'
    )
  folder = os.path.dirname(out) or '.'
  if not os.path.isdir(folder):
    raise errors.UserError(
        f'--out={out}: there is no folder {folder}; make it, or name another.'
    )
  if os.path.exists(out) and not overwrite:
    raise errors.UserError(
        f'--out={out} is already there. Name another file, or --overwrite.'
    )
  return out


def _write(text: str, out: str, draft: draft_lib.Draft, path: str) -> None:
  """Writes the file beside its place, loads it, and moves it there."""
  part = f'{out}.part'
  try:
    with open(part, 'w', encoding='utf-8') as file:
      file.write(text)
    written = experiment.load(part)
    assert written == draft.cfg, 'the file says what was converted'
    _validate(written, path)
    os.replace(part, out)
  finally:
    if os.path.exists(part):
      os.remove(part)


def _validate(cfg: config.Config, path: str) -> None:
  """Raises UserError if EasyRec allows what nothing here does."""
  checks.check_types(cfg)
  try:
    cfg.validate()
  except errors.UserError as error:
    raise errors.UserError(
        f'{path} cannot be converted: {error} Change what it comes from. '
        'Nothing was written.'
    ) from error
