# SPDX-License-Identifier: Apache-2.0
"""The teacher beside `implicit`, as a table; `als` does the measuring."""

from benchmarks import als
from benchmarks import comparison

_RECALL_GAP = 0.005  # how far below the other's recall is still the same


def run(data_dir: str | None) -> comparison.Comparison:
  """Times iterations in turns and compares the factors' recall."""
  print('Training the teacher and implicit in turns ...', flush=True)
  found = als.compare(data_dir)
  ours, exact, gradients = (
      found[name] for name in (als.OURS, als.EXACT, als.GRADIENTS)
  )
  seconds, recall = 'seconds per iteration', 'recall@100'
  return comparison.Comparison(
      'Weighted ALS on citeulike-a, warm split',
      'implicit',
      [
          comparison.Row(
              f'{seconds}, both exact',
              ours[seconds],
              exact[seconds],
              found['ratio'],
              bar=1.0,
          ),
          comparison.Row(
              f'{seconds}, implicit by conjugate gradients',
              ours[seconds],
              gradients[seconds],
              found['ratio to CG'],
          ),
          comparison.Row(
              recall,
              ours[recall],
              exact[recall],
              ours[recall] / exact[recall],
              bar=1.0 - _RECALL_GAP / exact[recall],
          ),
      ],
      [
          'implicit by conjugate gradients, its default, is not exact: '
          f'{recall} {gradients[recall]:.4f}.'
      ],
  )
