# SPDX-License-Identifier: Apache-2.0
"""The PyTorch side is a fair opponent: same network, pairs and optimiser."""

import builtins
import functools
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import task
from dropoutnet_jax import errors
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import towers
from tests.benchmarks import tiny_task


def _random_variables(width: int):
  """Variables of both paper towers, running statistics among them."""
  rng = np.random.default_rng(3)
  model = towers.TwoTower(tiny_task.get_config().model)
  preference = input_dropout.Preference(
      jnp.zeros((1, width)), jnp.ones((1,), bool)
  )
  content = jnp.zeros((1, 0))
  variables = jax.jit(model.init)(
      jax.random.key(0), preference, content, preference, content
  )
  # Positive, since variances are among them.
  draw = lambda x: rng.uniform(0.2, 1.2, x.shape).astype(np.float32)
  return model, jax.tree.map(draw, variables)


def _copy_into(tower, params, stats):
  """Writes a Flax paper tower's numbers into a PyTorch tower."""
  import torch  # pylint: disable=g-import-not-at-top

  tensor = lambda x: torch.from_numpy(np.array(x))
  dense = [layer for layer in tower if isinstance(layer, torch.nn.Linear)]
  norms = [layer for layer in tower if isinstance(layer, torch.nn.BatchNorm1d)]
  assert len(dense) == len(norms) + 1 == len(params) - len(norms)
  with torch.no_grad():
    for number, layer in enumerate(dense):
      found = params[f'Dense_{number}']
      layer.weight.copy_(tensor(found['kernel'].T))  # transposed there
      assert (layer.bias is None) == ('bias' not in found)
      if layer.bias is not None:
        layer.bias.copy_(tensor(found['bias']))
    for number, layer in enumerate(norms):
      name = f'BatchNorm_{number}'
      layer.weight.copy_(tensor(params[name]['scale']))
      layer.bias.copy_(tensor(params[name]['bias']))
      layer.running_mean.copy_(tensor(stats[name]['mean']))
      layer.running_var.copy_(tensor(stats[name]['var']))


def _both_towers(peer, width: int):
  model, variables = _random_variables(width)
  sides = {}
  for side in ('user', 'item'):
    sides[side] = peer.Tower(width, tiny_task.HIDDEN, tiny_task.RANK)
    name = f'{side}_tower'
    _copy_into(
        sides[side], variables['params'][name], variables['batch_stats'][name]
    )
  return model, variables, sides


def test_torch_tower_is_the_paper_tower(peer):
  import torch  # pylint: disable=g-import-not-at-top

  value = np.random.default_rng(4).normal(size=(9, 11)).astype(np.float32)
  model, variables, sides = _both_towers(peer, width=11)
  for side, tower in sides.items():
    embed = jax.jit(functools.partial(model.apply, method=f'embed_{side}s'))
    preference = input_dropout.Preference(value, np.ones((9,), bool))
    expected = embed(variables, preference, np.zeros((9, 0))).dense
    tower.eval()
    with torch.no_grad():
      found = tower(torch.from_numpy(value)).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_torch_step_is_the_flax_step(peer):
  """Loss, both gradients and running statistics of one training step."""
  import torch  # pylint: disable=g-import-not-at-top

  rng = np.random.default_rng(5)
  user, item = rng.normal(size=(2, 16, 11)).astype(np.float32)
  target = rng.normal(size=16).astype(np.float32)
  model, variables, sides = _both_towers(peer, width=11)

  def flax_loss(params):
    emb, stats = {}, {}
    for side, value in (('user', user), ('item', item)):
      emb[side], updated = model.apply(
          {'params': params, 'batch_stats': variables['batch_stats']},
          input_dropout.Preference(value, np.ones((16,), bool)),
          np.zeros((16, 0)),
          train=True,
          method=f'embed_{side}s',
          mutable=['batch_stats'],
      )
      stats[side] = updated['batch_stats'][f'{side}_tower']
    loss = losses.teacher(
        emb['user'].dense, emb['item'].dense, target, jnp.ones(16)
    )
    return loss, stats

  grad_fn = jax.jit(jax.value_and_grad(flax_loss, has_aux=True))
  (expected, stats), grads = grad_fn(variables['params'])
  for tower in sides.values():
    tower.train()
  loss = peer.loss_fn(
      sides['user'](torch.from_numpy(user)),
      sides['item'](torch.from_numpy(item)),
      torch.from_numpy(target),
  )
  loss.backward()
  np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
  for side, tower in sides.items():
    for layer, name in ((0, 'Dense_0'), (3, 'Dense_1')):
      wanted = np.asarray(grads[f'{side}_tower'][name]['kernel']).T
      found = tower[layer].weight.grad.numpy()
      scale = np.abs(wanted).max()
      np.testing.assert_allclose(found, wanted, atol=1e-5 * scale, rtol=1e-3)
    # PyTorch's running variance is the unbiased one, the mean is alike.
    np.testing.assert_allclose(
        tower[1].running_mean.numpy(),
        stats[side]['BatchNorm_0']['mean'],
        rtol=1e-5,
        atol=1e-6,
    )


