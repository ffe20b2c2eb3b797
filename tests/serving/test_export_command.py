# SPDX-License-Identifier: Apache-2.0
"""`python run.py export`: a folder that works without the package, or none."""

import copy
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
from pyarrow import parquet
import pytest
from safetensors import numpy as safetensors

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.serving import export
from dropoutnet_jax.serving import export_check
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import numpy_runtime
from dropoutnet_jax.serving import recommender as recommender_lib
from tests import command_line
from tests.serving import conftest as shop_lib


@pytest.fixture(name='exported', scope='module')
def fixture_exported(shop, tmp_path_factory):
  """An export of the shop, by the command."""
  folder = tmp_path_factory.mktemp('exported')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(recommender_lib, 'load', lambda workdir: shop.model)
    ended = command_line.call(
        'export', f'--workdir={shop.run}', '--output=out/'
    )
  assert (ended.status, ended.err) == (0, ''), ended.err
  (folder / 'out.txt').write_text(ended.out)
  return folder / 'out'


def test_it_says_what_it_wrote(shop, exported):
  lines = (exported.parent / 'out.txt').read_text().splitlines()
  manifest = json.loads((exported / 'manifest.json').read_text())
  largest = manifest['check']['largest_error']
  assert 0 < largest < 1e-5 and len(lines) == 3
  assert largest == max(manifest['check']['errors'].values())
  assert lines[0] == (
      'Checked in fresh processes on 36 users and 30 items: StableHLO and '
      f'NumPy differ from the model by {largest:.1e} of the largest score at '
      'most.'
  )
  assert lines[1].startswith('20 files, 0.2 MB, of the model after step 2.')
  assert lines[2] == 'Written to out/'
  modes = {path.stat().st_mode for path in exported.iterdir()}
  assert len(modes) == 1, 'whoever reads one file reads all'
  assert sorted(path.name for path in exported.parent.iterdir()) == [
      'out',
      'out.txt',
  ]
  assert (
      manifest['step'] == 2 and manifest['versions']['jax'] == jax.__version__
  )
  assert set(manifest['check']['errors']) == {
      'stablehlo towers',
      'numpy towers',
      'numpy scores, known',
      'numpy scores, told users',
      'numpy scores, told items',
      'numpy scores, fresh users',
      'numpy scores, fresh items',
  }
  assert manifest['check']['histories']['user'] > 10


def test_embeddings_of_the_run(shop, exported):
  """The same in both formats, and as the library gives them."""
  library = facade.Recommender(shop.model)
  for side, embed in (
      ('user', library.embed_users),
      ('item', library.embed_items),
  ):
    expected = embed(None)
    table = parquet.read_table(exported / f'{side}s.parquet')
    assert table.column(f'{side}_id').to_pylist() == expected.ids.tolist()
    arrays = safetensors.load_file(exported / f'{side}s.safetensors')
    np.testing.assert_array_equal(arrays['dense'], expected.dense)
    flat = table.column('dense').combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat, expected.dense.ravel())
    model = numpy_runtime.load(str(exported))
    found = getattr(model, f'{side}s')
    assert found.ids == expected.ids.tolist()
    np.testing.assert_array_equal(
        found.sparse.toarray(), expected.sparse.toarray()
    )


_USER = {
    'user_id': 'new',
    'region': 'north',
    'age': 30,
    'about': "loud music, isn't it",
    'visits': ['word1', 'word2', 'unknown'],
}
_ITEM = {'item_id': 'fresh', 'tags': ['word1', 'word7'], 'image': [1.0, 0, -2]}


@pytest.mark.parametrize('met', [[], ['i3'], ['i3', 'i4', 'i20', 'unknown']])
def test_raw_rows_and_clicks_are_embedded_as_by_the_library(
    shop, exported, met
):
  library, model = facade.Recommender(shop.model), numpy_runtime.load(
      str(exported)
  )
  users = [_USER, {'user_id': 'bare'}]
  expected = library.embed_users(users, {'new': met, 'bare': ['i5']})
  found = model.embed('user', users, [met, ['i5']])
  size = np.abs(expected.dense).max()
  np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5 * size)
  np.testing.assert_allclose(
      found.sparse.toarray(), expected.sparse.toarray(), atol=1e-6
  )
  by = [f'u{n}' for n in range(len(met))]
  items = [_ITEM, {'item_id': 'bare'}]
  expected = library.embed_items(items, {'fresh': by, 'bare': []})
  item = model.embed('item', items, [by, []])
  size = np.abs(expected.dense).max()
  np.testing.assert_allclose(item.dense, expected.dense, atol=1e-5 * size)
  np.testing.assert_allclose(
      item.sparse.toarray(), expected.sparse.toarray(), atol=1e-6
  )
  lists = library.recommend(
      users,
      30,
      candidates=[*({'item_id': x} for x in model.items.ids), *items],
      history={'new': met, 'bare': ['i5']},
      exclude_seen=False,
  )
  every = numpy_runtime.Embeddings(
      None,
      np.concatenate([model.items.dense, item.dense]),
      numpy_runtime.scipy.sparse.vstack([model.items.sparse, item.sparse]),
  )
  if not met:  # as the library has no history of candidates
    scores = -np.sort(-model.score(found, every), axis=1)[:, :30]
    np.testing.assert_allclose(
        scores.ravel(), lists.column('score').to_numpy(), atol=1e-4
    )


