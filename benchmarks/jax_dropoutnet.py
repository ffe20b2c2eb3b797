# SPDX-License-Identifier: Apache-2.0
"""This package's side of a race: its own compiled steps."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.training import runtime as runtime_lib


class JaxDropoutNet:
  """Trains a runtime's model from its fresh state.

  Attributes:
    pairs_per_step: of one block.
    compile_seconds: tracing, compiling and initialising; 0 training steps.
  """

  def __init__(self, runtime: runtime_lib.Runtime):
    begin = time.perf_counter()
    self._runtime = runtime
    self._state = runtime.fresh_state()
    steps = runtime.train_steps()
    lowered = steps.lower(self._state, runtime.tables, jnp.int32(0))
    self._train_steps = lowered.compile()
    jax.block_until_ready(self._state)
    self.compile_seconds = time.perf_counter() - begin
    self.pairs_per_step = runtime.pairs_per_step

  def restart(self) -> None:
    """Goes back to the state before the first step."""
    self._state = self._runtime.fresh_state()

  def train(self, num_steps: int) -> None:
    """Does num_steps steps and waits for them.

    Raises:
      RuntimeError: if the loss is not finite, which ends a dispatch early.
    """
    most = self._runtime.cfg.train.steps_per_dispatch
    goal = int(self._state.step) + num_steps
    for begin in range(0, num_steps, most):
      count = jnp.int32(min(most, num_steps - begin))
      self._state, _ = self._train_steps(
          self._state, self._runtime.tables, count
      )
    jax.block_until_ready(self._state)
    if int(self._state.step) != goal:
      raise RuntimeError(
          f'The loss is not finite at step {int(self._state.step)}.'
      )

  def scorer(self) -> model_scores.Scorer:
    """The model as it is now."""
    return self._runtime.scorer(self._state)

  def embed(self, side: str, rows: np.ndarray) -> np.ndarray:
    """Embeddings float32 [N, R] of rows [N] of 'user' or 'item'."""
    table = getattr(self._runtime.tables, side)
    variables = self._state.eval_variables()
    return self._runtime.embedder(side, variables, table, rows)
