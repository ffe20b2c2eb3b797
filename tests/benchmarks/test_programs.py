# SPDX-License-Identifier: Apache-2.0
"""Steps compiled for devices that hold nothing, or are not there at all."""

import importlib.util

import jax
import pytest

from benchmarks import collectives
from benchmarks import programs
from dropoutnet_jax import ahead
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')

ITEMS, RANK = 24, 4  # of a batch
HAS_TPU = importlib.util.find_spec('libtpu') is not None


@pytest.fixture(scope='module')
def runtime():
  """On one device, whatever it is compiled for."""
  cfg = tiny_run.changed(
      objective={'block_users': 16}, train={'batch_size': 16 * ITEMS}
  )
  problem = prepare.prepare(cfg, None, None)
  return runtime_lib.build(cfg, problem, num_devices=1)


def test_what_is_sent_is_listed_by_kind_and_bytes(runtime):
  """The tables lie on one device; the program is for eight."""
  mesh = parallel.make_mesh(config.MeshConfig(model=4))
  program = programs.compile_steps(runtime, mesh)
  sent = collectives.bytes_by_kind(program.as_text())
  assert sent['all-gather'] == ITEMS * RANK * 4
  *lines, memory = programs.describe(program)
  assert [line.split(':')[0] for line in lines] == sorted(sent)
  for line, size in zip(lines, (sent[kind] for kind in sorted(sent))):
    assert f' of {size:,} bytes on each device, the largest' in line
  assert memory.startswith('memory of a device: ')


@pytest.mark.skipif(HAS_TPU, reason='the extra tpu is installed')
def test_what_is_missing_to_compile_for_tpus_is_told():
  with pytest.raises(errors.UserError, match='v5e:4x4: .*install the extra'):
    ahead.make_mesh('v5e:4x4', config.MeshConfig())


@pytest.mark.skipif(not HAS_TPU, reason='needs the extra tpu')
def test_steps_are_compiled_for_a_slice_without_one(runtime):
  """Of sixteen chips: the batch's items travel once, as on a CPU."""
  with pytest.raises(errors.UserError, match='v5e:no: nothing can be compiled'):
    ahead.make_mesh('v5e:no', config.MeshConfig())
  mesh = ahead.make_mesh('v5e:4x4', config.MeshConfig(model=2))
  assert mesh.shape == {'data': 8, 'model': 2}
  assert mesh.devices.flat[0] not in jax.devices()
  program = programs.compile_steps(runtime, mesh)
  sent = collectives.bytes_by_kind(program.as_text())
  assert sent['all-gather'] == ITEMS * RANK * 4
