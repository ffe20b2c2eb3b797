# SPDX-License-Identifier: Apache-2.0
"""Which processes look for others, and what is told where there are none."""

import socket

import jax
import pytest

from dropoutnet_jax import clusters
from dropoutnet_jax import errors
from dropoutnet_jax import processes

SLURM = {
    'SLURM_JOB_ID': '7',
    'SLURM_STEP_NODELIST': 'node[01-02]',
    'SLURM_NTASKS': '4',
    'SLURM_PROCID': '1',
    'SLURM_LOCALID': '1',
}
MPI = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '0'}
MPI_4 = MPI | {'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911'}
TPU = {'TPU_ML_PLATFORM': 'JAX'}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1'}
JOB = POD | {'JOB_COMPLETION_INDEX': '0'}
# What many programs leave in an environment that JAX must not act upon.
ALONE = [
    {},
    {name: value for name, value in SLURM.items() if 'STEP' not in name},
    SLURM | {'SLURM_NTASKS': '1'},
    MPI_4 | {'OMPI_COMM_WORLD_SIZE': '1'},
    TPU | {'TPU_WORKER_HOSTNAMES': 'localhost'},
    POD,
    {'TPU_WORKER_HOSTNAMES': 'one,two'},
]
TOGETHER = [
    (SLURM, 'Slurm', None),
    (MPI_4, 'Open MPI', None),
    (MPI, 'Open MPI', 'mpi4py'),
    (TPU, 'a TPU slice', None),
    (TPU | {'TPU_WORKER_HOSTNAMES': 'one,two'}, 'a TPU slice', None),
    (JOB, 'Kubernetes', None),
]


def everything(name):
  del name
  return True


@pytest.fixture
def joined(monkeypatch):
  """What JAX is asked; nothing is connected to."""
  asked = []
  monkeypatch.setattr(
      jax.distributed, 'initialize', lambda *a, **k: asked.append((a, k))
  )
  for name in (*SLURM, *MPI_4, *TPU, *JOB, 'TPU_WORKER_HOSTNAMES'):
    monkeypatch.delenv(name, raising=False)
  return asked


@pytest.mark.parametrize('environment', ALONE)
def test_a_process_on_its_own_looks_for_nobody(
    monkeypatch, joined, environment
):
  assert clusters.find(environment, everything) is None
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  processes.initialize()
  assert joined == []


@pytest.mark.parametrize('environment, name, method', TOGETHER)
def test_processes_that_were_started_together_are_joined(
    monkeypatch, joined, environment, name, method
):
  assert clusters.find(environment, everything) == (name, method)
  if name != 'a TPU slice':  # tests are told to use CPUs
    monkeypatch.setattr('importlib.util.find_spec', everything)
    for key, value in environment.items():
      monkeypatch.setenv(key, value)
    processes.initialize(mode='off')
    assert joined == []
    processes.initialize()
    assert joined == [((), {'cluster_detection_method': method})]


def test_tpus_that_are_not_used_join_nobody():
  assert clusters.find(TPU, everything, 'tpu,cpu') is not None
  assert clusters.find(TPU, everything, 'cpu') is None


@pytest.mark.parametrize(
    'environment, package', [(MPI, 'mpi4py'), (JOB, "'jax\\[k8s\\]'")]
)
def test_what_is_missing_to_find_the_others_is_told(environment, package):
  with pytest.raises(errors.UserError, match=f'{package}.*distributed=off'):
    clusters.find(environment, lambda name: False)


def test_who_insists_on_others_is_told_where_there_are_none(monkeypatch):
  for name in (*SLURM, *MPI_4, *TPU, *JOB):
    monkeypatch.delenv(name, raising=False)

  def initialize(**options):
    del options
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(errors.UserError, match='--distributed=on: JAX finds no'):
    processes.initialize(mode='on')
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(errors.UserError, match='^Slurm has started this process'):
    processes.initialize()


def test_a_mode_that_does_not_exist_is_told():
  with pytest.raises(errors.UserError, match='--distributed=yes: it must be'):
    processes.initialize(mode='yes')


@pytest.mark.parametrize(
    'given', [('host:1', 0, -1), ('', 2, 0), ('host:1', 2, -1), ('', 0, 0)]
)
def test_half_a_description_of_the_processes_is_told(joined, given):
  with pytest.raises(errors.UserError, match='belong together; give all three'):
    processes.initialize(*given)
  assert joined == []


@pytest.mark.parametrize(
    'given, message',
    [
        (('host:1', 2, 2, 'auto'), 'from 0 to 1'),
        (('host', 2, 1, 'auto'), 'expected HOST:PORT'),
        (('host:0', 2, 1, 'on'), 'expected HOST:PORT'),
        (('host:1', 2, 1, 'off'), 'leave out the one or the others'),
    ],
)
def test_a_wrong_description_is_told(joined, given, message):
  with pytest.raises(errors.UserError, match=message):
    processes.initialize(*given)
  assert joined == []


def test_a_description_wins_over_what_is_found(monkeypatch, joined):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  processes.initialize('host:1', 2, 0)
  assert joined == [(('host:1', 2, 0), {})]


def test_process_0_is_waited_for(monkeypatch, joined):
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    address = '127.0.0.1:%d' % listening.getsockname()[1]
    listening.listen()
    processes.initialize(address, 2, 1)
    assert joined.pop() == ((address, 2, 1), {})
  monkeypatch.setattr(processes, '_PATIENCE', 0.2)
  with pytest.raises(errors.UserError, match='process 0 does not answer there'):
    processes.initialize(address, 2, 1)
  assert joined == []


@pytest.mark.parametrize(
    'count, text, told',
    [
        (2, 'INTERNAL: Gloo all-reduce failed: Connection reset', True),
        (2, 'INTERNAL: Barrier failed because: task is set to ERROR', True),
        (2, 'RESOURCE_EXHAUSTED: Out of memory', False),
        (1, 'INTERNAL: Gloo', False),
    ],
)
def test_the_end_of_another_process_is_told(monkeypatch, count, text, told):
  monkeypatch.setattr(jax, 'process_count', lambda: count)
  expected = errors.BusyThreadsError if told else jax.errors.JaxRuntimeError
  with pytest.raises(expected) as caught:
    with processes.with_others():
      raise jax.errors.JaxRuntimeError(text)
  message = str(caught.value)
  assert text in message
  assert ('they go on from the last checkpoint' in message) == told
