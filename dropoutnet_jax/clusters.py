# SPDX-License-Identifier: Apache-2.0
"""Whether something has started this process as one of several of a run.

Looks at variables of the environment and at nothing else: a process on its own
neither connects to anything nor waits. How the processes find each other is
JAX's own business, `jax.distributed.initialize`; here is only decided whether
to ask it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from dropoutnet_jax import errors

MODES = ('auto', 'on', 'off')
_SLURM = (
    'SLURM_JOB_ID',
    'SLURM_STEP_NODELIST',
    'SLURM_NTASKS',
    'SLURM_PROCID',
    'SLURM_LOCALID',
)
_EXPLICITLY = (
    'give --coordinator, --num_processes and --process_id, or, where it is a '
    'run of its own, --distributed=off.'
)


class Cluster(NamedTuple):
  """What has started several processes.

  Attributes:
    name: for messages.
    method: JAX's name of how to detect it, where it has to be told; else None.
  """

  name: str
  method: str | None = None


def find(
    environment: Mapping[str, str],
    is_installed: Callable[[str], bool],
    platforms: str | None = None,
) -> Cluster | None:
  """What has started this process with others; None for a process on its own.

  Args:
    environment: such as os.environ, after the import of JAX.
    is_installed: whether a module is.
    platforms: those that JAX is told to use, 'cpu' or 'tpu,cpu'.

  Raises:
    UserError: if others were started that JAX cannot find as it is installed.
  """
  if all(name in environment for name in _SLURM):
    if _number(environment, 'SLURM_NTASKS') > 1:
      return Cluster('Slurm')
  if _number(environment, 'OMPI_COMM_WORLD_SIZE') > 1:
    if 'OMPI_MCA_orte_hnp_uri' in environment:
      return Cluster('Open MPI')
    # From version 5 on JAX asks MPI itself.
    _check_installed(is_installed, 'Open MPI', 'mpi4py', 'mpi4py')
    return Cluster('Open MPI', 'mpi4py')
  # JAX sets this one where it finds TPUs and their library.
  if 'TPU_ML_PLATFORM' in environment and platforms != 'cpu':
    hosts = environment.get(
        'TPU_PROCESS_ADDRESSES', environment.get('TPU_WORKER_HOSTNAMES')
    )
    if hosts is None or ',' in hosts or 'MEGASCALE_NUM_SLICES' in environment:
      return Cluster('a TPU slice')
    return None
  # Pods of other kinds are no run of several processes.
  if {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= {*environment}:
    _check_installed(is_installed, 'Kubernetes', 'kubernetes', 'jax[k8s]')
    return Cluster('Kubernetes')
  return None


def _check_installed(
    is_installed: Callable[[str], bool], name: str, module: str, package: str
) -> None:
  if not is_installed(module):
    raise errors.UserError(
        f'{name} has started this process as one of several, which find each '
        f"other by the package {module}. Install it (pip install '{package}'), "
        + _EXPLICITLY
    )


def _number(environment: Mapping[str, str], name: str) -> int:
  text = environment.get(name, '')
  return int(text) if text.isdecimal() else 0


def why_not_joined(cluster: Cluster | None, cause: str) -> errors.UserError:
  """The error where JAX could not join the processes of a cluster."""
  if cluster is None:
    return errors.UserError(
        '--distributed=on: JAX finds no other processes to join '
        f'({cause}). It knows TPU slices, Slurm, Open MPI and Kubernetes; '
        'elsewhere ' + _EXPLICITLY
    )
  return errors.UserError(
      f'{cluster.name} has started this process as one of several, but they '
      f'cannot be joined ({cause}). See that all of them run and reach '
      'each other; else ' + _EXPLICITLY
  )
