# SPDX-License-Identifier: Apache-2.0
"""Objectives that many devices must train like one, and their experiments."""

from dropoutnet_jax import config
from tests import tiny_run

STEPS = 50
SIZE = 288  # rows of a batch of labels; a user or item table has 60 or 80
RANK = 4
# All losses on labels at once, and the teacher, without which some biases
# change nothing but by rounding.
LABELS = dict(
    pairing='interactions',
    teacher=1.0,
    pointwise=1.0,
    pairwise=1.0,
    softmax=1.0,
    in_batch_softmax=1.0,
)
OBJECTIVES = {
    'blocks': dict(pairing='blocks', block_users=16),
    'published': dict(pairing='published'),
    'few': LABELS | dict(num_negatives=4),
    'many': LABELS | dict(num_negatives=256, shifts='distinct', num_hard=8),
    # Preferences are means of content, of which no teacher knows anything.
    'histories': dict(
        pairing='interactions', teacher=0.0, in_batch_softmax=1.0
    ),
}


def make_config(objective: str, model: int) -> config.Config:
  """The tiny experiment with an objective, on so many devices along 'model'."""
  train = {
      'batch_size': 16 * 24 if objective == 'blocks' else SIZE,
      'num_steps': STEPS,
      'steps_per_dispatch': STEPS,
  }
  source = 'history' if objective == 'histories' else 'factors'
  return tiny_run.changed(
      mesh={'model': model},
      features={'preference': source},
      objective=OBJECTIVES[objective],
      train=train,
  )
