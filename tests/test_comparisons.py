# SPDX-License-Identifier: Apache-2.0
"""Comparisons: variants over seeds, shared data, one table."""

import json
import os
import statistics

import numpy as np
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import comparisons
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.training import first_start
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


def _comparison(**variants):
  cfg = tiny_run.get_config()
  cfg.train.num_steps = 4
  cfg.train.eval_every = 0
  cfg.comparison = config.ComparisonConfig(
      [config.Variant(name, tuple(s)) for name, s in variants.items()], (3, 4)
  )
  return cfg


_VARIANTS = {
    'none': ['dropout.item_rate=0'],
    'much': ['dropout.item_rate=0.9', 'model.hidden=(4, 4)'],
    'other data': ['features.item[0].min_rows=2'],
}


@pytest.fixture(scope='module')
def made_up(tmp_path_factory):
  """Folder, table, configs as trained, and which data was prepared anew."""
  folder = tmp_path_factory.mktemp('comparison')
  seen, prepared = {}, []
  real = commands.prepare.prepare

  def prepare(cfg, data_dir, workdir):
    prepared.append(os.path.relpath(workdir, folder))
    return real(cfg, data_dir, workdir)

  def train(cfg, workdir, data_dir, unused_profile):
    with first_start.open_folder(workdir, cfg):
      commands.load_or_prepare(cfg, workdir, data_dir)
    seen[os.path.relpath(workdir, folder)] = cfg
    rng = np.random.default_rng([cfg.train.seed, int(cfg.dropout.item_rate)])
    values = {'recall@5': rng.random(), 'mrr': rng.random()}
    part = {
        'users': 9,
        'candidates': 7,
        'methods': {'model': values, 'random': {'recall@5': 0.25, 'mrr': 0.1}},
        'labelled': {'model': {'auc': rng.random(), 'gauc': 0.625}},
    }
    cost = 0.001 * cfg.train.seed
    times = (9.0, cost, 0.1, 0.0)  # the first one with the compilation in it
    with open(os.path.join(workdir, 'metrics.jsonl'), 'w') as file:
      for step, time in enumerate(times, 1):
        row = {'step': step, 'seconds': 1.0, 'step_seconds': time}
        file.write(json.dumps(row) + '\n')
    results = {
        'last_step': cfg.train.num_steps,
        'stopped_early': '',
        'train_seconds': 1.5,
        'splits': {'cold_item': part},
    }
    files.write_json(os.path.join(workdir, 'results.json'), results)
    return results

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(commands, 'train', train)
    patch.setattr(commands.prepare, 'prepare', prepare)
    table = comparisons.run(_comparison(**_VARIANTS), str(folder))
    again = comparisons.run(_comparison(**_VARIANTS), str(folder))
  assert again == table and len(seen) == 6
  return folder, table, seen, prepared


def test_every_variant_runs_with_every_seed_and_its_settings(made_up):
  folder, table, seen, _ = made_up
  assert list(table['variants']) == list(_VARIANTS)
  for name in _VARIANTS:
    for seed in (3, 4):
      cfg = seen[os.path.join(name, f'train.seed={seed}')]
      assert cfg.train.seed == seed and not cfg.comparison.variants
  much = seen['much/train.seed=3']
  assert much.dropout.item_rate == 0.9 and much.model.hidden == (4, 4)
  assert seen['none/train.seed=3'].dropout.item_rate == 0
  assert json.loads((folder / 'comparison.json').read_text()) == table


def test_data_is_prepared_once_per_seed_where_variants_agree(made_up):
  _, _, _, prepared = made_up
  assert sorted(prepared) == [
      'none/train.seed=3',
      'none/train.seed=4',
      'other data/train.seed=3',
      'other data/train.seed=4',
  ]


