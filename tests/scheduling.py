# SPDX-License-Identifier: Apache-2.0
"""Which process of the suite runs which files, and in which order.

What a file has made once stays with its process. Files of some folders share
more than that, fixtures that take as long as their tests, and stay together.
"""

import pytest
from xdist import scheduler

_TOGETHER = ('tests/serving/', 'tests/exploring/')
# What is long and starts last is waited for on one core.
_LONG = (
    'tests/serving/',
    'test_processes.py',
    'test_two_runs.py',
    'test_split_programs.py',
    'test_citeulike.py',
    'tests/exploring/',
    'test_streaming.py',
    'test_sweeps.py',
    'test_tune.py',
    'test_own_tables_example.py',
    'test_published.py',
    'test_teacher.py',
    'test_loop.py',
    'test_losses_softmax.py',
    'test_split_embeddings.py',
    'test_split_results.py',
    'test_parameter_groups.py',
    'test_label_options.py',
    'test_label_loss.py',
    'test_many_devices.py',
    'test_large_tables.py',
    'test_steps.py',
    'test_run.py',
    'test_commands.py',
)


def _folder(nodeid: str) -> str | None:
  """The folder whose files stay together, of a test in one."""
  return next((name for name in _TOGETHER if nodeid.startswith(name)), None)


def sort(items: list[pytest.Item]) -> None:
  """Sorts tests in place, long ones first."""
  place = {name: number for number, name in enumerate(_LONG)}

  def key(item: pytest.Item) -> int:
    return place.get(_folder(item.nodeid) or item.path.name, len(place))

  items.sort(key=key)


class Scheduling(scheduler.LoadFileScheduling):
  """Files go to whoever is free, those of one of some folders to one."""

  def _split_scope(self, nodeid: str) -> str:
    return _folder(nodeid) or super()._split_scope(nodeid)
