# SPDX-License-Identifier: Apache-2.0
"""A little shop: its three tables, and the folder of a run on them.

Some users and items are new, so that every quadrant has pairs. The sparse part
is on; without it the towers alone are left. Nothing is trained: random factors
and towers rank as well as any, and need nothing to be compiled.
"""

from collections.abc import Iterator
import csv
import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.serving import export
from dropoutnet_jax.serving import export_check
from dropoutnet_jax.serving import numpy_reload
from dropoutnet_jax.serving import numpy_runtime
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import stablehlo_reload
from dropoutnet_jax.training import checkpoints
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation

USERS, ITEMS = 36, 30
WORDS = tuple(f'word{n}' for n in range(20))


def get_config(folder: pathlib.Path) -> config.Config:
  feature = config.Feature
  path = lambda name: str(folder / name)
  return config.Config(
      name='shop',
      data=config.DataConfig(
          name='tables',
          tables=config.TablesConfig(
              interactions=path('clicks.csv'),
              users=path('users.csv'),
              items=path('items.csv'),
              tag_columns=('tags',),
              vector_columns=('image',),
              sequence_columns=('visits',),
          ),
          cold_user_share=0.25,
          cold_item_share=0.2,
          warm_share=0.1,
          validation='return',
      ),
      features=config.FeaturesConfig(
          user=[
              feature(column='region', kind='category'),
              feature(column='age', kind='numeric'),
              feature(column='about', kind='text'),
              feature(column='visits', kind='sequence', embedding=3),
              feature(column='age', kind='numeric', group='preference'),
          ],
          item=[
              feature(column='tags'),
              feature(column='tags', embedding=2, sparse=False),
              feature(column='image', kind='dense'),
          ],
          statistics=(0.0,),
      ),
      teacher=config.TeacherConfig(rank=3, num_iterations=1),
      model=config.ModelConfig(
          hidden=(8,),
          rank=4,
          sparse=config.SparseConfig(
              enabled=True, correction_rank=3, teacher_weight=0.3
          ),
      ),
      train=config.TrainConfig(batch_size=200, num_steps=2),
      evaluation=config.EvaluationConfig(
          cutoffs=(5,), baselines=(), warm_up_counts=()
      ),
  )


def get_ruled_config(folder: pathlib.Path) -> config.Config:
  """The shop's, with features that cannot use every value."""
  feature = config.Feature
  cfg = get_config(folder)
  cfg.name = 'ruled'
  cfg.data.tables.tag_columns = ('tags', 'colours', 'prices')
  cfg.data.tables.tag_weight_separator = ':'
  cfg.features.user += [
      feature('income', 'numeric', transform='log1p'),
      feature('zip', 'category', sparse=False),
      feature('zip in region', 'cross', columns=('zip', 'region')),
      feature('zip', 'numeric'),
  ]
  cfg.features.item += [
      feature('colours', counts='log', rank=2),
      feature('prices', embedding=2, idf='none', sparse=False),
      feature('prices', 'lookup', key='main'),
      feature(
          'worth',
          'expression',
          expression='price / weight',
          transform='log1p',
      ),
  ]
  return cfg


