# SPDX-License-Identifier: Apache-2.0
"""Meshes of devices that are not here, to compile for.

XLA compiles for a TPU slice without one, where its library (libtpu, of the
extra 'tpu') is installed: what a step sends and how much memory it takes is
known before anybody pays for a machine.
"""

import os
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards


def make_mesh(topology: str, settings: config.MeshConfig) -> parallel.Mesh:
  """The mesh of a TPU slice such as 'v5e:4x4'.

  Raises:
    UserError: if there is no such slice, or no library to compile for it.
  """
  # Else it asks a server of Google's cloud where it is, for minutes.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  try:
    found = topologies.get_topology_desc(topology, platform='tpu')
  except (RuntimeError, NotImplementedError, ValueError) as error:
    raise errors.UserError(
        f'{topology}: nothing can be compiled for it ({errors.cause(error)}). '
        'Name a TPU slice, such as v5e:4x4, and install the extra tpu.'
    ) from error
  return parallel.make_mesh(settings, devices=list(found.devices))


def lay_out(tables: Any, mesh: parallel.Mesh) -> Any:
  """Shapes of host tables as `parallel.place_tables` would place them."""
  parts = mesh.shape[table_shards.CANDIDATE_AXIS]

  def shape(x: Any) -> jax.ShapeDtypeStruct:
    is_split = parts > 1 and np.ndim(x) > 1 and np.size(x) > 0
    rows = x.shape[:1] if not is_split else (x.shape[0] + -x.shape[0] % parts,)
    spec = table_shards.CANDIDATES if is_split else table_shards.WHOLE
    return jax.ShapeDtypeStruct(
        rows + x.shape[1:], x.dtype, sharding=NamedSharding(mesh, spec)
    )

  return jax.tree.map(lambda x: shape(np.asarray(x)), tables)
