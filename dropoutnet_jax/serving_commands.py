# SPDX-License-Identifier: Apache-2.0
"""What `run.py` does with a trained run for other programs: its embeddings."""

from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax.serving import embed_files


def embed(workdir: str | None, output: str | None, **asked: Any) -> None:
  """Embeds users or items with the best checkpoint of a run folder.

  Args:
    workdir: the run folder, of a training that is finished or not.
    output: file or folder that gets the embeddings.
    **asked: whose: other fields of `embed_files.Request`.

  Raises:
    UserError: for whatever the user can mend; no file has changed then.
  """
  found = embed_files.answer(workdir, embed_files.Request(output, **asked))
  for note in found.notes:
    commands.say(note)
  sparse = ''
  if found.sparse_width is not None:
    sparse = f' and sparse ones of {found.sparse_width:,}'
  commands.say(
      f'{found.num_rows:,} embeddings of {found.side}s, dense numbers: '
      f'{found.dense_width:,}{sparse}, by the model after step {found.step}.'
  )
  commands.say(f'Written to {found.path}')
