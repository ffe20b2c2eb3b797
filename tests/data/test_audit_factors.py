# SPDX-License-Identifier: Apache-2.0
"""The audit of the teacher and of the training targets."""

import dataclasses
import re

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import schema
from tests.data import planted_leaks

FACTOR_LEAKS = {
    'value': ('item', 7, 'value', '1 item (507)'),
    'presence': ('item', 9, 'present', '1 item (509)'),
    'not a number': ('item', 6, 'nan', '1 item (506)'),
    'user': ('user', 5, 'value', "1 user ('u5')"),
    'user presence': ('user', 8, 'present', "1 user ('u8')"),
}


@pytest.mark.parametrize('name', FACTOR_LEAKS)
def test_factors_of_cold_rows_are_found_and_blanked(name):
  side, row, kind, found = FACTOR_LEAKS[name]
  split = planted_leaks.clean_split()
  clean, leaky = planted_leaks.factors_of(split), planted_leaks.factors_of(
      split
  )
  if kind == 'present':
    getattr(leaky, f'{side}_present')[row] = True
  else:
    getattr(leaky, side)[row, 1] = np.nan if kind == 'nan' else 0.25
  line = f'teacher: factors of {found} without a training pair'
  with pytest.raises(errors.UserError) as caught:
    audit.check_factors(planted_leaks.DATASET, split, leaky)
  assert line in str(caught.value)
  assert 'data.drop_leaks=true' in str(caught.value)
  blank, sentences = audit.check_factors(
      planted_leaks.DATASET, split, leaky, drop=True
  )
  assert sentences == [f'Blanked: {line}.']
  assert audit.check_factors(planted_leaks.DATASET, split, blank) == (blank, [])
  for field in dataclasses.fields(schema.Factors):
    a, b = getattr(blank, field.name), getattr(clean, field.name)
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def test_factors_of_rows_whose_training_pairs_are_dropped_are_blanked():
  split = planted_leaks.with_train((3, 6))(planted_leaks.clean_split())
  factors = planted_leaks.factors_of(split)  # of a teacher that saw the leak
  assert factors.item_present[6]
  assert audit.check_factors(planted_leaks.DATASET, split, factors) == (
      factors,
      [],
  )
  mended, _ = audit.check_split(planted_leaks.DATASET, split, drop=True)
  blank, sentences = audit.check_factors(
      planted_leaks.DATASET, mended, factors, drop=True
  )
  assert sentences == [
      'Blanked: teacher: factors of 1 item (506) without a training pair.'
  ]
  assert not blank.item_present[6]


def test_training_rows_without_factors_are_no_leak():
  split = planted_leaks.clean_split()
  factors = planted_leaks.factors_of(split)
  factors.item[2], factors.item_present[2] = 0, False
  assert audit.check_factors(planted_leaks.DATASET, split, factors) == (
      factors,
      [],
  )


# Targets.


def test_targets_of_training_items_pass():
  targets = np.tile(planted_leaks.int32(0, 1, 2, 3, 4, 5, -1), (3, 1))
  for rows in (targets, planted_leaks.int32()):
    for allow_cold in (False, True):
      found = audit.check_targets(
          rows, planted_leaks.clean_split(), planted_leaks.DATASET, allow_cold
      )
      assert found == []


@pytest.mark.parametrize(
    'targets, counted',
    [
        (
            [[0, 6], [6, 9]],
            '3 of 4 training targets and negatives belong to 2 '
            'items (506, 509) that',
        ),
        ([8], '1 of 1 training targets and negatives belong to 1 item (508)'),
        ([6, 7, 8, 9, -1], '4 of 4 .* 4 items (506, 507, 508, ...) that'),
    ],
)
def test_cold_targets_are_told(targets, counted):
  with pytest.raises(errors.UserError) as caught:
    audit.check_targets(
        np.array(targets), planted_leaks.clean_split(), planted_leaks.DATASET
    )
  pattern = re.escape(counted).replace(r'\.\*', '.*')
  assert re.search(pattern, str(caught.value)), str(caught.value)
  note = audit.check_targets(
      np.array(targets),
      planted_leaks.clean_split(),
      planted_leaks.DATASET,
      allow_cold=True,
  )
  assert len(note) == 1
  assert re.search(pattern.removesuffix(r'\ that'), note[0])
  assert '--config.objective.target_items=training' in str(caught.value)
