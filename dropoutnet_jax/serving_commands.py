# SPDX-License-Identifier: Apache-2.0
"""What `run.py` gives of a trained run to other programs."""

from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.serving import embed_files
from dropoutnet_jax.serving import embed_request
from dropoutnet_jax.serving import export as export_lib

# Packages of the extra `serve`, which nothing else needs.
_OF_SERVE = ('fastapi', 'prometheus_client', 'pydantic', 'starlette', 'uvicorn')


def embed(workdir: str | None, output: str | None, **asked: Any) -> None:
  """Embeds users or items with the best checkpoint of a run folder.

  Args:
    workdir: the run folder, of a training that is finished or not.
    output: file or folder that gets the embeddings.
    **asked: whose: other fields of `embed_request.Request`.

  Raises:
    UserError: for whatever the user can mend; no file has changed then.
  """
  found = embed_files.answer(workdir, embed_request.Request(output, **asked))
  for note in found.notes:
    commands.say(note)
  sparse = ''
  if found.sparse_width is not None:
    sparse = f' and sparse ones of {found.sparse_width:,}'
  commands.say(
      f'{found.num_rows:,} embeddings of {found.side}s, dense numbers: '
      f'{found.dense_width:,}{sparse}, by the model after step {found.step}.'
  )
  parts = parallel.which_process()[1] - 1
  more = f' and {parts} more beside it' if parts else ''
  commands.say(f'Written to {found.path}{more}')


def export(workdir: str | None, output: str | None) -> None:
  """Writes the best checkpoint of a run folder as a folder of its own.

  Args:
    workdir: the run folder, of a training that is finished or not.
    output: the folder to make.

  Raises:
    UserError: for whatever the user can mend; nothing has changed then.
  """
  found = export_lib.write(workdir, output)
  for side, about in found.manifest['sides'].items():
    if about['raw_rows_refused']:
      listed = errors.listed(about['raw_rows_refused'], 5)
      commands.say(
          f'The NumPy runtime takes {side}s as encoded arrays alone, because '
          f'of {listed}.'
      )
  check = found.manifest['check']
  rows = ' and '.join(f'{n:,} {side}s' for side, n in check['rows'].items())
  commands.say(
      f'Checked in fresh processes on {rows}: StableHLO and NumPy differ from '
      f'the model by {check["largest_error"]:.1e} of the largest score at most.'
  )
  commands.say(
      f'{found.num_files} files, {found.num_bytes / 1e6:,.1f} MB, of the model '
      f'after step {found.step}.'
  )
  commands.say(f'Written to {output}')


def serve(workdir: str | None, **asked: Any) -> None:
  """Answers requests over HTTP until a signal comes.

  Args:
    workdir: the run folder, of a training that is finished or not.
    **asked: fields of `server.Settings`.

  Raises:
    UserError: for whatever the user can mend.
    Interrupted: when it was stopped, having answered what was asked.
  """
  try:
    # pylint: disable-next=g-import-not-at-top
    from dropoutnet_jax.serving.service import server
  except ModuleNotFoundError as error:
    if error.name not in _OF_SERVE:
      raise
    raise errors.UserError(
        f'serve needs the package {error.name}, which is not installed. Run: '
        "pip install '.[serve]'"
    ) from error
  server.run(workdir, server.Settings(**asked), commands.say)
