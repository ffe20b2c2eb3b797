# SPDX-License-Identifier: Apache-2.0
"""What the report's warm-up curve says of more history."""

from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import results_tables


def _point(value, change=None):
  point = {
      'pairs': 10,
      'shown_mean': 1.0,
      'methods': {'model': {'ndcg@20': value}, 'teacher': {'ndcg@20': value}},
  }
  if change is not None:
    none = {'difference': 0.0, 'low': -0.01, 'high': 0.01}
    point['more'] = {'model': {'ndcg@20': change}, 'teacher': {'ndcg@20': none}}
  return point


def _text(*changes):
  curve = {'0': _point(0.3)}
  for number, change in enumerate(changes, 1):
    curve[str(number)] = _point(0.3, change)
  (part,) = results_tables.warm_up({'user': curve, 'item': {}})
  return next(x.text for x in part.blocks if isinstance(x, document.Text))


def test_harm_beyond_noise_is_named():
  harm = {'difference': -0.02, 'low': -0.03, 'high': -0.01}
  noise = {'difference': -0.02, 'low': -0.05, 'high': 0.01}
  assert 'of model at 2 (-0.0200).' in _text(noise, harm)
  assert 'No method has a lower NDCG@20' in _text(noise, noise)


def test_without_intervals_nothing_is_said():
  text = _text(None)
  assert 'lower' not in text and 'at every point' in text
