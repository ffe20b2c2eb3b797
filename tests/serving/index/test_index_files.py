# SPDX-License-Identifier: Apache-2.0
"""Folders of indexes: read back as they were, or refused with a message."""

import json
import os

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving.index import factory
from dropoutnet_jax.serving.index import index_files
from dropoutnet_jax.serving.index import options as options_lib
from tests.serving.index import slow_index

SETTINGS = options_lib.Options(fresh=5, probes=9, search_breadth=99)


def _draw(number, seed=0):
  return slow_index.draw(np.random.default_rng(seed), number)


def _lists(index):
  return index.search(_draw(4, seed=9), 6).lists()


@pytest.mark.parametrize('kind', options_lib.KINDS)
@pytest.mark.parametrize('is_text', [False, True])
def test_an_index_comes_back_as_it_was(tmp_path, kind, is_text):
  if kind != 'exact':
    pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  names = [f'löng {n}' * n if is_text else n - 2**60 for n in range(20)]
  index = factory.build(kind, names, _draw(20), SETTINGS)
  index.upsert([names[3]], _draw(1, seed=1))
  index.delete([names[5]])
  folder = str(tmp_path / 'new' / 'index')
  index.save(folder)
  again = factory.load(folder)
  assert (again.kind, again.options) == (kind, SETTINGS)
  assert again.ids.tolist() == index.ids.tolist()
  assert again.ids.dtype == index.ids.dtype
  assert again.recall == index.recall
  assert (again.recall is None) == (kind == 'exact')
  assert _lists(again) == _lists(index)
  again.upsert(names[:2], _draw(2, seed=2))
  again.save(folder)
  third = factory.load(folder)
  assert _lists(third) == _lists(again) != _lists(index)
  assert len(os.listdir(folder)) == (2 if kind == 'exact' else 3)


def test_an_empty_index_comes_back(tmp_path):
  index = factory.build('exact', [], _draw(0))
  index.save(str(tmp_path))
  again = factory.load(str(tmp_path))
  again.upsert(['a'], _draw(1))
  assert again.ids.tolist() == ['a']


def test_a_save_that_breaks_off_leaves_the_old_index(tmp_path, monkeypatch):
  index = factory.build('exact', ['a', 'b'], _draw(2))
  index.save(str(tmp_path))
  before = _lists(index)
  index.delete(['a'])

  def fail(path, value):
    raise errors.UserError('no space left')

  with monkeypatch.context() as patch:
    patch.setattr(index_files.files, 'write_json', fail)
    with pytest.raises(errors.UserError):
      index.save(str(tmp_path))
  assert _lists(factory.load(str(tmp_path))) == before
  index.save(str(tmp_path))
  assert len(os.listdir(tmp_path)) == 2
  assert _lists(factory.load(str(tmp_path))) == _lists(index)


def _change_json(**fields):
  def change(folder):
    path = folder / 'index.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

  return change


def _cut(name, share):
  def change(folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])

  return change


def _flip(name):
  def change(folder):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)

  return change


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda f: (f / 'index.json').unlink(), 'index.json does not exist'),
        (_cut('index.json', 0.5), 'index.json cannot be read'),
        (lambda f: (f / 'index.json').write_text('[]'), 'not of an index'),
        (_change_json(format='x'), 'not of an index'),
        (_change_json(version=2), 'of version 2, and this program reads'),
        (_change_json(kind='tree'), "no index of kind 'tree'"),
        (_change_json(options={'depth': 1}), 'index.json is damaged'),
        (_change_json(options={'terms': 0}), 'Option terms of an index is 0'),
        (_change_json(files={}), 'index.json is damaged'),
        (_change_json(files=3), 'index.json is damaged'),
        (_cut('items.1.npz', 0.7), 'items.1.npz is damaged: it has'),
        (_flip('items.1.npz'), 'items.1.npz is damaged: it has'),
        (lambda f: (f / 'items.1.npz').unlink(), 'items.1.npz cannot be read'),
        (_flip('dense.1.faiss'), 'dense.1.faiss is damaged: it has'),
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage, message):
  pytest.importorskip('faiss', reason="FAISS is the extra 'ann'")
  index = factory.build('flat', ['a', 'b'], _draw(2), SETTINGS)
  index.save(str(tmp_path))
  damage(tmp_path)
  with pytest.raises(errors.UserError, match=message):
    factory.load(str(tmp_path))


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  index = factory.build('exact', ['a'], _draw(1))
  with pytest.raises(errors.UserError, match='cannot be written'):
    index.save(str(tmp_path / 'file'))
