# SPDX-License-Identifier: Apache-2.0
"""What most tests need not do, and most of their runs would: half of a run.

Matplotlib draws the pictures of a report in as much time as a tiny experiment
trains, and the collector of garbage looks again and again at a million objects
of modules and compiled programs that stay. For eight devices programs take
half as long again to compile, and checkpoints to write.
"""

from collections.abc import Iterator
import contextlib
import gc
from typing import Any
from unittest import mock

import jax
from matplotlib import figure as figure_lib

from dropoutnet_jax import config
from dropoutnet_jax import parallel

_MAKE_MESH = parallel.make_mesh
_SAVE = figure_lib.Figure.savefig


def collect_rarely() -> None:
  """From here on; what is there already is never looked at again."""
  gc.freeze()
  gc.set_threshold(50_000, 20, 100)


def _save(figure: figure_lib.Figure, file: Any, **settings: Any) -> None:
  if settings.get('format') == 'svg':
    file.write('<svg></svg>')
  else:
    _SAVE(figure, file, **settings)


def draw_nothing() -> contextlib.AbstractContextManager[Any]:
  """Within it, or once entered, each picture of a report is an empty one."""
  return mock.patch.object(figure_lib.Figure, 'savefig', _save)


@contextlib.contextmanager
def draw() -> Iterator[None]:
  """Within it pictures are drawn, whatever is around it."""
  with mock.patch.object(figure_lib.Figure, 'savefig', _SAVE):
    yield


def _make_mesh(
    settings: config.MeshConfig,
    num_devices: int | None = None,
    devices: list[jax.Device] | None = None,
) -> parallel.Mesh:
  if num_devices is None and devices is None and settings.model == 1:
    num_devices = 1
  return _MAKE_MESH(settings, num_devices, devices)


def one_device() -> contextlib.AbstractContextManager[Any]:
  """Within it runs take one device where nobody says how many."""
  return mock.patch.object(parallel, 'make_mesh', _make_mesh)
