# SPDX-License-Identifier: Apache-2.0
"""How tests compile: quickly, where a program runs only a few times."""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

# Options of the code that is generated outside of the tests; see conftest.py.
USUAL_CODE = {'xla_cpu_use_fusion_emitters': True}
_KEPT = 'jax_compilation_cache_dir'
_KEPT_FROM = 'jax_persistent_cache_min_compile_time_secs'


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
  """Half the compilation time; what is computed stays the same."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.config.update(name, True)
  yield
  jax.config.update(name, before)


def keep_programs(folder: pathlib.Path) -> None:
  """Keeps what takes long to compile from here on in a folder, and looks there.

  To keep the many small programs takes as long as it saves.
  """
  jax.config.update(_KEPT, str(folder))
  jax.config.update(_KEPT_FROM, 0.5)
  compilation_cache.reset_cache()  # something may have asked for it before


def kept_programs() -> dict[str, Any]:
  """Settings of a process that shares the folder, and is one of many alike."""
  return {_KEPT: getattr(jax.config, _KEPT), _KEPT_FROM: 0.0}
