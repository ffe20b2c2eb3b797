# SPDX-License-Identifier: Apache-2.0
"""An export answers as the run that it was made from, or is refused."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

import dropoutnet_jax
from dropoutnet_jax.serving import export
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving.service import server as server_lib
from tests import command_line
from tests.serving.service import test_paths

_SOMEBODY = {'content': {'region': 'north', 'age': 33, 'about': 'likes 1984'}}
_USERS = [
    {'id': 'u1'},
    {'id': 'u3', 'history': ['i4']},
    _SOMEBODY,
    {'history': ['i1', 'i2', 'i3']},
    {'id': 'new', **_SOMEBODY, 'history': ['i7']},
    {'id': 'u5', 'content': {'region': 'south'}},
]
_FRESH = [
    {'id': 'fresh', 'content': test_paths.CONTENT},
    {'id': 'i4', 'content': {'tags': ['word2']}},
]
_MET = [
    {'user': 'u1', 'item': 'fresh'},
    {'user': 'late', 'item': 'i3'},
    {'user': 'late', 'item': 'i6', 'label': 0},
]
_LISTS = {'users': _USERS, 'k': 12}
_ASKED = [
    ('/recommend', {'users': _USERS, 'k': 40, 'exclude_seen': False}),
    ('/recommend', {'users': _USERS, 'k': 4, 'reasons': True}),
    ('/recommend', {**_LISTS, 'candidates': 'new'}),
    ('/embed', {'users': _USERS}),
    ('/embed', {'items': [{'id': 'i5'}, {'content': test_paths.CONTENT}]}),
    ('/items', {'items': _FRESH}),
    ('/recommend', {**_LISTS, 'candidates': 'new'}),
    ('/interactions', {'interactions': _MET}),
    ('/recommend', {'users': [{'id': 'u1'}, {'id': 'late'}], 'k': 30}),
    ('/recommend', {'users': [{'id': 'late'}], 'k': 3, 'reasons': True}),
    ('/page/audience', {'content': test_paths.CONTENT, 'k': 9}),
    ('/page/warm_up', {'user': 'u2', 'revealed': 2, 'k': 10}),
]
_GOT = ('/health', '/page/about', '/page/users?start=u3', '/openapi.json')


def _check_same(found, expected, where):
  """All values are equal, numbers to 1e-5."""
  if isinstance(expected, dict):
    assert list(found) == list(expected), where
    for name, value in expected.items():
      _check_same(found[name], value, f'{where}.{name}')
  elif isinstance(expected, list):
    assert len(found) == len(expected), where
    for place, pair in enumerate(zip(found, expected)):
      _check_same(*pair, f'{where}[{place}]')
  elif isinstance(expected, float):
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5, err_msg=where)
  else:
    assert found == expected, where


@pytest.fixture(scope='module', name='model')
def fixture_model(shop_export):
  return recommender_lib.load(shop_export)


def test_every_answer_is_that_of_the_run(shop, start, model, tmp_path):
  assert model.step == shop.model.step
  assert server_lib.identity(model) == server_lib.identity(shop.model)
  with (
      start(tmp_path / 'run.sqlite') as run,
      start(tmp_path / 'export.sqlite', model=model) as export_,
  ):
    for path, body in _ASKED:
      _check_same(export_.post(path, **body), run.post(path, **body), path)
    for path in _GOT:
      found, expected = (x.client.get(path).json() for x in (export_, run))
      _check_same(found, expected, path)
    for one in (export_, run):
      assert one.client.delete('/items/i5').status_code == 200
    _check_same(export_.lists({}), run.lists({}), 'without i5')


def test_the_state_of_the_run_goes_on_with_its_export(start, model, tmp_path):
  path = tmp_path / 'state.sqlite'
  with start(path) as run:
    run.post('/items', items=_FRESH)
    run.post('/interactions', interactions=_MET)
    expected = run.lists({'id': 'u2'})
  with start(path, model=model) as again:
    assert again.lists({'id': 'u2'}) == expected
    assert 'fresh' in expected[0]


def test_commands_and_the_library_take_it_too(shop_export, here):
  (here / 'out').symlink_to(shop_export)
  (here / 'u.csv').write_text('user_id,region,age\nu1,,\nnew,north,30\n')
  (here / 'c.csv').write_text('user_id,item_id\nnew,i3\nu1,i2\n')
  asked = ('--users=u.csv', '--interactions=c.csv')
  lists = []
  for folder in ('run', 'out'):
    for command, name in (('recommend', 'l.csv'), ('embed', 'e.parquet')):
      ended = command_line.call(
          command, f'--workdir={folder}', f'--output={name}', *asked
      )
      assert (ended.status, ended.err) == (0, ''), ended.err
    with open('l.csv', newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
    lists.append([(row['user_id'], row['item_id']) for row in rows])
  assert lists[0] == lists[1] and len(lists[0]) > 30
  model = dropoutnet_jax.load('out')
  assert model.audience(['i3'], 3).num_rows == 3
  assert model.recommend(['u1'], 3, policy='epsilon', seed=1).num_rows == 3
  with pytest.warns(UserWarning, match='as a guess'):
    shown = model.recommend(['u1'], 3, policy='thompson', seed=1)
  assert shown.num_rows == 3
  (here / 'out' / 'belief.json').unlink()
  flags = ('--workdir=out', '--output=s.csv', '--policy=thompson')
  flags += ('--spread=masks',)
  ended = command_line.call('recommend', *flags)
  command_line.check(ended, 2, 'an export has no towers that masks of input')


def _changed(path: pathlib.Path):
  """Another byte in the middle of a file."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _without(name):
  def damage(folder):
    path = folder / 'manifest.json'
    manifest = json.loads(path.read_text())
    del manifest[name]
    path.write_text(json.dumps(manifest))

  return damage


