# SPDX-License-Identifier: Apache-2.0
"""Values of every user survive a file, and two runs compare by them."""

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import details
from dropoutnet_jax.training import per_user


def _values(seed, digest='abc'):
  rng = np.random.default_rng(seed)
  return details.PerUser(
      np.arange(5, dtype=np.int32),
      digest,
      {
          method: {metric: rng.random(5) for metric in ('ndcg@20', 'mrr')}
          for method in ('model', 'random')
      },
  )


def test_what_is_saved_is_loaded(tmp_path):
  found = {'warm': _values(0), 'cold_item_validation': _values(1, 'x')}
  per_user.save(found, str(tmp_path))
  again = per_user.load(str(tmp_path))
  assert again.keys() == found.keys()
  for name, one in found.items():
    assert again[name].digest == one.digest
    np.testing.assert_array_equal(again[name].users, one.users)
    for method, values in one.values.items():
      for metric, value in values.items():
        np.testing.assert_allclose(
            again[name].values[method][metric], value, rtol=1e-6
        )


def test_models_are_compared_on_test_sets_in_common():
  one = {
      'warm': _values(0),
      'cold_item': _values(1),
      'cold_user': _values(2),
      'warm_validation': _values(3),
  }
  other = {
      'warm': _values(4),
      'cold_item': _values(5, 'another split'),
      'warm_validation': _values(3),
  }
  found = per_user.compare(one, other, 50)
  assert list(found) == ['warm'] and found['warm']['users'] == 5
  mine, theirs = (x['warm'].values['model']['mrr'] for x in (one, other))
  gap = found['warm']['metrics']['mrr']
  assert gap['difference'] == pytest.approx((mine - theirs).mean())
  assert gap['better'] == np.mean(mine > theirs)


def test_runs_of_other_data_do_not_compare():
  with pytest.raises(errors.UserError, match='no test set with the same pairs'):
    per_user.compare({'warm': _values(0)}, {'warm': _values(0, 'other')}, 10)


def test_a_folder_without_the_file_is_told(tmp_path):
  with pytest.raises(errors.UserError, match='has no per_user.npz'):
    per_user.load(str(tmp_path))
