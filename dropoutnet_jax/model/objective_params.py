# SPDX-License-Identifier: Apache-2.0
"""What the objective itself learns: a scale, a bias, weights of its terms.

They are parameters like those of the towers, under the name 'objective', so
that averages, checkpoints, warm starts and train.freeze know them; optimisers
leave out weight decay for them. Each is a smooth function of a free number and
stays within bounds, whatever the loss does.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import score_scale

NAME = 'objective'
_BIAS_BOUND = 20.0  # a probability of 2e-9
_VARIANCE_BOUND = math.log(100.0)  # a weight a hundred times as large or small


class Logit(NamedTuple):
  """How a score becomes a logit: score / temperature + bias.

  Attributes:
    temperature: a setting, or float32 [] where it is learnt.
    bias: float32 [], of 'pointwise' alone; None is none.
  """

  temperature: float | jax.Array
  bias: jax.Array | None = None

  def __call__(self, score: Any) -> Any:
    """Logits of scores, of one shape."""
    logit = score / self.temperature
    return logit if self.bias is None else logit + self.bias


def create(
    cfg: config.Config, rows: tables_lib.LabelledRows | None
) -> dict[str, Any]:
  """First values: {'objective': ...}, or {} where nothing is learnt.

  Args:
    cfg: the experiment.
    rows: all that are trained on; of their labels the bias starts at the log
      odds: from 0 it would take thousands of steps to rare reactions.
  """
  settings, params = cfg.objective, {}
  if cfg.learns_scale:
    low, high = settings.scale_bounds
    start = score_scale.raw_scale(1 / settings.temperature, low, high)
    params['scale'] = jnp.float32(start)
    if settings.pointwise:
      assert rows is not None
      bias = _log_odds(jnp.asarray(rows.label), jnp.asarray(rows.weight))
      params['bias'] = score_scale.raw_bias(bias, _BIAS_BOUND)
  if settings.learn_weights:
    params['log_variance'] = {name: jnp.zeros(()) for name in settings.terms()}
  return {NAME: params} if params else {}


def logit(cfg: config.Config, params: Mapping[str, Any]) -> Logit:
  """How these parameters make logits of scores."""
  if not cfg.learns_scale:
    return Logit(cfg.objective.temperature)
  learnt, bias = params[NAME], None
  low, high = cfg.objective.scale_bounds
  scale = score_scale.bounded_scale(learnt['scale'], low, high)
  if 'bias' in learnt:
    bias = score_scale.bounded_bias(learnt['bias'], _BIAS_BOUND)
  return Logit(1.0 / scale, bias)


def describe(logits: Logit) -> dict[str, jax.Array]:
  """What is logged of learnt logits: 'scale' and 'bias'."""
  found = {}
  if isinstance(logits.temperature, jax.Array):
    found['scale'] = 1.0 / logits.temperature
  if logits.bias is not None:
    found['bias'] = logits.bias
  return found


def total(
    settings: config.ObjectiveConfig,
    terms: Mapping[str, jax.Array],
    rows: Mapping[str, jax.Array],
    params: Mapping[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sum of the terms under learnt weights, and these as 'weight/<term>'.

  A term L of weight w costs w (exp(-s) L + s / 2): Kendall, Gal & Cipolla,
  "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018. The least
  is at s = log(2 L), so that terms count alike whatever their size; s is 0 at
  the start. A term without rows in this batch has no say in its s.

  Args:
    settings: weights of the terms.
    terms: float32 [] each.
    rows: how many rows terms are means over, where that is counted.
    params: of the model.
  """
  value, logged = jnp.zeros(()), {}
  for name, term in terms.items():
    raw = params[NAME]['log_variance'][name]
    variance = score_scale.bounded_bias(raw, _VARIANCE_BOUND)
    is_met = rows[name] > 0 if name in rows else jnp.bool_(True)
    variance = jnp.where(is_met, variance, jax.lax.stop_gradient(variance))
    weight = getattr(settings, name)
    value += weight * (jnp.exp(-variance) * term + variance / 2)
    logged[f'weight/{name}'] = weight * jnp.exp(-variance)
  return value, logged


def metric_names(cfg: config.Config) -> tuple[str, ...]:
  """Names of all that `describe` and `total` log."""
  names = []
  if cfg.learns_scale:
    names += ['scale', 'bias'] if cfg.objective.pointwise else ['scale']
  if cfg.objective.learn_weights:
    names += [f'weight/{name}' for name in cfg.objective.terms()]
  return tuple(names)


def _log_odds(label: jax.Array, weight: jax.Array) -> jax.Array:
  """Of the mean label under the weights: float32 []."""
  counted = weight > 0
  share = jnp.sum(jnp.where(counted, weight * label, 0.0)) / jnp.sum(weight)
  share = jnp.clip(share, 1e-6, 1 - 1e-6)
  return jnp.log(share) - jnp.log1p(-share)
