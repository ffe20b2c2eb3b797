# SPDX-License-Identifier: Apache-2.0
"""A stop request that comes at a planned moment."""


class StopAfter:
  """Stands in for a signal that comes during the n-th dispatch."""

  def __init__(self, num_dispatches):
    self._left = num_dispatches

  @property
  def name(self):
    self._left -= 1
    return 'SIGTERM' if self._left <= 0 else ''
