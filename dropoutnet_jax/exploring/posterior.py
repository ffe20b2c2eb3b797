# SPDX-License-Identifier: Apache-2.0
"""What is believed of an item after some impressions, as a Gaussian.

An item is D numbers: the embedding that the towers give it, and a level, by
which all users like it more or less than that. Log-odds of a click are linear
in them. Before anybody has seen a new item its content says the mean, and the
covariance is how far content alone has been from the truth; each impression is
one observation of a logistic regression, whose posterior is kept Gaussian by
Laplace's approximation (Algorithm 3 of Chapelle & Li, NIPS 2011). So it narrows
along the tastes of those who have seen the item, whether they clicked or not.

Pure functions of arrays. `belief` says which numbers they are of here, and
`observed` what was shown, for the simulator and for whoever serves.
"""

from typing import NamedTuple

import numpy as np

from dropoutnet_jax.exploring import reward_model

_STEPS = 4  # of Newton; two are mostly enough
_LONGEST = 2.0  # change of the log-odds that one of them may make, about


class Belief(NamedTuple):
  """Gaussians of J items.

  Attributes:
    mean: float64 [J, D].
    precision: float64 [J, D, D], inverse of the covariance.
  """

  mean: np.ndarray
  precision: np.ndarray


def start(mean: np.ndarray, covariance: np.ndarray) -> Belief:
  """What is believed before the first impression.

  Args:
    mean: float [J, D].
    covariance: float [D, D] of all, or [J, D, D]; not singular.
  """
  precision = np.linalg.inv(np.asarray(covariance, np.float64))
  shape = (len(mean), *precision.shape[-2:])
  return Belief(
      np.array(mean, np.float64), np.array(np.broadcast_to(precision, shape))
  )


def update(
    belief: Belief,
    item: np.ndarray,
    inputs: np.ndarray,
    offset: np.ndarray | float,
    click: np.ndarray,
    free: slice = slice(None),
) -> Belief:
  """What is believed after more impressions.

  Args:
    belief: before.
    item: int [N], which of its items each impression showed.
    inputs: float [N, D]; log-odds are inputs @ item + offset.
    offset: float [N] or one for all.
    click: float [N], in [0, 1].
    free: which of the D numbers of the means are estimated; the others are
      taken as they are, for whoever knows them otherwise. All get narrower.

  Returns:
    The same for items without impressions. The order of the rows is of no
    matter.
  """
  if not len(item):
    return belief
  touched, place = np.unique(item, return_inverse=True)
  before, prior = belief.mean[touched], belief.precision[touched]
  mean, own = before.copy(), inputs[:, free]
  for _ in range(_STEPS):
    chance = reward_model.sigmoid(
        np.einsum('nd,nd->n', inputs, mean[place]) + offset
    )
    slope = _sums(own, click - chance, place, len(touched))
    slope -= np.einsum('jde,je->jd', prior, mean - before)[:, free]
    curve = _outer_sums(own, chance * (1 - chance), place, len(touched))
    step = np.zeros_like(mean)
    step[:, free] = np.linalg.solve(
        prior[:, free, free] + curve, slope[:, :, None]
    )[..., 0]
    # What any impression would feel of the step.
    felt = np.zeros(len(touched))
    np.maximum.at(
        felt, place, np.abs(np.einsum('nd,nd->n', inputs, step[place]))
    )
    mean = mean + step * (_LONGEST / np.maximum(felt, _LONGEST))[:, None]
  chance = reward_model.sigmoid(
      np.einsum('nd,nd->n', inputs, mean[place]) + offset
  )
  curve = _outer_sums(inputs, chance * (1 - chance), place, len(touched))
  precision = prior + curve
  new = Belief(belief.mean.copy(), belief.precision.copy())
  new.mean[touched], new.precision[touched] = mean, precision
  return new


def _sums(
    inputs: np.ndarray, weight: np.ndarray, place: np.ndarray, count: int
) -> np.ndarray:
  """Sums of weight[n] x[n] over the rows of each item: [count, D]."""
  columns = [np.bincount(place, weight * x, count) for x in inputs.T]
  return np.stack(columns, axis=1)


def _outer_sums(
    inputs: np.ndarray, weight: np.ndarray, place: np.ndarray, count: int
) -> np.ndarray:
  """Sums of weight[n] x[n] x[n]^T over the rows of each item: [count, D, D]."""
  weighted = inputs * weight[:, None]
  order = np.argsort(place, kind='stable')
  bounds = np.searchsorted(place[order], np.arange(count + 1))
  return np.stack(
      [
          weighted[order[a:b]].T @ inputs[order[a:b]]
          for a, b in zip(bounds, bounds[1:])
      ]
  )


def draw(rng: np.random.Generator, belief: Belief, number: int) -> np.ndarray:
  """Draws of all items: float64 [number, J, D]."""
  noise = rng.standard_normal((number, *belief.mean.shape))
  # With precision = L L^T, the covariance is L^-T L^-1.
  upper = np.linalg.cholesky(belief.precision).transpose(0, 2, 1)
  moved = np.linalg.solve(upper, noise.transpose(1, 2, 0))
  return belief.mean + moved.transpose(2, 0, 1)


def deviation(belief: Belief, inputs: np.ndarray) -> np.ndarray:
  """Standard deviation of the log-odds of B users [B, D]: float64 [B, J]."""
  covariance = np.linalg.inv(belief.precision)
  square = np.einsum('bd,jde,be->bj', inputs, covariance, inputs)
  return np.sqrt(np.maximum(square, 0))
