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


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
  """Half the compilation time; what is computed stays the same."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.config.update(name, True)
  yield
  jax.config.update(name, before)


_KEPT = 'jax_compilation_cache_dir'
_EACH = 'jax_persistent_cache_min_compile_time_secs'


def keep_programs(folder: pathlib.Path) -> None:
  """Keeps all that is compiled from here on in a folder, and looks there."""
  jax.config.update(_KEPT, str(folder))
  jax.config.update(_EACH, 0.0)
  compilation_cache.reset_cache()  # something may have asked for it before


def kept_programs() -> dict[str, Any]:
  """Settings of a process that shares the folder of this one."""
  return {name: getattr(jax.config, name) for name in (_KEPT, _EACH)}