def test_means_deviations_and_cost_are_those_of_the_runs(made_up):
  _, table, _, _ = made_up
  for one in table['variants'].values():
    part = one['splits']['cold_item']
    values = part['methods']['model']['recall@5']
    assert part['mean']['model']['recall@5'] == statistics.fmean(values)
    assert part['deviation']['model']['recall@5'] == statistics.stdev(values)
    auc = part['labelled']['model']['auc']
    assert part['mean']['model']['auc'] == statistics.fmean(auc)
    assert one['step_seconds'] == [0.003, 0.004]


def test_the_table_names_variants_baselines_and_cost(made_up, capsys):
  folder, table, _, _ = made_up
  comparisons.run(_comparison(**_VARIANTS), str(folder))
  lines = capsys.readouterr().out.splitlines()
  (much,) = [line.split() for line in lines if ' much ' in line]
  mean = table['variants']['much']['splits']['cold_item']['mean']['model']
  assert f'{mean["recall@5"]:.4f}' in much and f'{mean["auc"]:.4f}' in much
  assert much[-1] == '3.5'
  *_, baseline = [line.split() for line in lines if ' random ' in line]
  assert baseline[-2:] == ['0.2500', '(0.0000)']
  assert lines[-2:] == [
      f'Written to {folder}/comparison.json',
      f'A report is in {folder}/report/index.html',
  ]


@pytest.mark.parametrize(
    'settings, message',
    [
        (['dropout.item_rate=2'], "[0] ('a'): config.dropout.item_rate is 2"),
        (['dropout.item_rat=0'], "Did you mean 'item_rate'"),
        (
            ['dropout.item_rate'],
            "'dropout.item_rate' sets nothing; write FIELD",
        ),
        (['train.num_steps=x'], '--train.num_steps=x: expected a whole number'),
        (['model.hidden=(4'], 'model.hidden=(4: expected values in brackets'),
        (['features.item[3].rank=2'], 'has 1 entries; [3] does not exist'),
        (['features=1'], 'config.features is a section'),
        (['train.seed=5'], "sets 'train.seed=5': every variant has all of"),
        (['data.seed=5'], 'tested on other pairs than the others'),
    ],
)
def test_a_wrong_setting_stops_before_the_first_run(
    tmp_path, settings, message
):
  with pytest.raises(errors.UserError) as caught:
    comparisons.run(_comparison(a=settings), str(tmp_path / 'new'))
  assert message in str(caught.value)
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    'change, message',
    [
        ({'seeds': ()}, 'comparison.seeds is (); it must be one seed or more'),
        ({'seeds': (-1,)}, 'comparison.seeds is -1'),
        ({'variants': [config.Variant('')]}, 'variants[0].name'),
        ({'variants': [config.Variant('a/b')]}, 'usable as the name of a fold'),
        ({'variants': [config.Variant('a')] * 2}, "variants[1].name is 'a'"),
    ],
)
def test_what_validate_refuses(change, message):
  cfg = _comparison()
  cfg.comparison = config.ComparisonConfig(**change)
  with pytest.raises(errors.UserError, match='.') as caught:
    cfg.validate()
  assert message in str(caught.value)


def test_a_foreign_folder_and_a_sweep_beside_it_are_refused(tmp_path):
  (tmp_path / 'thesis.txt').write_text('all of it')
  with pytest.raises(errors.UserError, match='holds thesis.txt, which is no'):
    comparisons.run(_comparison(a=[]), str(tmp_path))
  cfg = _comparison(a=[])
  cfg.sweep.values = (0.5,)
  with pytest.raises(errors.UserError, match='both set'):
    comparisons.run(cfg, str(tmp_path))


def test_a_varied_configuration_leaves_the_first_alone():
  cfg = _comparison(a=[])
  one = config_tree.varied(
      cfg,
      ['features.item[0].min_rows=2', 'model.normalize=true', 'name=x=y'],
  )
  assert one.features.item[0].min_rows == 2 and one.model.normalize is True
  assert one.name == 'x=y' and not one.comparison.variants
  assert cfg.features.item[0].min_rows == 1 and cfg.comparison.variants
  assert config_tree.from_dict(json.loads(config_tree.to_json(cfg))) == cfg
