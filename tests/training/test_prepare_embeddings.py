# SPDX-License-Identifier: Apache-2.0
"""From a user's own tables to tokens and preference features of a problem."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import sides
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run

Feature = config.Feature
NUM_USERS, NUM_ITEMS = 30, 40


def write_shop(folder):
  """Users who like items of their own half, and what they viewed before."""
  rng = np.random.default_rng(0)
  taste, half = np.arange(NUM_USERS) % 2, np.arange(NUM_ITEMS) % 2
  likes = (taste[:, None] == half) & (rng.random((30, 40)) < 0.6)
  lines = [f'u{u},{1000 + i}' for u, i in zip(*np.nonzero(likes))]
  views = [
      '|'.join(f'{1000 + n}' for n in rng.permutation(np.flatnonzero(row))[:5])
      for row in likes
  ]
  tables = {
      'likes': ['who,sku', *lines],
      'users': ['who,viewed', *(f'u{u},{v}' for u, v in enumerate(views))],
      'items': [
          'sku,color,price,sold',
          *(f'{1000 + i},{c},{i},{i % 7}' for i, c in enumerate(half)),
      ],
  }
  for name, rows in tables.items():
    text = '\n'.join(rows) + '\n'
    (folder / f'{name}.csv').write_text(text, encoding='utf-8')


@pytest.fixture(name='shop')
def fixture_shop(tmp_path):
  """The experiment and its folder of tables."""
  write_shop(tmp_path)
  cfg = tiny_run.get_config()
  share = {'embedding': 4, 'embedding_table': 'skus'}
  cfg.data = config.DataConfig(
      'tables',
      warm_share=0.0,
      tables=config.TablesConfig(
          interactions='likes.csv',
          users='users.csv',
          items='items.csv',
          user_id='who',
          item_id='sku',
          sequence_columns=('viewed',),
      ),
  )
  cfg.features = config.FeaturesConfig(
      user=[
          Feature('viewed', 'sequence', max_length=3, **share),
          Feature('viewed', 'sequence', sparse=False),
      ],
      item=[
          Feature('price', 'numeric'),
          Feature('color', 'category', embedding=2),
          Feature('sku', 'category', 'preference', **share),
          Feature('sold', 'numeric', 'preference', transform='min_max'),
      ],
  )
  cfg.validate()
  return cfg, str(tmp_path)


def test_ids_meet_in_one_table(shop, tmp_path):
  cfg, folder = shop
  workdir = tmp_path / 'run'
  workdir.mkdir()
  problem = prepare.prepare(cfg, folder, str(workdir))
  viewed, skus = problem.user.tokens, problem.item.preference_tokens
  assert (
      viewed.id.shape == (NUM_USERS, 3) and viewed.features[0].table == 'skus'
  )
  assert skus.features[0].num_ids == viewed.features[0].num_ids
  assert problem.item.tokens.features[0].name == 'color'
  assert problem.item.preference_dense.shape[0] == NUM_ITEMS
  assert problem.item.preference_known.all()
  assert not problem.user.preference_known.any()
  # Every value is the id of the item that it names.
  row_of = {n: row for row, n in enumerate(skus.id[:, 0]) if n}
  table = (tmp_path / 'users.csv').read_text(encoding='utf-8').splitlines()[1:]
  for user, line in enumerate(table):
    values = [int(v) for v in line.split(',')[1].split('|') if v]
    found = [
        problem.item.ids[row_of[n]] for n in viewed.id[user] if n in row_of
    ]
    assert found == [v for v in values if v in found][-3:]
  assert any("table 'skus'" in note for note in problem.notes)
  # And all of it is kept: the problem, and what encodes new rows.
  again = problem_lib.load(str(workdir))
  for name in ('user', 'item'):
    kept, made = getattr(again, name), getattr(problem, name)
    assert kept.tokens.features == made.tokens.features
    np.testing.assert_array_equal(kept.tokens.id, made.tokens.id)
    np.testing.assert_array_equal(kept.preference_dense, made.preference_dense)
    encoder = sides.load(str(workdir), name)
    assert encoder.content.id_name == {'user': 'who', 'item': 'sku'}[name]


def test_describe_says_how_large_the_tables_are(shop, capsys):
  cfg, folder = shop
  facts = commands.describe(cfg, None, folder)
  found = facts['features']
  # The ids of cold items are among those that training users viewed.
  assert found['user: columns of tokens, embeddings'] == '3 / skus 41 x 4'
  assert found['item: columns of tokens, embeddings'] == '1 / item.color 3 x 2'
  shown = found['item: columns of preference tokens, embeddings']
  assert shown == '1 / skus 41 x 4'
  assert found['item: preference columns, rows with a value'] == (2, NUM_ITEMS)
  assert 'user: preference columns, rows with a value' not in found
  # A table that both sides share counts once.
  assert facts['model']['embedding tables, parameters'] == 41 * 4 + 3 * 2
  assert 'skus' in capsys.readouterr().out


def test_all_of_it_is_learnt_without_a_teacher(shop):
  """From tables to results: features alone are the preference."""
  cfg, folder = shop
  cfg.features.preference = 'none'
  cfg.dropout = config.DropoutConfig()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0,
      softmax=1.0,
      num_negatives=4,
      pairing='interactions',
      embedding_regularization=1e-3,
  )
  cfg.train.embedding_optimizer = 'adagrad'
  cfg.train.batch_size, cfg.train.steps_per_dispatch = 64, 5
  cfg.validate()
  runtime = runtime_lib.build(
      cfg, prepare.prepare(cfg, folder, None), num_devices=1
  )
  assert runtime.problem.factors.user.shape == (NUM_USERS, 0)
  before = jax.device_get(runtime.fresh_state().params['embeddings'])
  state, losses = runtime.train_steps()(
      runtime.fresh_state(), runtime.tables, jnp.int32(5)
  )
  for name in ('total', 'softmax', 'embedding_regularization'):
    assert np.all(np.isfinite(losses[f'loss/{name}']))
  assert set(before) == {'skus', 'item.color'}
  for name, table in before.items():
    after = np.asarray(state.params['embeddings'][name])
    np.testing.assert_array_equal(after[0], table[0])  # is never looked up
    assert np.all(np.any(after[1:] != table[1:], axis=1).mean() > 0.8)
  found, _ = results_lib.evaluate(runtime, state, loop.Outcome(5, 1.0))
  methods = found['splits']['cold_item']['methods']
  assert set(methods) == {'model'}
  curve = found['warm_up']['item']
  assert curve['0']['methods']['model'] == curve['2']['methods']['model']


def test_a_problem_without_any_of_it_is_as_before(problem):
  for side in (problem.user, problem.item):
    assert not side.tokens.features and not side.preference_tokens.features
    assert side.preference_dense.shape == (len(side.ids), 0)
    assert not side.preference_known.any()
    fields = dataclasses.fields(side)
    assert all(len(getattr(side, f.name)) for f in fields if f.name != 'sparse')
