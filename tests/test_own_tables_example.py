# SPDX-License-Identifier: Apache-2.0
"""The worked example of own tables: files, then a run, as the README says."""

import json
import os
import re
import subprocess
import sys

from experiments import own_tables
from tests import command_line

_SHORT = (
    '--config.teacher.num_iterations=2',
    '--config.train.num_steps=20',
    '--config.train.batch_size=5000',
    '--config.evaluation.baselines=("random",)',
    '--config.evaluation.warm_up_counts=()',
    '--config.evaluation.slices=false',
    '--config.evaluation.mixed=false',
    '--config.evaluation.bootstrap=0',
)


def test_columns_are_described(tmp_path):
  own_tables.write_tables(str(tmp_path))
  ended = command_line.call(
      'describe',
      f'--config={command_line.ROOT}/experiments/own_tables.py',
      f'--data_dir={tmp_path}',
      '--config.teacher.num_iterations=1',
  )
  assert not ended.status, ended.err
  lines = [' '.join(line.split()) for line in ended.out.splitlines()]
  assert 'users, region strings, 4 distinct, such as' in ' '.join(lines)
  assert any(
      line.startswith('items, colours tags, 5 distinct') for line in lines
  )


def test_three_files_make_a_run(tmp_path):
  shop, folder = tmp_path / 'shop', tmp_path / 'run'
  subprocess.run(
      [sys.executable, '-m', 'experiments.own_tables', str(shop)],
      check=True,
      cwd=command_line.ROOT,
  )
  names = sorted(path.name for path in shop.iterdir())
  assert names == ['clicks.csv', 'items.csv', 'users.csv']
  ended = command_line.call(
      f'--config={command_line.ROOT}/experiments/own_tables.py',
      f'--data_dir={shop}',
      f'--workdir={folder}',
      *_SHORT,
  )
  assert not ended.status, ended.err
  results = json.loads((folder / 'results.json').read_text())
  for split in ('cold_item', 'cold_user', 'cold_both'):
    found = results['splits'][split]['methods']
    # After 20 steps: far from done, and far from chance.
    assert found['model']['ndcg@20'] > 1.2 * found['random']['ndcg@20']
  lists = tmp_path / 'lists.csv'
  ended = command_line.call(
      'recommend',
      f'--workdir={folder}',
      f'--output={lists}',
      f'--users={shop / "users.csv"}',
      f'--interactions={shop / "clicks.csv"}',
      '--k=3',
  )
  assert not ended.status, ended.err
  rows = [line.split(',') for line in lists.read_text().splitlines()]
  assert rows[0] == ['user_id', 'rank', 'item_id', 'score']
  assert [row[:2] for row in rows[1:4]] == [
      ['u0', '1'],
      ['u0', '2'],
      ['u0', '3'],
  ]
  assert len(rows) == 1 + 3 * 400
  text = (shop / 'clicks.csv').read_text()
  clicks = {tuple(line.split(',')[:2]) for line in text.splitlines()[1:]}
  assert not clicks & {(row[0], row[2]) for row in rows}
  # Files that change later change nothing, which is told.
  later = os.stat(folder / 'problem.npz').st_mtime + 10
  os.utime(shop / 'items.csv', (later, later))
  ended = command_line.call(
      f'--config={command_line.ROOT}/experiments/own_tables.py',
      f'--data_dir={shop}',
      f'--workdir={folder}',
      *_SHORT,
  )
  assert not ended.status, ended.err
  assert 'items.csv changed after' in ended.out


def _call_the_library(readme, folder):
  """Runs the lines of the README; each call but one gives as many rows."""
  (code,) = re.findall(
      r'```python\n(import dropoutnet_jax\n.*?)```', readme, re.S
  )
  lines = code.replace("'runs/shop'", repr(folder)).splitlines()
  names: dict = {}
  found = []
  for line in lines:
    if line.startswith('model.'):
      found.append(eval(line, names))
    else:
      exec(line, names)
  assert [len(table) for table in (*found[:3], found[4])] == [10, 10, 100, 5]
  assert found[3].ids.tolist() == ['fresh'] and found[5].without


def test_the_config_in_the_readme_makes_a_run_and_lists(tmp_path):
  readme = (command_line.ROOT / 'README.md').read_text(encoding='utf-8')
  (code,) = re.findall(
      r'```python\n(from dropoutnet_jax import config\n.*?)```', readme, re.S
  )
  assert len(code.strip().splitlines()) <= 22
  path, shop, folder = tmp_path / 'shop.py', tmp_path / 'shop', tmp_path / 'run'
  path.write_text(code)
  own_tables.write_tables(str(shop))
  ended = command_line.call(
      f'--config={path}', f'--data_dir={shop}', f'--workdir={folder}', *_SHORT
  )
  assert not ended.status, ended.err
  lists = tmp_path / 'lists.csv'
  ended = command_line.call(
      'recommend', f'--workdir={folder}', f'--output={lists}', '--k=10'
  )
  assert not ended.status, ended.err
  rows = [line.split(',') for line in lists.read_text().splitlines()]
  assert rows[0] == ['user_id', 'rank', 'item_id', 'score']
  assert len(rows) == 1 + 10 * 400
  _call_the_library(readme, str(folder))
  (best,) = [row for row in rows if row[:2] == ['u7', '1']]
  assert best[2].startswith('i') and float(best[3]) == max(
      float(row[3]) for row in rows[1:] if row[0] == 'u7'
  )
