# SPDX-License-Identifier: Apache-2.0
"""An export by its own NumPy runtime, as another program would load it.

For the check of an export, which runs this file in a fresh process that does
not find the package: `python -I numpy_reload.py FOLDER OUTPUT.npz`.
"""

import importlib
import sys
from typing import Any

import numpy as np


def main(folder: str, output: str) -> None:
  """Towers and scores of the rows of check.safetensors, as npz."""
  sys.dont_write_bytecode = True  # the folder is to stay as it is
  sys.path.insert(0, folder)
  runtime: Any = importlib.import_module('numpy_runtime')
  model = runtime.load(folder)
  rows = runtime.read_safetensors(f'{folder}/check.safetensors')
  found, known, told, fresh = {}, {}, {}, {}
  for side, every in (('user', model.users), ('item', model.items)):
    names = model.manifest['sides'][side]['inputs']
    inputs = {name: rows[f'{side}/inputs/{name}'] for name in names}
    found[side] = model.tower(side, inputs)
    row, met = rows[f'{side}/rows'], runtime.sparse_of(rows, f'{side}/met')
    part = every.sparse if every.sparse is None else every.sparse[row]
    known[side] = runtime.Embeddings(None, every.dense[row], part)
    ids = (model.items if side == 'user' else model.users).ids or []
    lists = np.split(met.indices, met.indptr[1:-1])
    told[side] = model.embed(side, None, [[ids[n] for n in x] for x in lists])
    inputs = {name: rows[f'{side}/fresh/{name}'] for name in names}
    content = runtime.sparse_of(rows, f'{side}/content')
    inputs = model.told(side, inputs, met)
    fresh[side] = model.embed_encoded(side, inputs, content, met)
  found['known'] = model.score(known['user'], known['item'])
  found['told_users'] = model.score(told['user'], known['item'])
  found['told_items'] = model.score(known['user'], told['item'])
  found['fresh_users'] = model.score(fresh['user'], known['item'])
  found['fresh_items'] = model.score(known['user'], fresh['item'])
  np.savez(output, **found)


if __name__ == '__main__':
  main(*sys.argv[1:])