def _older(folder):
  path = folder / 'manifest.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'format': 1}))


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            lambda f: (f / 'user_tower.stablehlo').unlink(),
            'user_tower.stablehlo cannot be read (No such file or directory)',
        ),
        (
            lambda f: _changed(f / 'item_tower.stablehlo'),
            'item_tower.stablehlo is damaged: it has ',
        ),
        (
            lambda f: (f / 'towers.safetensors').write_bytes(b'x'),
            'towers.safetensors is damaged: it has 1 bytes of checksum ',
        ),
        (lambda f: _changed(f / 'problem.npz'), 'problem.npz is damaged: it'),
        (
            lambda f: _changed(f / 'sparse_part.npz'),
            'sparse_part.npz is damaged: it has ',
        ),
        (
            lambda f: (f / 'features.json').write_text('{}'),
            'features.json is damaged: it has 2 bytes',
        ),
        (
            lambda f: (f / 'manifest.json').write_bytes(b'{"format'),
            'manifest.json is damaged (Unterminated string',
        ),
        (
            lambda f: (f / 'manifest.json').write_text('[]'),
            'manifest.json is damaged (list indices must be',
        ),
        (_without('config'), "manifest.json is damaged ('config'). Export the"),
        (
            _without('files'),
            "manifest.json is damaged ('files'). Export the ru",
        ),
        (
            _without('sides'),
            "manifest.json is damaged ('sides'). Export the ru",
        ),
        (_older, 'manifest.json is of format 1, and this program reads 6. Exp'),
    ],
)
def test_a_damaged_export_is_one_message(shop_export, here, damage, message):
  shutil.copytree(shop_export, here / 'out')
  damage(here / 'out')
  before = command_line.snapshot(here)
  ended = command_line.call('serve', '--workdir=out', '--port=0')
  command_line.check(ended, 2, message)
  assert command_line.snapshot(here) == before


def test_an_export_is_no_run(shop_export, here):
  """It is not exported, trained or evaluated, and its state is not lost."""
  (here / 'out').symlink_to(shop_export)
  ended = command_line.call('export', '--workdir=out', '--output=more')
  command_line.check(ended, 2, '--workdir=out is an export already; copy that')
  ended = command_line.call('evaluate', '--workdir=out')
  command_line.check(ended, 2, 'out is no run folder: out/config.json')
  ended = command_line.call('recommend', '--workdir=out', '--output=out/e.csv')
  assert not ended.status, ended.err
  (here / 'out' / 'e.csv').unlink()
  for name in ('manifest.json', 'towers.safetensors'):
    ended = command_line.call(
        'serve', '--workdir=out', '--port=0', f'--state=out/{name}'
    )
    command_line.check(ended, 2, f'out/{name} is a file of the run; name anot')
  (here / 'used').mkdir()
  for name in ('manifest.json', export.exported.STATE):
    (here / 'used' / name).write_text('{}')
  ended = command_line.call('export', '--workdir=run', '--output=used')
  command_line.check(ended, 2, '--output=used holds service.sqlite, what a ser')
