# SPDX-License-Identifier: Apache-2.0
"""The tables of `bench --suite=explore`; the worlds take minutes."""

import pytest

from benchmarks import comparison
from benchmarks import explore
from benchmarks import suite
from dropoutnet_jax.exploring import measures


def _found(times):
  """By policy two worlds of which all measures are the same number."""
  return {
      name: [dict.fromkeys(measures.NAMES, time) | {'clicks': 10.0}] * 2
      for name, time in times.items()
  }


@pytest.mark.parametrize('time, met', [(60.0, True), (80.0, False)])
def test_thompson_is_held_to_epsilon_of_equal_clicks(time, met, capsys):
  names = explore.contestants(explore.CHOSEN)
  assert f'thompson {explore.WIDTH:g}' in names
  assert names['random'].floor == 1.0 and names['greedy'].floor == 0.0
  times = dict.fromkeys(names, 100.0) | {f'thompson {explore.WIDTH:g}': time}
  found = explore.compare({'planted': _found(times), 'films': _found(times)})
  first = found.rows[0]
  assert (first.ours, first.other) == (pytest.approx(time), pytest.approx(100))
  assert first.met == met
  assert [row.bar is not None for row in found.rows] == [True] + 3 * [False]
  assert f'found {100 - time:.0f} % sooner' in found.notes[0]
  assert [len(grid.rows) for grid in found.grids] == [len(names)] * 6
  suite.show(found)
  shown = capsys.readouterr().out
  assert 'epsilon 0.05' in shown and 'planted, mean of 2 worlds' in shown
  assert found.as_dict()['grids'][0]['head'][0] == 'policy'


def test_a_grid_has_a_row_for_each_and_the_names_above():
  grid = comparison.Grid(
      'title', ['policy', 'clicks'], [['a', '1'], ['b', '2']]
  )
  table = comparison.make_grid(grid)
  assert (table.row_count, len(table.columns)) == (2, 2)