def test_pairs_are_drawn_as_published(peer, runtime):
  import torch  # pylint: disable=g-import-not-at-top

  tables, settings = runtime.tables, runtime.cfg.objective
  targets = np.asarray(tables.target_items)
  score = np.asarray(tables.user.factors) @ np.asarray(tables.item.factors).T
  users = np.asarray(tables.train_users)[:6]
  pairs = peer.PublishedPairs(tables, settings, 10)
  user, item, target = (
      x.numpy() for x in pairs.draw(torch.from_numpy(users.copy()).long())
  )
  assert len(user) == len(users) * 20
  np.testing.assert_allclose(target, score[user, item], rtol=1e-4, atol=1e-6)
  assert set(item) <= set(targets), 'cold items are nobody else targets'
  assert len(set(targets)) < score.shape[1], 'there are cold items'
  for row in users:
    drawn = item[user == row]
    best = targets[np.argsort(-score[row, targets])[:10]]
    assert set(best) <= set(drawn)
    assert len(set(drawn) - set(best)) > 2, 'and random ones'


def test_pairs_come_in_whole_batches_from_all_users(peer, runtime, monkeypatch):
  monkeypatch.setattr(peer, '_USERS_PER_DRAW', 16)
  pairs = iter(peer.PublishedPairs(runtime.tables, runtime.cfg.objective, 10))
  users: set[int] = set()
  # An epoch: half of the 20 pairs of each user, in batches of 10.
  for _ in range(len(runtime.tables.train_users)):
    user, item, target = next(pairs)
    assert user.shape == item.shape == target.shape == (10,)
    users |= set(user.tolist())
  assert users == set(np.asarray(runtime.tables.train_users).tolist())


def test_torch_drops_exact_shares_of_preference_alone(peer, runtime):
  import torch  # pylint: disable=g-import-not-at-top

  model = peer.TorchDropoutNet(runtime.cfg, runtime.tables, seed=0)
  rows = torch.from_numpy(np.array(runtime.tables.target_items)[:21]).long()
  table = runtime.tables.item
  width = table.preference.shape[1]
  value = model.batch_input('item', rows).numpy()
  dropped = ~value[:, :width].any(axis=1)
  assert dropped.sum() == 14  # the floor of 0.7 * 21
  kept = np.asarray(table.preference)[rows.numpy()][~dropped]
  np.testing.assert_array_equal(value[~dropped, :width], kept)
  content = np.asarray(table.content)[rows.numpy()]
  np.testing.assert_array_equal(value[:, width:], content)
  # Users have no content here, so they keep their preference, as in ours.
  users = torch.arange(10)
  value = model.batch_input('user', users).numpy()
  np.testing.assert_array_equal(
      value, np.asarray(runtime.tables.user.preference)[:10]
  )


def test_both_sides_train_and_are_scored_alike(
    peer, runtime, our_side, problem
):
  other = peer.TorchDropoutNet(runtime.cfg, runtime.tables, seed=0)
  sides = (our_side, other)
  for side in sides:
    side.train(6)
    assert 0.0 <= task.recall(side, problem) <= 1.0
    emb = side.embed('item', np.arange(5))
    assert emb.shape == (5, tiny_task.RANK) and emb.dtype == np.float32
  assert other.pairs_per_step == 100


def test_without_torch_bench_says_what_to_install(monkeypatch):
  monkeypatch.delitem(sys.modules, 'benchmarks.torch_dropoutnet', False)
  real_import = builtins.__import__

  def without_torch(name, *args, **kwargs):
    if name == 'torch':
      raise ImportError('No module named torch')
    return real_import(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without_torch)
  with pytest.raises(errors.UserError, match=r"pip install '\.\[bench\]'"):
    importlib.import_module('benchmarks.torch_dropoutnet')


def test_optimizer_is_the_published_one(peer):
  """One parameter, two steps, beside Optax."""
  import torch  # pylint: disable=g-import-not-at-top

  layer = torch.nn.Linear(1, 1, bias=False)
  optimizer = peer.make_optimizer(layer)
  reference = optax.sgd(0.005, momentum=0.9)
  value = jnp.float32(layer.weight.item())
  state = reference.init(value)
  for gradient in (2.0, -1.0):
    layer.weight.grad = torch.full((1, 1), gradient)
    optimizer.step()
    update, state = reference.update(jnp.float32(gradient), state)
    value += update
  np.testing.assert_allclose(layer.weight.item(), value, rtol=1e-6)
