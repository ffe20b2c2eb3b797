# SPDX-License-Identifier: Apache-2.0
"""The towers of an export by JAX alone, as another program would load them.

For the check of an export, which runs this file in a fresh process that does
not find the package: `python -I stablehlo_reload.py FOLDER OUTPUT.npz`.
"""

import json
import os
import sys

from jax import export
import numpy as np
from safetensors import numpy as safetensors


def main(folder: str, output: str) -> None:
  """What both towers make of the rows of check.safetensors, as npz."""
  read = lambda name: safetensors.load_file(os.path.join(folder, name))
  every, rows = read('towers.safetensors'), read('check.safetensors')
  with open(os.path.join(folder, 'manifest.json'), encoding='utf-8') as file:
    sides = json.load(file)['sides']
  found = {}
  for side, about in sides.items():
    path = os.path.join(folder, f'{side}_tower.stablehlo')
    with open(path, 'rb') as file:
      tower = export.deserialize(bytearray(file.read()))
    weights = {name: every[name] for name in about['weights']}
    inputs = {name: rows[f'{side}/inputs/{name}'] for name in about['inputs']}
    found[side] = np.asarray(tower.call(weights, inputs))
  np.savez(output, **found)  # type: ignore[arg-type]


if __name__ == '__main__':
  main(*sys.argv[1:])
