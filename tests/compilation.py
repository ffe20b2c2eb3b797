# SPDX-License-Identifier: Apache-2.0
"""How tests compile: quickly, where a program runs only a few times."""

from collections.abc import Iterator
import contextlib

import jax

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