def write_csv(path: pathlib.Path, rows: list[tuple]) -> pathlib.Path:
  with open(path, 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(rows)
  return path


def write_shop(folder: pathlib.Path) -> None:
  """Words of users who are all digits, gaps, and ids that are strings."""
  rng = np.random.default_rng(0)
  words = lambda: '|'.join(rng.choice(WORDS, rng.integers(2, 7), False))
  number = lambda: f'{rng.normal():.2f}'
  users = [
      (
          f'u{n}',
          rng.choice(['north', 'south', '']),
          rng.integers(20, 60) if n % 5 else '',
          rng.choice(['1984', 'likes 1984', 'loud music']),
          words() if n % 4 else '',
      )
      for n in range(USERS)
  ]
  items = [
      (f'i{n}', words(), f'{number()}|{number()}|{number()}')
      for n in range(ITEMS)
  ]
  clicks = [
      (f'u{user}', f'i{item}')
      for user in range(USERS)
      for item in rng.choice(ITEMS, rng.integers(6, 14), False)
  ]
  tables = {
      'users.csv': [('user_id', 'region', 'age', 'about', 'visits'), *users],
      'items.csv': [('item_id', 'tags', 'image'), *items],
      'clicks.csv': [('user_id', 'item_id'), *clicks],
  }
  for name, rows in tables.items():
    write_csv(folder / name, rows)


def write_ruled_shop(folder: pathlib.Path) -> None:
  """The shop, with the columns that `get_ruled_config` reads besides."""
  write_shop(folder)
  rng = np.random.default_rng(1)
  weighted = lambda names: '|'.join(f'{x}:{rng.integers(1, 9)}' for x in names)
  more = {
      'users.csv': (
          ('income', 'zip'),
          lambda: (rng.integers(0, 9000), rng.integers(10, 13)),
      ),
      'items.csv': (
          ('colours', 'prices', 'main', 'price', 'weight'),
          lambda: (
              weighted(rng.choice(['red', 'green', 'blue'], 2, False)),
              weighted(['online', 'outlet']),
              rng.choice(['online', 'outlet']),
              f'{rng.uniform(1, 9):.2f}',
              rng.integers(1, 9),
          ),
      ),
  }
  for name, (header, draw) in more.items():
    with open(folder / name, newline='', encoding='utf-8') as file:
      head, *rows = csv.reader(file)
    write_csv(
        folder / name, [(*head, *header), *((*row, *draw()) for row in rows)]
    )


@dataclasses.dataclass(frozen=True)
class Shop:
  """The folder of the tables, and the run folder in it."""

  folder: pathlib.Path
  model: recommender_lib.Ranker

  @property
  def run(self) -> str:
    return str(self.folder / 'run')

  def results(self) -> dict[str, Any]:
    return json.loads((self.folder / 'run' / 'results.json').read_text())

  def rows(self, name: str) -> list[tuple]:
    """Rows of a table, the header first."""
    with open(self.folder / name, newline='', encoding='utf-8') as file:
      return [tuple(row) for row in csv.reader(file)]


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """For all tests of serving."""
  with compilation.quick_compilation():
    yield


def _random_factors(interactions, num_users, num_items, settings, seed):
  """Instead of the teacher's, for the same rows."""
  rng = np.random.default_rng(seed)
  present = [np.zeros(num_users, bool), np.zeros(num_items, bool)]
  present[0][interactions.user] = present[1][interactions.item] = True
  user, item = (
      rng.normal(size=(len(rows), settings.rank)).astype(np.float32)
      * rows[:, None]
      for rows in present
  )
  return schema.Factors(user, item, *present)


def make_run(cfg: config.Config, workdir: str) -> None:
  """A run folder whose towers are random, and its results."""
  with (
      run_folder.open_folder(workdir, cfg),
      pytest.MonkeyPatch.context() as patch,
  ):
    patch.setattr(prepare.teacher, 'train', _random_factors)
    problem = prepare.prepare(cfg, None, workdir)
  part = sparse_fit.fit(problem, cfg.model.sparse, cfg.train.seed)
  sparse_file.save(part, workdir)
  runtime = runtime_lib.build(cfg, problem, part, num_devices=1)
  state = runtime.fresh_state()
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)
  state = dataclasses.replace(
      state,
      step=jnp.int32(2),
      params=jax.tree.map(draw, state.params),
  )
  saved = checkpoints.Checkpoints(workdir)
  saved.save(state, 2)
  saved.close()
  found, _ = results_lib.evaluate(runtime, state, loop.Outcome(2, 1.0))
  results_lib.write(workdir, found)


@pytest.fixture(scope='session')
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
  """Made once for all tests of serving."""
  folder = tmp_path_factory.mktemp('shop')
  write_shop(folder)
  with compilation.quick_compilation():
    make_run(get_config(folder), str(folder / 'run'))
    return Shop(folder, recommender_lib.load(str(folder / 'run')))


@pytest.fixture(scope='session')
def ruled_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
  """A shop with rules of values; for tests of what is refused."""
  folder = tmp_path_factory.mktemp('ruled')
  write_ruled_shop(folder)
  with compilation.quick_compilation():
    make_run(get_ruled_config(folder), str(folder / 'run'))
    return Shop(folder, recommender_lib.load(str(folder / 'run')))


def in_this_process(script, folder, more):
  """For `export_check._run`: no fresh process, which takes seconds."""
  del more
  output = str(pathlib.Path(folder).parent / 'found.npz')
  if script.name == 'numpy_reload.py':
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(sys.modules, 'numpy_runtime', numpy_runtime)
      patch.syspath_prepend(folder)
      numpy_reload.main(folder, output)
  else:
    stablehlo_reload.main(folder, output)
  with np.load(output) as arrays:
    found = dict(arrays)
  pathlib.Path(output).unlink()
  return found


@pytest.fixture(scope='session')
def shop_export(shop, tmp_path_factory) -> str:
  """The folder of an export of the shop."""
  folder = str(tmp_path_factory.mktemp('exports') / 'shop')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(recommender_lib, 'load', lambda workdir: shop.model)
    patch.setattr(export_check, '_run', in_this_process)
    export.write(shop.run, folder)
  return folder


@pytest.fixture(name='csv_file')
def fixture_csv_file(tmp_path):
  """Writes rows as a CSV file; returns its path."""
  return lambda name, *rows: str(write_csv(tmp_path / name, list(rows)))


@pytest.fixture(name='here')
def fixture_here(shop, tmp_path, monkeypatch):
  """The current folder, with run/; the model of it is loaded once for all."""
  (tmp_path / 'run').symlink_to(shop.run)
  monkeypatch.chdir(tmp_path)
  real = recommender_lib.load
  load = lambda workdir: shop.model if workdir == 'run' else real(workdir)
  monkeypatch.setattr(recommender_lib, 'load', load)
  return tmp_path
