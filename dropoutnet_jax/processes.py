# SPDX-License-Identifier: Apache-2.0
"""Several processes of one run: how they find and how they lose each other."""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
import signal
import socket
import threading
import time

import jax

from dropoutnet_jax import clusters
from dropoutnet_jax import errors

_PATIENCE = 300.0  # seconds, as JAX has it
# Words of errors of Gloo, NCCL and JAX's coordination service.
_SIGNS_OF_LOSS = (
    'Gloo',
    'NCCL',
    'Barrier failed',
    'heartbeat',
    'coordination',
    'Connection',
    'UNAVAILABLE',
    'DEADLINE_EXCEEDED',
)


def initialize(
    coordinator: str = '',
    num_processes: int = 0,
    process_id: int = -1,
    mode: str = 'auto',
) -> None:
  """Joins the processes of one run; does nothing for a single process.

  Args:
    coordinator: 'host:port' of process 0.
    num_processes: how many take part.
    process_id: number of this one.
    mode: where none of the three is given: 'auto' joins what the environment
      says was started together, 'on' has JAX look for it in any case, 'off'
      does nothing.

  Raises:
    UserError: if only some of the three are given, one of them can't be, or
      the others can't be found or don't answer.
  """
  if mode not in clusters.MODES:
    raise errors.UserError(
        f'--distributed={mode}: it must be one of {", ".join(clusters.MODES)}.'
    )
  given = (bool(coordinator), num_processes > 0, process_id >= 0)
  if not any(given):
    _join_cluster(mode)
    return
  if mode == 'off':
    raise errors.UserError(
        '--distributed=off, but --coordinator, --num_processes and '
        '--process_id describe several processes; leave out the one or the '
        'others.'
    )
  if not all(given):
    raise errors.UserError(
        '--coordinator, --num_processes and --process_id belong together; '
        'give all three or none.'
    )
  if process_id >= num_processes:
    raise errors.UserError(
        f'--process_id={process_id}: of {num_processes} processes it must be '
        f'from 0 to {num_processes - 1}.'
    )
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise errors.UserError(
        f'--coordinator={coordinator}: expected HOST:PORT of process 0, such '
        'as localhost:9999.'
    )
  if process_id > 0:
    _wait_for(host, int(port))
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except RuntimeError as error:
    raise errors.UserError(
        f'--coordinator={coordinator}: the processes cannot be joined '
        f'({errors.cause(error)}). Start all of them with the same address, '
        'where process 0 can be reached.'
    ) from error
  _take_signal_back()


def _take_signal_back() -> None:
  """Undoes that JAX's service of preemption catches SIGTERM and keeps it.

  It would only be asked between steps, and what comes before them would go on.
  `training.signals` remembers the signal and `parallel.anywhere` tells the
  other processes, which is all that the service does.
  """
  handler = signal.getsignal(signal.SIGTERM)
  if handler and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, handler)


def _wait_for(host: str, port: int) -> None:
  """Waits until process 0 listens: JAX would end without an exception."""
  deadline = time.monotonic() + _PATIENCE
  while True:
    try:
      socket.create_connection((host.strip('[]'), port), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > deadline:
        raise errors.UserError(
            f'--coordinator={host}:{port}: process 0 does not answer there '
            f'({error.strerror or error}). Start all processes with the same '
            'address, where process 0 can be reached, within '
            f'{_PATIENCE:.0f} s.'
        ) from error
    time.sleep(0.1)


def _join_cluster(mode: str) -> None:
  """Joins the processes that were started together, if any."""
  if mode == 'off':
    return
  is_installed = lambda name: importlib.util.find_spec(name) is not None
  platforms = getattr(jax.config, 'jax_platforms', None)
  cluster = clusters.find(os.environ, is_installed, platforms)
  if cluster is None and mode == 'auto':
    return
  try:
    jax.distributed.initialize(
        cluster_detection_method=cluster.method if cluster else None
    )
  except Exception as error:  # of sockets, MPI, Kubernetes, a metadata server
    cause = errors.cause(error).rstrip('.')
    raise clusters.why_not_joined(cluster, cause) from error
  _take_signal_back()


@contextlib.contextmanager
def with_others() -> Iterator[None]:
  """Tells of another process that has ended, instead of a traceback.

  This process cannot go on without it. Where it is found out by JAX's own
  threads and not in a `with` block, JAX says so and ends the process.

  Raises:
    UserError: if a collective or a barrier failed since another one is gone.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = str(error)
    if jax.process_count() == 1 or not any(x in text for x in _SIGNS_OF_LOSS):
      raise
    # At once: JAX would wait for the others at its exit.
    raise errors.BusyThreadsError(
        f'Another process of this run has ended ({errors.cause(error)}), and '
        'none can go on alone. Start all of them again with the same command: '
        'they go on from the last checkpoint.'
    ) from error
