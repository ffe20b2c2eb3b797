# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a data set, and what is said when it is not there."""

import dataclasses
import pathlib

import numpy as np
import pooch
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import download
from dropoutnet_jax.data import sources

PUBLIC = [name for name in config.DATASETS if name != 'synthetic']
WITH_SPLIT = ('citeulike-a', 'layer6-citeulike', 'recsys2017')


def _load(name: str, split: str, data_dir):
  settings = config.DataConfig(name=name, split=split)
  return sources.load(settings, None if data_dir is None else str(data_dir))


def _message(*arguments) -> str:
  with pytest.raises(errors.UserError) as info:
    _load(*arguments)
  return str(info.value)


def _flatten(value):
  """A data set as nested plain values that == can compare."""
  if dataclasses.is_dataclass(value):
    return {
        field.name: _flatten(getattr(value, field.name))
        for field in dataclasses.fields(value)
    }
  if isinstance(value, dict):
    return {key: _flatten(part) for key, part in value.items()}
  if scipy.sparse.issparse(value):
    value = value.toarray()
  if isinstance(value, np.ndarray):
    return str(value.dtype.kind), value.shape, repr(value.tolist())
  return value


@pytest.mark.parametrize('name', PUBLIC)
def test_every_data_set_is_found_by_its_name(make_data, name):
  folder = make_data(name)
  split = 'published-cold' if name in WITH_SPLIT else 'random'
  dataset = _load(name, split, folder.parent)
  assert dataset.name == name
  assert bool(dataset.held_out) == (name in WITH_SPLIT)
  if not dataset.held_out:
    return
  assert dataset.held_out.keys() <= {'warm', 'cold_item', 'cold_user'}
  assert not _load(name, 'random', folder.parent).held_out


def _to_crlf(content: bytes) -> bytes:
  return content.replace(b'\n', b'\r\n')


def _to_mixed(content: bytes) -> bytes:
  first, *rest = content.split(b'\n')
  return first + b'\r\n' + b'\n'.join(rest) if rest else first


VARIANTS = {
    'crlf': _to_crlf,
    'mixed': _to_mixed,
    'bom': lambda content: b'\xef\xbb\xbf' + content,
    'bom-crlf': lambda content: b'\xef\xbb\xbf' + _to_crlf(content),
    'blank-end': lambda content: content.rstrip(b'\n') + b'\n\n \n',
    'no-end': lambda content: content.rstrip(b'\n'),
}


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('name', PUBLIC)
def test_editors_change_nothing(make_data, tiny_files, name, variant):
  split = 'published-warm' if name in WITH_SPLIT else 'random'
  expected = _load(name, split, make_data(name).parent)
  changes = {}
  for file_name, content in tiny_files[name].items():
    if not file_name.endswith('.bin'):
      is_text = isinstance(content, str)
      raw = content.encode() if is_text else content
      changes[file_name] = VARIANTS[variant](raw)
  found = _load(name, split, make_data(name, changes).parent)
  assert _flatten(found) == _flatten(expected)


@pytest.mark.parametrize('split', ['published-cold', 'published-warm'])
@pytest.mark.parametrize('name', ['synthetic', 'citeulike-t', 'ml-100k'])
def test_a_split_that_was_never_published(tmp_path, name, split):
  found = _message(name, split, tmp_path)
  assert f"config.data.split is '{split}', but {name} comes without" in found


@pytest.mark.parametrize('name', PUBLIC)
def test_a_missing_folder_says_what_to_fetch(tmp_path, name):
  found = _message(name, 'random', tmp_path)
  assert f'{tmp_path / name} does not exist. Fetch ' in found
  for address in download.PACKAGES[name].files:
    assert address.rsplit('/', 1)[-1] in found
  assert f'into {tmp_path / name}.' in found and 'https://' in found
  assert 'leave out --data_dir' in found


@pytest.mark.parametrize(
    'name, missing',
    [
        ('citeulike-a', 'users.dat'),
        ('citeulike-a', 'tags.dat'),
        ('citeulike-t', 'mult.dat'),
        ('ml-100k', 'u.item'),
        ('layer6-citeulike', 'eval/cold/train.csv'),
        ('recsys2017', 'eval/trained/warm/V.csv.bin'),
    ],
)
def test_a_missing_file_says_what_to_fetch(make_data, name, missing):
  folder = make_data(name, {missing: None})
  found = _message(name, 'random', folder.parent)
  assert pathlib.Path(missing).name in found and str(folder) in found
  assert next(iter(download.PACKAGES[name].files)).rsplit('/', 1)[0] in found


def test_missing_published_splits_say_where_they_come_from(make_data):
  folder = make_data('citeulike-a', {'cold/train.csv': None})
  found = _message('citeulike-a', 'published-cold', folder.parent)
  assert f'{folder / "cold" / "train.csv"} does not exist.' in found
  assert 'are in the folder eval of https://' in found


def test_a_data_dir_that_is_none(tmp_path):
  found = _message('ml-100k', 'random', tmp_path / 'none')
  assert f'--data_dir={tmp_path / "none"} is no folder' in found


@pytest.mark.parametrize('name', ['citeulike-a', 'ml-100k'])
def test_a_data_dir_one_folder_too_deep(make_data, name):
  found = _message(name, 'random', make_data(name))
  assert 'give the folder above it' in found


def test_without_a_data_dir_the_cache_is_used(make_data, monkeypatch):
  folders = {
      name: make_data(name) for name in ('citeulike-a', 'layer6-citeulike')
  }
  folders['layer6-citeulike'] /= 'eval'
  asked = []
  fetch = lambda name: asked.append(name) or folders[name]
  monkeypatch.setattr(download, 'fetch', fetch)
  for split in ('cold', 'warm'):  # they come with the authors' package
    for path in (folders['citeulike-a'] / split).iterdir():
      path.unlink()
  dataset = _load('citeulike-a', 'published-cold', None)
  assert list(dataset.held_out) == ['cold_item']
  assert asked == ['citeulike-a', 'layer6-citeulike']
  _load('citeulike-a', 'random', None)
  assert asked[2:] == ['citeulike-a']  # no splits, no package


def test_a_cache_with_a_file_lost(make_data, monkeypatch):
  folder = make_data('citeulike-t', {'mult.dat': None})
  monkeypatch.setattr(download, 'fetch', lambda name: folder)
  found = _message('citeulike-t', 'random', None)
  assert f'mult.dat does not exist. Delete {folder} and run again.' in found


def test_a_given_data_dir_never_asks_the_network(tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError(f'asked the network: {args} {kwargs}')

  monkeypatch.setattr(pooch, 'retrieve', refuse)
  assert 'does not exist' in _message('ml-100k', 'random', tmp_path)


def test_synthetic_needs_no_folder():
  settings = config.DataConfig()
  settings.synthetic.num_users = settings.synthetic.num_items = 30
  dataset = sources.load(settings, None)
  assert (len(dataset.users), len(dataset.items)) == (30, 30)


@pytest.mark.parametrize('split', ['published-cold', 'published-warm'])
def test_real_citeulike_a_through_the_front_door(data_dir, split):
  dataset = _load('citeulike-a', split, data_dir)
  (test,) = dataset.held_out.values()
  assert len(dataset.interactions) + len(test) == 204_986
