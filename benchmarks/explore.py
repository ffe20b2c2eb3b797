# SPDX-License-Identifier: Apache-2.0
"""Policies beside each other: clicks lost, and how soon new items are found.

In the planted world and on ratings of MovieLens 100K (`exploring.simulator`),
each policy with the same model, the same visits and the same learner of beliefs
(rows named 'masks' have none). Thompson sampling is held to epsilon-greedy of
equal clicks: its curve over several epsilons is read off where it has as many
clicks as Thompson.

Widths were chosen in planted worlds 100 to 103, which are not among those
reported, by python -m benchmarks.explore: of 1, 2 and 3 standard deviations the
widest that keeps 95 % of the clicks of greedy. MovieLens had no say in it.
"""

import argparse
from collections.abc import Mapping, Sequence
import functools
import time

from benchmarks import comparison
from benchmarks import explore_worlds
from dropoutnet_jax.exploring import learner
from dropoutnet_jax.exploring import mask_learner
from dropoutnet_jax.exploring import measures
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import simulator

EPSILONS = (0.02, 0.05, 0.1, 0.2, 0.4)
WIDTHS = (1.0, 2.0, 3.0)  # to choose from
WIDTH = 2.0  # of Thompson: 99 % of the clicks in those worlds; 3 keeps 92 %
MASKS = 'thompson, masks'
CHOSEN = {'ucb': (3.0,), 'thompson': (1.0, WIDTH), MASKS: (1.0, WIDTH)}
_PLANTED_SEEDS = 0, 1, 2, 3
_REPLAY_SEEDS = 0, 1
_BAR = 0.3  # sooner than epsilon-greedy of equal clicks

# Measures that fit beside each other.
_GROUPS = measures.NAMES[:4], measures.NAMES[4:8], measures.NAMES[8:]

Found = dict[str, list[dict[str, float]]]  # by policy, of each world


def contestants(
    widths: Mapping[str, Sequence[float]],
) -> dict[str, policies.Policy]:
  """Policies by name.

  Args:
    widths: of 'ucb' and of 'thompson', and of the latter by 'masks' alone.
  """
  policy = policies.Policy
  found = {'greedy': policy('greedy'), 'random': policy('epsilon', epsilon=1.0)}
  found |= {f'epsilon {e:g}': policy('epsilon', epsilon=e) for e in EPSILONS}
  found['quota 0.2'] = policy('greedy', new_share=0.2)
  for kind, some in widths.items():
    for width in some:
      of = 'thompson' if kind == MASKS else kind
      found[f'{kind} {width:g}'] = policy(of, width=width)
  return found


def play(
    make: explore_worlds.Make,
    seeds: Sequence[int],
    widths: Mapping[str, Sequence[float]],
) -> Found:
  """Measures of each policy in the world of each seed."""
  found: Found = {name: [] for name in contestants(widths)}
  for seed in seeds:
    begin = time.perf_counter()
    place = make(seed)
    for name, policy in contestants(widths).items():
      course = simulator.simulate(
          place.world, _learner(name, place), policy, place.rounds, seed
      )
      found[name].append(
          measures.measure(
              place.world, course, place.rounds.places, place.num_clicks
          )
      )
    seconds = time.perf_counter() - begin
    print(f'  world {seed}: {seconds:.0f} s', flush=True)
  return found


def _learner(name: str, place: explore_worlds.Place) -> simulator.Learner:
  if name.startswith(MASKS):
    return mask_learner.MaskLearner(place.cfg, place.problem, place.scorer)
  return learner.Learner(place.known, place.scorer)


def run(data_dir: str | None) -> comparison.Comparison:
  """Measures both worlds; see `task.load_problem` for the data."""
  print('Exploring the planted world ...', flush=True)
  found = {
      'planted': play(explore_worlds.planted_place, _PLANTED_SEEDS, CHOSEN)
  }
  print('Exploring MovieLens 100K ...', flush=True)
  make = functools.partial(explore_worlds.replay_place, data_dir=data_dir)
  found['MovieLens'] = play(make, _REPLAY_SEEDS, CHOSEN)
  return compare(found)


def compare(found: Mapping[str, Found]) -> comparison.Comparison:
  """Rows of Thompson against epsilon-greedy, and all policies as tables."""
  rows, notes = [], []
  for world, by_policy in found.items():
    own = by_policy[f'thompson {WIDTH:g}']
    curve = [by_policy['greedy']]
    curve += [by_policy[f'epsilon {epsilon:g}'] for epsilon in EPSILONS]
    for name, what in (('found', 'found'), ('listed', 'in half of its lists')):
      share, low, high = measures.sooner(curve, own, name)
      mine = measures.summarize(own)[name][0]
      rows.append(
          comparison.Row(
              f'{world}: 1,000 impressions until a good new item is {what}',
              mine,
              mine / (1 - share),
              1 / (1 - share),
              1 / (1 - _BAR) if (world, name) == ('planted', 'found') else None,
          )
      )
      notes.append(
          f'{world}: {what} {100 * share:.0f} % sooner (95 % over worlds '
          f'{100 * low:.0f} to {100 * high:.0f}) than epsilon-greedy of equal '
          f'clicks; {100 * _BAR:.0f} % sooner are '
          f'{1 / (1 - _BAR):.2f} times better.'
      )
    masks = by_policy[f'{MASKS} 1']
    share, low, high = measures.sooner(curve, masks, 'found')
    notes.append(
        f'{world}: by masks alone, of width 1, found {100 * share:.0f} % '
        f'sooner ({100 * low:.0f} to {100 * high:.0f}).'
    )
  return comparison.Comparison(
      f'Exploring: Thompson sampling of width {WIDTH:g}',
      'epsilon-greedy of equal clicks',
      rows,
      notes,
      [
          grid(world, by_policy, names)
          for world, by_policy in found.items()
          for names in _GROUPS
      ],
  )


def grid(world: str, by_policy: Found, names: Sequence[str]) -> comparison.Grid:
  """Policies times measures of these names, each with its interval."""
  count = len(by_policy['greedy'])
  lines = []
  for policy, values in by_policy.items():
    known = measures.summarize(values)
    cells = [
        f'{value:.3g} ({low:.3g}, {high:.3g})'
        for value, low, high in (known[name] for name in names)
    ]
    lines.append([policy, *cells])
  return comparison.Grid(
      f'{world}, mean of {count} worlds (95 % of bootstrap means over them)',
      ['policy', *names],
      lines,
  )


def main() -> None:
  """Prints the policies of all widths in some planted worlds."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--worlds', default='100,101,102,103', help='their seeds')
  seeds = [int(seed) for seed in parser.parse_args().worlds.split(',')]
  widths = dict.fromkeys(CHOSEN, WIDTHS)
  found = play(explore_worlds.planted_place, seeds, widths)
  shown = grid('planted', found, measures.NAMES)
  for line in [shown.head, *shown.rows]:
    print(' | '.join(line))


if __name__ == '__main__':
  main()
