# SPDX-License-Identifier: Apache-2.0
"""What a training step sends between devices that need not be here.

python -m benchmarks.programs --topology=v5e:4x4 --model=4
python -m benchmarks.programs --devices=64 --model=8

Compiles the steps of an experiment ahead of time: for a TPU slice, where the
extra 'tpu' is installed, on a machine that has none; or for so many virtual
devices of the CPU. Lists the collectives by kind, and the memory of a device.
"""

import argparse
import collections
from collections.abc import Sequence
import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import collectives
from dropoutnet_jax import ahead
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import parallel
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import runtime as runtime_lib

_QUICKSTART = 'experiments/quickstart.py'


def compile_steps(runtime: runtime_lib.Runtime, mesh: parallel.Mesh) -> Any:
  """The steps of a run, compiled for devices that hold none of its tables."""
  tables = ahead.lay_out(
      resident.make_tables(runtime.cfg, runtime.problem), mesh
  )
  there = dataclasses.replace(runtime, mesh=mesh, tables=tables)
  count = jax.ShapeDtypeStruct((), jnp.int32)
  return (
      there.train_steps().lower(there.abstract_state(), tables, count).compile()
  )


def describe(program: Any) -> list[str]:
  """Lines on what a compiled program sends in a step, and what it holds."""
  kinds: dict[str, list[int]] = collections.defaultdict(list)
  for one in collectives.collectives(program.as_text()):
    kinds[one.kind] += [one.num_bytes // one.times] * one.times
  lines = [
      f'{kind}: {len(sizes):,} of {sum(sizes):,} bytes on each device, the '
      f'largest {max(sizes):,}'
      for kind, sizes in sorted(kinds.items())
  ] or ['no collectives']
  memory = program.memory_analysis()
  held, beside = (
      f'{size / 1e6:,.1f} MB'
      for size in (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
  )
  return [*lines, f'memory of a device: {held}, and {beside} while it computes']


def main(argv: Sequence[str]) -> None:
  """Compiles and prints."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
  parser.add_argument('--config', default=_QUICKSTART)
  parser.add_argument('--topology', default='', help='a TPU slice')
  parser.add_argument('--devices', type=int, default=64, help='of the CPU')
  parser.add_argument('--model', type=int, default=1, help='config.mesh.model')
  parser.add_argument('--data_dir', default=None)
  asked = parser.parse_args(argv)
  jax.config.update('jax_platforms', 'cpu')
  if not asked.topology:
    jax.config.update('jax_num_cpu_devices', asked.devices)
  cfg = experiment.load(asked.config)
  cfg.validate()
  settings = config.MeshConfig(asked.model)
  if asked.topology:
    mesh = ahead.make_mesh(asked.topology, settings)
  else:
    mesh = parallel.make_mesh(settings)
  problem = prepare.prepare(cfg, asked.data_dir, None)
  cfg = dataclasses.replace(cfg, mesh=config.MeshConfig())
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  shape = ', '.join(f'{size} {axis}' for axis, size in mesh.shape.items())
  print(f'{asked.config}: {" x ".join(map(str, runtime.batch_shape))}, {shape}')
  print(*describe(compile_steps(runtime, mesh)), sep='\n')


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except errors.UserError as error:
    sys.exit(f'benchmarks.programs: {error}')
