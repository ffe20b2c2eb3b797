# SPDX-License-Identifier: Apache-2.0
"""Parts of the NumPy runtime against the parts of the package that they are."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import teacher
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics
from dropoutnet_jax.model import statistics as model_statistics
from dropoutnet_jax.serving import numpy_histories
from dropoutnet_jax.serving import numpy_runtime


def test_files_are_read_as_by_the_library(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {
      'a/b': rng.normal(size=(3, 4)).astype(np.float32),
      'flag': np.array([True, False, True]),
      'number': np.arange(5, dtype=np.int64),
      'small': np.arange(7, dtype=np.int32).reshape(7, 1),
      'bytes': np.frombuffer('Übung'.encode(), np.uint8),
      'exact': rng.normal(size=2),
      'nothing': np.zeros((0, 4), np.float32),
  }
  path = str(tmp_path / 'x.safetensors')
  safetensors.save_file(arrays, path, metadata={'of': 'a test'})
  found = numpy_runtime.read_safetensors(path)
  assert set(found) == set(arrays)
  for name, value in arrays.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize('has_labels', [False, True])
def test_statistics_of_told_rows(has_labels):
  """As the tables count reactions that come after training."""
  rng = np.random.default_rng(0)
  user = np.repeat(np.arange(6, dtype=np.int32), 5)
  label = rng.integers(0, 2, 30).astype(np.float32) if has_labels else None
  rows = schema.Interactions(
      user, rng.integers(0, 9, 30).astype(np.int32), label=label
  )
  bits = statistics.window_bits(rng.integers(0, 10**7, 30), (0.0, 30.0), 30)
  counts = statistics.count(user, rows, bits, 8, 2, 20.0)
  number = np.array([0, 1, 2, 7])
  cold = counts.select(np.full(4, -1)).with_reactions(np.arange(4), number)
  expected = model_statistics.features(cold, np.arange(4)).value
  names = ('mean', 'std', 'prior', 'rate_std', 'usual')
  about = {name: np.asarray(getattr(counts, name)).tolist() for name in names}
  about |= {'smoothing': 20.0, 'has_rates': has_labels}
  found = numpy_histories.counted(number, about)
  assert found.shape == (4, 4 if has_labels else 2)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_histories_are_folded_in_as_by_the_teacher():
  rng = np.random.default_rng(0)
  factors = rng.normal(size=(12, 4)).astype(np.float32)
  factors[3] = 0  # nobody met it
  met = scipy.sparse.csr_array((rng.random((5, 12)) < 0.3).astype(np.float32))
  met = scipy.sparse.vstack([met, np.eye(1, 12, 3), np.zeros((1, 12))], 'csr')
  met = scipy.sparse.csr_array(met, dtype=np.float32)
  settings = config.TeacherConfig(confidence=7.0, regularization=0.5)
  found = numpy_histories.fold_in(factors.astype(np.float64), met, 7.0, 0.5)
  expected = teacher.fold_in(factors, met, settings)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  assert not found[5:].any()


@pytest.fixture(name='model')
def fixture_model():
  """Of two users and three items, by hand; without files."""
  model = object.__new__(numpy_runtime.Model)
  ids = {'user': [7, 8], 'item': ['a', 'b', 'c']}
  model._read = lambda side: numpy_runtime.Embeddings(ids[side], None, None)
  return model


def test_ids_that_nobody_knows_are_no_history(model):
  met = model.history('user', [['b', 'x', 'b'], [], ['c', 'a']])
  np.testing.assert_array_equal(
      met.toarray(), [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
  )
  met = model.history('item', [[8], ['8']])
  np.testing.assert_array_equal(met.toarray(), [[0, 1], [0, 0]])
  assert model.history('user', []).shape == (0, 3)


@pytest.mark.parametrize(
    'histories, message',
    [
        (['a'], "History 0 is 'a', which is no list"),
        ('abc', "History 0 is 'a', which is no list"),
        ([[], b'a'], "History 1 is b'a', which is no list"),
        ([None], 'History 0 is None, which is no list'),
        ([['a', None]], 'History 0 has None, which is no id'),
        ([[1.5]], r'History 0 has 1\.5, which is no id'),
        ([[['a']]], r"History 0 has \['a'\], which is no id"),
    ],
)
def test_what_is_no_list_of_ids_is_no_history(model, histories, message):
  with pytest.raises(ValueError, match=message):
    model.history('user', histories)


def test_there_are_two_sides(model):
  with pytest.raises(ValueError, match="There is no side 'x'"):
    model.embed('x', [{}])


def test_rows_and_histories_go_together(model):
  model.manifest = json.loads('{"sides": {}}')
  with pytest.raises(ValueError, match='1 rows, but 2 histories'):
    model.embed('user', [{}], [[], []])
