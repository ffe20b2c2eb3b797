# SPDX-License-Identifier: Apache-2.0
"""All tests of the model compile quickly: they are many small programs."""

from collections.abc import Iterator

import pytest

from tests import compilation


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """For all tests of the model."""
  with compilation.quick_compilation():
    yield
