# SPDX-License-Identifier: Apache-2.0
"""The section 'Exploring': what two files of the run folder make of it."""

import copy

import pytest

from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import exploring_sections
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import html_page
from dropoutnet_jax.run_report import markdown_page

pytestmark = pytest.mark.usefixtures('pictures')

CALIBRATION = {
    'step': 7,
    'scale': 1.25,
    'passes': 16,
    'seconds': 1.0,
    'note': '',
    'bins': [
        {
            'predicted': 0.01,
            'observed': 0.02,
            'low': 0.015,
            'high': 0.025,
            'pairs': 1200,
        },
        {
            'predicted': 0.2,
            'observed': 0.17,
            'low': 0.1,
            'high': 0.24,
            'pairs': 80,
        },
    ],
    'spread_bins': [
        {'predicted': 0.01, 'observed': 0.012, 'pairs': 600, 'items': 10},
        {'predicted': 0.03, 'observed': 0.028, 'pairs': 680, 'items': 11},
    ],
}
_VALUE = {'value': 0.25, 'low': 0.125, 'high': 0.5}
_GAIN = {'gain': 0.1, 'gain_low': -0.05, 'gain_high': 0.2}
_VIEW = {
    'logged': _VALUE,
    **dict.fromkeys(('ips', 'snips', 'dr'), _VALUE | _GAIN),
    'places': 3000,
    'slates': 600,
    'users': 60,
    'effective': 42.5,
    'mean_weight': {'value': 1.0, 'low': 0.9, 'high': 1.1},
    'clipped': 0.0,
}
JUDGED = {
    'step': 7,
    'log': 'log.csv',
    'target': 'the best item',
    'clip': None,
    'places': 3000,
    'slates': 600,
    'users': 60,
    'same': 0.5,
    'notes': ['a note'],
    'warnings': ['a warning'],
    'place': _VIEW,
    'slate': _VIEW,
}


def render(calibration, judged, step=7):
  blocks = exploring_sections.blocks(calibration, judged, step)
  section = document.Section('Exploring', blocks)
  page = document.Document('title', 'lead', [section])
  return html_page.render(page), markdown_page.render(page)


def test_both_renderings_say_the_same():
  page, text = render(CALIBRATION, JUDGED)
  assert page.count('<svg') == 2 and text.count('(Figure in index.html') == 2
  for words in (
      'Is it as sure as it says?',
      '16 passes; their deviations are multiplied by 1.25',
      '0.0150 and 0.0250',
      '1,200',
      'doubly robust (DR)',
      '+0.1000',
      '-0.0500 and +0.2000',
      '3,000 places in 600 slates',
      'worth 42.5 of equal weight',
      '50.0% of the places',
      'a warning',
      'a note',
  ):
    assert words in page and words in text, words
  assert 'clipped' not in text


def test_what_was_clipped_is_said():
  judged = copy.deepcopy(JUDGED)
  judged['clip'] = 20.0
  judged['place'] = _VIEW | {'clipped': 0.015}
  del judged['slate']
  text = render({}, judged)[1]
  assert 'weights clipped at 20' in text
  assert '1.50% of the weights clipped' in text
  assert 'Reward of a whole slate' not in text


@pytest.mark.parametrize('step', [6, 8])
def test_files_of_another_checkpoint_are_left_out(step):
  assert not exploring_sections.blocks(CALIBRATION, JUDGED, step)
  assert not exploring_sections.blocks({}, {}, step)


def test_a_run_that_could_not_be_calibrated_says_why():
  empty = CALIBRATION | {'bins': [], 'spread_bins': [], 'note': 'too few'}
  page, text = render(empty, {})
  assert 'too few' in text and '<svg' not in page


def test_intervals_and_the_line_of_equality_are_drawn():
  points = [(0.1, 0.2, 0.15, 0.25), (0.3, 0.3, None, None)]
  picture = figures.calibration(points, x='said', y='found')
  assert picture == figures.calibration(points, x='said', y='found')
  plain = [(0.1, 0.2, None, None), (0.3, 0.3, None, None)]
  fewer = figures.calibration(plain, x='said', y='found')
  assert picture.count('<path') == fewer.count('<path') + 1
  assert 'said' in picture and 'found' in picture
