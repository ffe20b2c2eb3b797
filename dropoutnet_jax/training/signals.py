# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT ask a run to save and leave between two dispatches."""

import signal
from types import FrameType
from typing import Self


class StopRequest:
  """Context in which the first signal is remembered; the second one kills."""

  def __init__(self) -> None:
    self.name = ''  # of the signal that came, or ''
    self._previous: dict[int, object] = {}

  def __enter__(self) -> Self:
    for number in (signal.SIGTERM, signal.SIGINT):
      self._previous[number] = signal.signal(number, self._remember)
    return self

  def __exit__(self, *unused: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  def _remember(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.name = signal.Signals(number).name
    signal.signal(number, signal.SIG_DFL)
