# SPDX-License-Identifier: Apache-2.0
"""Training in turns, so that a busy machine slows all sides alike."""

import time

from benchmarks import task


def measure(
    sides: tuple[task.Trained, ...], num_rounds: int, seconds: float
) -> list[list[float]]:
  """Pairs per second of each side in each round, [sides][rounds].

  Args:
    sides: they train in turns.
    num_rounds: turns that count; one more, before them, sets the lengths.
    seconds: about how long a turn is.
  """
  num_steps = []
  for side in sides:
    side.train(2)  # whatever is made at the first call
    rate = pairs_per_second(side, 10)
    num_steps.append(max(1, round(rate * seconds / side.pairs_per_step)))
  rounds = [
      [pairs_per_second(side, count) for side, count in zip(sides, num_steps)]
      for _ in range(num_rounds)
  ]
  return [list(rates) for rates in zip(*rounds)]


def pairs_per_second(side: task.Trained, num_steps: int) -> float:
  """Of num_steps steps."""
  begin = time.perf_counter()
  side.train(num_steps)
  return num_steps * side.pairs_per_step / (time.perf_counter() - begin)
