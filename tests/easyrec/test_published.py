# SPDX-License-Identifier: Apache-2.0
"""The published DropoutNet configurations: converted, loaded, trained."""

import collections
import json
import os
import re

import pytest

from dropoutnet_jax import experiment
from dropoutnet_jax import unread
from dropoutnet_jax.easyrec import convert
from dropoutnet_jax.easyrec import ledger
from dropoutnet_jax.easyrec import messages
from tests import command_line
from tests.easyrec import configs

_CASES = {
    'taobao': (configs.taobao, ',', 'taobao_train_data', 'easyrec'),
    'documented': (configs.documented, '\t', 'rows', 'default'),
}
# Fewer steps, smaller batches, and nothing that takes long beside them.
_SHORT = (
    '--config.train.num_steps=6',
    '--config.train.batch_size=64',
    '--config.train.log_every=2',
    '--config.train.steps_per_dispatch=2',
    '--config.evaluation.baselines=("popularity",)',
    '--config.evaluation.warm_up_counts=()',
    '--config.evaluation.bootstrap=0',
    '--config.evaluation.cutoffs=(5,)',
    '--config.evaluation.slices=false',
    '--config.evaluation.mixed=false',
    '--config.data.cold_item_share=0.0',
    '--config.data.validation=return',
)


@pytest.mark.parametrize('name', _CASES)
def test_converts_loads_and_trains(name, tmp_path, monkeypatch):
  make, separator, data, base = _CASES[name]
  tree = make()
  (tmp_path / 'pipeline.config').write_text(configs.text(tree))
  configs.write_rows(tmp_path / data, tree, separator)
  monkeypatch.chdir(tmp_path)
  ended = command_line.call(
      'convert',
      '--easyrec=pipeline.config',
      '--out=mine.py',
      f'--base_profile={base}',
      '--strict',
  )
  assert (ended.status, ended.err) == (0, '')
  assert ended.out.startswith('mine.py: written.\n\npipeline.config: ')
  cfg = experiment.load('mine.py')
  assert cfg.profile == base and cfg.name == 'mine'
  assert unread.notes(cfg) == []
  assert cfg.model.groups.no_batch_norm == ('user_tower', 'item_tower')
  if base == 'easyrec':
    assert cfg.objective.kernel_regularization == 1e-6
    assert cfg.objective.embedding_regularization == 5e-5
    assert cfg.features.item[0].embedding_std > 0
  ended = command_line.call('--config=mine.py', '--workdir=run', *_SHORT)
  assert (ended.status, ended.err) == (0, ''), ended.err
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert 0 < results['splits']['warm']['labelled']['model']['auc'] <= 1
  with open('run/metrics.jsonl', encoding='utf-8') as file:
    logged = [json.loads(line) for line in file]
  losses = [one['loss/total'] for one in logged if 'loss/total' in one]
  assert len(losses) == 3 and losses[-1] < losses[0]


@pytest.mark.parametrize('make', [configs.taobao, configs.documented])
def test_every_field_has_one_row(make, tmp_path):
  """Fields are counted in the text itself, not by what is tested."""
  text = configs.text(make())
  values = len(re.findall(r'^\s*\w+: ', text, re.MULTILINE))
  repeats = 0  # values of one list field in one message
  for block in re.findall(r'(?:^ *feature_names: .*\n)+', text, re.MULTILINE):
    repeats += block.count('\n') - 1
  empty = len(re.findall(r'\{\n\s*\}', text))
  _, rows = convert.convert(messages.parse(text, 'f'), 'mine', 'f')
  assert len(rows) == values - repeats + empty
  places = collections.Counter(row.field for row in rows)
  assert set(places.values()) == {1}
  assert {row.verdict for row in rows} == {ledger.TAKEN, ledger.CHANGED}
  assert all(len(row.note) > 2 for row in rows)


def test_the_published_file_itself_if_it_is_here():
  """For a folder with a checkout of EasyRec beside this one."""
  folder = command_line.ROOT.parent / 'EasyRec' / 'samples' / 'model_config'
  files = sorted(folder.glob('dropoutnet*.config'))
  if not files:
    pytest.skip('needs a checkout of EasyRec beside this project')
  for file in files:
    pipeline = messages.read(os.fspath(file))
    draft, rows = convert.convert(pipeline, 'mine', file.name)
    draft.cfg.validate()
    assert not pipeline.unknown
    assert all(row.verdict != ledger.REFUSED for row in rows)
