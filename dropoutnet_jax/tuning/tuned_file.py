# SPDX-License-Identifier: Apache-2.0
"""The winner as an experiment file: the original, and what differs from it."""

from collections.abc import Sequence
import os

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax.data import files
from dropoutnet_jax.easyrec import experiment_file


def write(
    path: str,
    cfg: config.Config,
    base: config.Config,
    base_path: str,
    found: Sequence[str],
) -> None:
  """Writes the file.

  Args:
    path: of it.
    cfg: what its get_config() will return.
    base: what get_config() of the original returns.
    base_path: of the original, which the file goes on to read.
    found: what is known of the winner, in lines.

  Raises:
    UserError: if it can't be written.
  """
  folder = os.path.dirname(os.path.abspath(path))
  relative = os.path.relpath(os.path.abspath(base_path), folder)
  before = config_tree.fields(base)
  place = f'os.path.dirname(__file__), {relative!r}'
  original = [f'_ORIGINAL = os.path.join({place})']
  if len(original[0]) > 80:
    original = ['_ORIGINAL = os.path.join(', f'    {place}', ')']
  lines = [
      f'r"""{base.name} with the settings that `tune` found.',
      '',
      *found,
      '',
      f'python run.py --config={path}',
      '"""',
      '',
      'import os',
      'import runpy',
      '',
      'from dropoutnet_jax import config',
      '',
      *original,
      '',
      '',
      'def get_config() -> config.Config:',
      "  cfg = runpy.run_path(_ORIGINAL)['get_config']()",
  ]
  for name, value in config_tree.fields(cfg).items():
    if value != before[name]:
      lines += experiment_file.assignment(f'cfg.{name}', value)
  files.write_text(path, '\n'.join([*lines, '  return cfg', '']))
