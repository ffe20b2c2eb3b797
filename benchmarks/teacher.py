# SPDX-License-Identifier: Apache-2.0
"""The teacher beside `implicit`, as a table; `als` does the measuring."""

from benchmarks import als
from benchmarks import comparison

_RECALL_GAP = 0.005  # how far below the other's recall is still the same


def run(data_dir: str | None) -> comparison.Comparison:
  """Times iterations in turns and compares the factors' recall."""
  print('Training the teacher and implicit in turns ...', flush=True)
  found = als.compare(data_dir)
  seconds, recall = 'seconds per iteration', 'recall@100'
  rows = []
  for solver in (als.EXACT, als.GRADIENTS):
    ours, theirs = (found[solver][name] for name in (als.OURS, als.THEIRS))
    rows += [
        comparison.Row(
            f'{seconds}, {solver}',
            ours[seconds],
            theirs[seconds],
            found[solver]['ratio'],
            bar=1.0 if solver == als.EXACT else None,
        ),
        comparison.Row(
            f'{recall}, {solver}',
            ours[recall],
            theirs[recall],
            ours[recall] / theirs[recall],
            bar=1.0 - _RECALL_GAP / theirs[recall],
        ),
    ]
  return comparison.Comparison(
      'Weighted ALS on citeulike-a, warm split',
      'implicit',
      rows,
      [
          'CG: three steps of conjugate gradients, the default of implicit; '
          'ours is teacher.cg_steps=3.'
      ],
  )
