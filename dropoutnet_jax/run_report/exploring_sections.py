# SPDX-License-Identifier: Apache-2.0
"""The section 'Exploring': is a run as sure as it says, and what a log says.

Both come from files that other commands left in the run folder; a run without
them has no such section.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures

_ESTIMATES = {
    'logged': 'what was logged',
    'ips': 'inverse propensities (IPS)',
    'snips': 'self-normalised (SNIPS)',
    'dr': 'doubly robust (DR)',
}
_VIEWS = {
    'place': 'a place, those before it as in the log',
    'slate': 'a whole slate',
}


def blocks(
    calibration: Mapping[str, Any], judged: Mapping[str, Any], step: int
) -> list[document.Block]:
  """The section.

  Args:
    calibration: what exploring.json holds, or nothing.
    judged: what off_policy.json holds, or nothing.
    step: of the checkpoint that the report is of; files of others are old.
  """
  found: list[document.Block] = []
  if calibration.get('step') == step:
    found.append(
        document.Part('Is it as sure as it says?', _calibration(calibration))
    )
  if judged.get('step') == step:
    found.append(document.Part('What a log says', off_policy(judged)))
  return found


def _calibration(found: Mapping[str, Any]) -> list[document.Block]:
  bins, spreads = found['bins'], found['spread_bins']
  parts: list[document.Block] = []
  if found['note']:
    parts.append(document.Text(found['note']))
  if not bins:
    return parts
  text = (
      'On held-out new items: the share of likes beside what scores promise, '
      'and how much items differ beside the spread of passes with input '
      'dropout. Each half of the items is told by what the other half says.'
  )
  parts.append(document.Text(text))
  pictures: list[document.Block] = []
  picture = figures.calibration(
      [(b['predicted'], b['observed'], b['low'], b['high']) for b in bins],
      x='expected share of likes',
      y='observed share of likes',
  )
  pictures.append(
      document.Figure(
          picture,
          'Reliability: pairs of about the same expected share of likes, with '
          '95 % intervals; on the dotted line both are equal.',
      )
  )
  if spreads:
    picture = figures.calibration(
        [(b['predicted'], b['observed'], None, None) for b in spreads],
        x='expected deviation of the share',
        y='observed deviation',
    )
    pictures.append(
        document.Figure(
            picture,
            'Spread: by how much the share of users who like an item deviates '
            'from its expectation, of items of about the same spread; on the '
            'dotted line as much as the passes say.',
        )
    )
  parts.append(document.Beside(pictures))
  parts.append(
      document.Bullets(
          [
              f"{found['passes']:,} passes; their deviations are multiplied by "
              f"{found['scale']:.3g}."
          ]
      )
  )
  tables = [_bins_table(bins, True)]
  tables += [_bins_table(spreads, False)] if spreads else []
  parts.append(document.Fold('The same as tables', tables))
  return parts


def _bins_table(
    bins: Sequence[Mapping[str, Any]], has_bounds: bool
) -> document.Table:
  head = ['expected', 'observed', *(['95 % between'] if has_bounds else [])]
  rows = [
      [
          f"{one['predicted']:.4f}",
          f"{one['observed']:.4f}",
          *([f"{one['low']:.4f} and {one['high']:.4f}"] if has_bounds else []),
          f"{one['pairs']:,}",
      ]
      for one in bins
  ]
  caption = 'Share of likes.' if has_bounds else 'Deviation of that share.'
  return document.Table([*head, 'pairs'], rows, 0, caption)


def off_policy(found: Mapping[str, Any]) -> list[document.Block]:
  """Estimates of the value of this run's lists, from a log."""
  clipped = f", weights clipped at {found['clip']:g}" if found['clip'] else ''
  lead = (
      f"The log {found['log']} has {found['places']:,} places in "
      f"{found['slates']:,} slates of {found['users']:,} users; "
      f"{found['same']:.1%} of the places show what this run would show there. "
      f"Judged is {found['target']}{clipped}."
  )
  parts: list[document.Block] = [document.Text(lead)]
  for view, unit in _VIEWS.items():
    if view in found:
      parts.append(_view_table(found[view], unit))
  told = [*found['warnings'], *found['notes']]
  if told:
    parts.append(document.Bullets(told))
  text = (
      'Intervals hold 95 % of 1,000 bootstrap samples of users; the gain is '
      'over what was logged, under the same samples. IPS weighs each reward by '
      'how much more likely this run is to show the item; SNIPS divides by the '
      'weights; DR adds what a logistic curve of the score (a straight line '
      'where rewards are not within 0 and 1), fitted on other users, expects '
      'of what this run shows.'
  )
  return [*parts, document.Text(text)]


def _view_table(view: Mapping[str, Any], unit: str) -> document.Table:
  rows = []
  for name, label in _ESTIMATES.items():
    one = view[name]
    gain, between = '', ''
    if 'gain' in one:
      gain = f"{one['gain']:+.4f}"
      between = f"{one['gain_low']:+.4f} and {one['gain_high']:+.4f}"
    rows.append(
        [
            label,
            f"{one['value']:.4f}",
            f"{one['low']:.4f} and {one['high']:.4f}",
            gain,
            between,
        ]
    )
  mean = view['mean_weight']
  caption = (
      f"Reward of {unit}: {view['places']:,} places in {view['slates']:,} "
      f"slates, worth {view['effective']:,.1f} of equal weight; mean weight "
      f"{mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})"
  )
  if view['clipped']:
    caption += f", {view['clipped']:.2%} of the weights clipped"
  head = ['estimate', 'reward', '95 % between', 'gain', '95 % between']
  return document.Table(head, rows, 1, f'{caption}.')
