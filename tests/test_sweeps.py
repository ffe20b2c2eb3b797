# SPDX-License-Identifier: Apache-2.0
"""Sweeps: one run per value, shared data, a table and a picture."""

import json
import os

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import sweeps
from tests import tiny_run


def _sweep(**changes):
  cfg = tiny_run.get_config()
  cfg.train.num_steps = 4
  cfg.train.eval_every = 0
  fields = {'field': 'dropout.item_rate', 'values': (0.0, 0.5)} | changes
  cfg.sweep = config.SweepConfig(**fields)
  return cfg


def test_runs_every_value_and_shares_what_is_prepared(tmp_path):
  table = sweeps.run(_sweep(), str(tmp_path))
  assert table['values'] == [0.0, 0.5]
  for value in ('0', '0.5'):
    folder = tmp_path / f'dropout.item_rate={value}'
    with open(folder / 'results.json', encoding='utf-8') as file:
      results = json.load(file)
    recall = results['splits']['cold_item']['methods']['model']['recall@5']
    position = table['values'].index(float(value))
    assert table['splits']['cold_item']['recall@5'][position] == recall
  problems = [
      (tmp_path / f'dropout.item_rate={value}' / 'problem.npz').read_bytes()
      for value in ('0', '0.5')
  ]
  assert problems[0] == problems[1]
  png = (tmp_path / 'sweep.png').read_bytes()
  assert png.startswith(b'\x89PNG') and len(png) > 1000
  assert json.loads((tmp_path / 'sweep.json').read_text()) == table


def test_finished_runs_are_not_run_again(tmp_path):
  sweeps.run(_sweep(), str(tmp_path))
  metrics = tmp_path / 'dropout.item_rate=0' / 'metrics.jsonl'
  before = os.stat(metrics).st_mtime_ns
  sweeps.run(_sweep(), str(tmp_path))
  assert os.stat(metrics).st_mtime_ns == before


def test_a_value_out_of_range_stops_before_the_first_run(tmp_path):
  with pytest.raises(errors.UserError, match='dropout.item_rate is 1.5'):
    sweeps.run(_sweep(values=(0.0, 1.5)), str(tmp_path / 'new'))
  assert not (tmp_path / 'new').exists()


def test_an_unknown_field_names_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'item_rate'"):
    config_tree.swept(_sweep(field='dropout.item_rat'), 0.5)


def test_a_swept_configuration_is_no_sweep_and_leaves_the_first_alone():
  cfg = _sweep()
  one = config_tree.swept(cfg, 0.25)
  assert one.dropout.item_rate == 0.25 and not one.sweep.values
  assert cfg.dropout.item_rate == 0.5 and cfg.sweep.values
