# SPDX-License-Identifier: Apache-2.0
"""A plain PyTorch DropoutNet, written only to be compared with.

The network of the paper and the training of its published code: batches of
100 pairs, per user the teacher's top items and as many random ones, exact
shares of each batch dropped, squared gap to the teacher's score. It reads the
very tables that this package trains on, so content, preference, targets and
dropout rates are the same. The only file of the project that imports PyTorch.
"""

from collections.abc import Iterator
import time

import numpy as np

from benchmarks import task
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import dropout_rates

try:
  import torch
except ImportError as error:
  raise errors.UserError(
      'bench compares with a PyTorch DropoutNet, and PyTorch is not '
      "installed. Install it with pip install '.[bench]'."
  ) from error

BATCH_SIZE = 100
_USERS_PER_DRAW = 1000  # as published: 5 million pairs, of which
_SHARE_USED = 0.5  # so much is trained on
_EMBED_ROWS = 2048


class Tower(torch.nn.Sequential):
  """(Dense, batch norm, tanh) per hidden width, then linear: [B, D], [B, R]."""

  def __init__(self, width: int, hidden: tuple[int, ...], rank: int):
    layers: list[torch.nn.Module] = []
    for out in hidden:
      layers += [
          torch.nn.Linear(width, out, bias=False),
          # PyTorch's momentum is what the new batch weighs.
          torch.nn.BatchNorm1d(out, eps=1e-3, momentum=0.1),
          torch.nn.Tanh(),
      ]
      width = out
    layers.append(torch.nn.Linear(width, rank))
    super().__init__(*layers)
    for layer in self:
      if isinstance(layer, torch.nn.Linear):
        torch.nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        if layer.bias is not None:
          torch.nn.init.zeros_(layer.bias)


def loss_fn(
    user_emb: torch.Tensor, item_emb: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
  """Mean squared gap to the teacher's scores [B] of embeddings [B, R]."""
  return ((user_emb * item_emb).sum(dim=1) - target).square().mean()


class PublishedPairs:
  """Endless batches of (user, item, target), drawn as the published code does.

  For a thousand users at a time: each user's top items by the teacher's score
  and as many random target items, shuffled; half of that is used. Unlike
  there, the users left over at the end of an epoch are not skipped.
  """

  def __init__(
      self,
      tables: tables_lib.Tables,
      settings: config.ObjectiveConfig,
      batch_size: int,
  ):
    self._user_factors = _tensor(tables.user.factors)
    self._item_factors = _tensor(tables.item.factors)
    self._users = _tensor(tables.train_users).long()
    self._items = _tensor(tables.target_items).long()
    self._num_top = min(settings.top_items, len(self._items))
    self._num_random = settings.random_items
    self._batch_size = batch_size

  def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
    while True:
      order = self._users[torch.randperm(len(self._users))]
      for users in order.split(_USERS_PER_DRAW):
        user, item, target = self.draw(users)
        used = torch.randperm(len(user))[: int(len(user) * _SHARE_USED)]
        for rows in used.split(self._batch_size):
          # Batch norm over a remainder of a few pairs would be noise.
          if len(rows) == self._batch_size:
            yield user[rows], item[rows], target[rows]

  def draw(self, users: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """All pairs of users [U]: user rows, item rows and targets, [U * 2N]."""
    factors = self._item_factors[self._items]
    score = self._user_factors[users] @ factors.T
    top = score.topk(self._num_top, dim=1).indices
    shape = (len(users), self._num_random)
    random = torch.randint(len(self._items), shape)
    column = torch.cat([top, random], dim=1)
    user = users[:, None].expand_as(column)
    target = score.gather(1, column)
    return user.flatten(), self._items[column].flatten(), target.flatten()


class TorchDropoutNet:
  """Both towers and their training loop.

  Attributes:
    pairs_per_step: the published batch size.
  """

  def __init__(self, cfg: config.Config, tables: tables_lib.Tables, seed: int):
    torch.manual_seed(seed)
    rates = dropout_rates.effective_rates(cfg.dropout, tables)
    self._rates = {'user': rates.user.drop, 'item': rates.item.drop}
    self._inputs = {
        side: torch.cat([_tensor(table.preference), _tensor(table.content)], 1)
        for side, table in (('user', tables.user), ('item', tables.item))
    }
    self._preference_width = tables.user.preference.shape[1]
    self.towers = torch.nn.ModuleDict(
        {
            side: Tower(inputs.shape[1], cfg.model.hidden, cfg.model.rank)
            for side, inputs in self._inputs.items()
        }
    )
    self._optimizer = make_optimizer(self.towers)
    self._pairs = iter(PublishedPairs(tables, cfg.objective, BATCH_SIZE))
    self.pairs_per_step = BATCH_SIZE

  def train(self, num_steps: int) -> None:
    """Does num_steps steps."""
    self.towers.train()
    for _ in range(num_steps):
      user, item, target = next(self._pairs)
      loss = loss_fn(
          self.towers['user'](self.batch_input('user', user)),
          self.towers['item'](self.batch_input('item', item)),
          target,
      )
      self._optimizer.zero_grad(set_to_none=True)
      loss.backward()
      self._optimizer.step()

  def batch_input(self, side: str, rows: torch.Tensor) -> torch.Tensor:
    """Preference and content [B, P + F] of rows [B], a share without the first.

    As published, exactly the floor of rate * B rows lose their preference.
    """
    value = self._inputs[side][rows]
    dropped = torch.randperm(len(rows))[: int(self._rates[side] * len(rows))]
    value[dropped, : self._preference_width] = 0.0
    return value

  @torch.no_grad()
  def embed(self, side: str, rows: np.ndarray) -> np.ndarray:
    """Embeddings float32 [N, R] of rows [N] of 'user' or 'item'."""
    self.towers.eval()
    inputs = self._inputs[side][torch.as_tensor(rows).long()]
    parts = [self.towers[side](part) for part in inputs.split(_EMBED_ROWS)]
    return torch.cat(parts).numpy()


def use_fastest_threads(cfg: config.Config, tables: tables_lib.Tables) -> int:
  """Gives PyTorch one thread or one per CPU, whichever trains faster here.

  Batches of 100 are so small that threads mostly wait for each other, and on a
  busy machine for a CPU: what serves PyTorch best must be measured.

  Returns:
    The number of threads.
  """
  seconds = {}
  for count in sorted({1, task.num_threads()}):
    torch.set_num_threads(count)
    model = TorchDropoutNet(cfg, tables, seed=0)
    model.train(5)
    begin = time.perf_counter()
    model.train(50)
    seconds[count] = time.perf_counter() - begin
  fastest = min(seconds, key=lambda count: seconds[count])
  torch.set_num_threads(fastest)
  return fastest


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
  """Momentum as published.

  Adam with a rate of 1e-3 is far behind it on citeulike-a: cold recall@100 of
  0.04 against 0.49 after a million pairs.
  """
  return torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)


def _tensor(array: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.array(array))  # a copy: JAX's are read-only