def test_it_runs_without_the_package_and_without_jax(exported):
  """In a process of its own."""
  code = (
      f'import sys; sys.path.insert(0, {str(exported)!r})\n'
      'import numpy_runtime\n'
      f'model = numpy_runtime.load({str(exported)!r})\n'
      "someone = model.embed('user', [{'age': 31}], [['i4', 'i9']])\n"
      'print(model.score(someone, model.items).shape)\n'
      "others = {'jax', 'dropoutnet_jax', 'pyarrow', 'sklearn'}\n"
      'print(others & {*sys.modules})\n'
  )
  ended = subprocess.run(
      [sys.executable, '-I', '-c', code],
      capture_output=True,
      text=True,
      check=True,
  )
  assert ended.stdout.splitlines() == ['(1, 30)', 'set()']


@pytest.mark.parametrize('preference', ['factors', 'none'])
def test_other_preferences(shop, tmp_path, monkeypatch, preference):
  """Factors from elsewhere are averaged; features alone have no history."""
  cfg = dataclasses.replace(
      shop.model.cfg,
      features=dataclasses.replace(
          shop.model.cfg.features, preference=preference
      ),
      teacher=dataclasses.replace(shop.model.cfg.teacher, source='file'),
  )
  scorer = dataclasses.replace(shop.model.scorer, sparse=None)
  model = dataclasses.replace(shop.model, cfg=cfg, scorer=scorer)
  monkeypatch.setattr(recommender_lib, 'load', lambda workdir: model)
  monkeypatch.setattr(export_check, '_run', shop_lib.in_this_process)
  found = export.write(shop.run, str(tmp_path / 'out'))
  assert found.manifest['fold_in'] is None and found.manifest['sparse'] is None
  assert found.manifest['check']['largest_error'] < 1e-5
  runtime = numpy_runtime.load(str(tmp_path / 'out'))
  told, bare = runtime.embed('user', None, [['i3', 'i4'], []]).dense
  library = facade.Recommender(model)
  expected = library.embed_users(['x', 'y'], {'x': ['i3', 'i4']}).dense
  np.testing.assert_allclose([told, bare], expected, atol=1e-5)
  assert np.abs(told - bare).max() > 1e-3


def test_a_second_kernel(shop, tmp_path, monkeypatch):
  """And lengths of items: all that a sparse part can have."""
  settings = dataclasses.replace(
      shop.model.cfg.model.sparse,
      landmarks=6,
      length_power=0.5,
      predicted_weight=0.2,
      norm_power=0.4,
      expected_weight=3.0,
      history_size=6,
      history_weight=0.5,
  )
  part = sparse_fit.fit(shop.model.problem, settings, seed=0)
  cfg = copy.deepcopy(shop.model.cfg)
  cfg.model.sparse = settings
  part = part.with_teacher(cfg, shop.model.problem)
  scorer = dataclasses.replace(shop.model.scorer, sparse=part)
  model = dataclasses.replace(shop.model, scorer=scorer)
  monkeypatch.setattr(recommender_lib, 'load', lambda workdir: model)
  monkeypatch.setattr(export_check, '_run', shop_lib.in_this_process)
  found = export.write(shop.run, str(tmp_path / 'out'))
  assert found.manifest['sparse']['second_width'] > 0
  assert found.manifest['check']['largest_error'] < 1e-5
  runtime = numpy_runtime.load(str(tmp_path / 'out'))
  item = runtime.embed('item', [_ITEM, _ITEM], [[], ['u3', 'u5']])
  items = [{**_ITEM, 'item_id': name} for name in ('x', 'y')]
  expected = facade.Recommender(model).embed_items(items, {'y': ['u3', 'u5']})
  size = np.abs(expected.dense).max()
  np.testing.assert_allclose(item.dense, expected.dense, atol=1e-5 * size)
  rank, width = cfg.model.rank, cfg.teacher.rank
  columns = item.dense[:, -rank - width : -rank]
  assert np.linalg.norm(columns[0]) == pytest.approx(0.2, rel=1e-5)
  assert np.abs(columns[1] - columns[0]).max() > 0.05
  histories = [[], [], ['i3', 'i4']]
  user = runtime.embed('user', [{'age': 30}, {'age': 60}, _USER], histories)
  users = [
      {**row, 'user_id': name}
      for name, row in zip('xyz', [{'age': 30}, {'age': 60}, _USER])
  ]
  expected = facade.Recommender(model).embed_users(users, {'z': ['i3', 'i4']})
  size = np.abs(expected.dense).max()
  np.testing.assert_allclose(user.dense, expected.dense, atol=1e-5 * size)
  np.testing.assert_allclose(
      user.sparse.toarray(), expected.sparse.toarray(), atol=1e-5
  )
  assert np.diff(user.sparse.indptr).min() > 6
  assert abs(user.sparse[[0]] - user.sparse[[1]]).max() > 1e-3


def _changes_a_tower(script, folder, more):
  found = shop_lib.in_this_process(script, folder, more)
  if script.name == 'stablehlo_reload.py':
    found['user'][0] += 1e-3 * np.abs(found['user']).max()
  return found


def _gives_nan(script, folder, more):
  return {
      name: np.full_like(value, np.nan)
      for name, value in shop_lib.in_this_process(script, folder, more).items()
  }


def _fails(script, folder, more):
  """The real process, on a file that is damaged."""
  if script.name == 'stablehlo_reload.py':
    return shop_lib.in_this_process(script, folder, more)
  pathlib.Path(folder, 'towers.safetensors').write_bytes(b'')
  return _run(script, folder, more)


_run = export_check._run


@pytest.mark.parametrize(
    'run, message',
    [
        (
            _changes_a_tower,
            'The export differs from the model: stablehlo towers',
        ),
        (_gives_nan, 'stablehlo towers by inf, numpy towers by inf'),
        (_fails, 'The export cannot be loaded by numpy_reload.py: '),
    ],
)
def test_an_export_that_is_not_the_model_is_none(
    here, monkeypatch, run, message
):
  """What was there before stays."""
  old = here / 'out'
  old.mkdir()
  (old / 'manifest.json').write_text('{}')
  before = command_line.snapshot(here)
  monkeypatch.setattr(export_check, '_run', run)
  ended = command_line.call('export', '--workdir=run', '--output=out')
  command_line.check(ended, 2, message)
  assert command_line.snapshot(here) == before


def test_an_earlier_export_is_replaced(here, monkeypatch):
  (here / 'out').mkdir()
  (here / 'out' / 'manifest.json').write_text('{}')
  (here / 'out' / 'of_yesterday').write_text('')
  for left in ('out.77.tmp', 'out.old.78.tmp'):  # by ones that were killed
    (here / left).mkdir()
    (here / left / 'half').write_text('')
  monkeypatch.setattr(export_check, '_run', shop_lib.in_this_process)
  ended = command_line.call('export', '--workdir=run', '--output=out')
  assert (ended.status, ended.err) == (0, ''), ended.err
  assert not (here / 'out' / 'of_yesterday').exists()
  assert json.loads((here / 'out' / 'manifest.json').read_text())['check']
  assert sorted(path.name for path in here.iterdir()) == ['out', 'run']


def test_a_model_of_half_precision_is_refused(shop, tmp_path, monkeypatch):
  cfg = dataclasses.replace(
      shop.model.cfg,
      model=dataclasses.replace(shop.model.cfg.model, dtype='bfloat16'),
  )
  model = dataclasses.replace(shop.model, cfg=cfg)
  monkeypatch.setattr(recommender_lib, 'load', lambda workdir: model)
  with pytest.raises(
      errors.UserError, match="has config.model.dtype 'bfloat16'"
  ):
    export.write(shop.run, str(tmp_path / 'out'))
  assert not list(tmp_path.iterdir())


class Case(NamedTuple):
  """A mistake: the flags, and what must be said of it."""

  name: str
  flags: str
  message: str


CASES = [
    Case('no flags', '', 'export needs a run and a folder; write python run.'),
    Case('no run', '--output=out', 'export needs a run and a folder; write'),
    Case('empty', '--workdir=run --output=', '--output is empty; name a fol'),
    Case(
        'no folder', '--workdir=no --output=out', 'no is no run folder: no/con'
    ),
    Case(
        'a file', '--workdir=run --output=file', '--output=file is a file; name'
    ),
    Case(
        'somewhere else',
        '--workdir=run --output=no/out',
        '--output=no/out: there is no folder no. Make it, or correct the path.',
    ),
    Case(
        'something else',
        '--workdir=run --output=full',
        '--output=full holds something else than an export; name an empty or n',
    ),
    Case(
        'the run itself',
        '--workdir=run --output=run',
        '--output=run holds something else than an export; name an empty or ne',
    ),
    Case(
        'other settings',
        '--workdir=run --output=out --k=3 --config.name=other',
        'export takes everything from the run folder; leave out --k, --config.',
    ),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_mistakes(case, here):
  command_line.write(here, {'file': 'x', 'full/other': 'x'})
  before = command_line.snapshot(here)
  ended = command_line.call('export', *case.flags.split())
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(here) == before
