# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import builtins
import contextlib
import errno
import fcntl
import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import files


@pytest.fixture(name='here')
def fixture_here(tmp_path, monkeypatch):
  """An empty folder, which is the current one."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def fail_after(some_bytes, number=errno.ENOSPC):
  """A writer whose disk is full after a few bytes."""

  def fill(file):
    file.write(some_bytes)
    raise OSError(number, os.strerror(number))

  return fill


@pytest.mark.parametrize('before', [None, b'old'])
def test_full_disk_leaves_the_old_file_or_none(tmp_path, before):
  path = tmp_path / 'file.npz'
  if before is not None:
    path.write_bytes(before)
  with pytest.raises(errors.UserError) as caught:
    files.write(str(path), fail_after(b'half of the new'))
  assert str(path) in str(caught.value)
  assert 'No space left on device' in str(caught.value)
  assert 'Free space or choose another --workdir' in str(caught.value)
  assert (path.read_bytes() if path.exists() else None) == before
  assert os.listdir(tmp_path) == ([path.name] if before is not None else [])


def test_failing_rename_leaves_nothing(tmp_path, monkeypatch):
  def refuse(source, target):
    raise PermissionError(errno.EACCES, 'Permission denied', target)

  monkeypatch.setattr(os, 'replace', refuse)
  with pytest.raises(errors.UserError, match='Permission denied'):
    files.write_text(str(tmp_path / 'file'), 'text')
  assert not os.listdir(tmp_path)


def test_an_error_of_the_writer_itself_leaves_nothing(tmp_path):
  with pytest.raises(ValueError):  # JSON knows no NaN
    files.write_json(str(tmp_path / 'file'), {'x': float('nan')})

  def fill(file):
    file.write(b'half')
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    files.write(str(tmp_path / 'file'), fill)
  assert not os.listdir(tmp_path)


_WRITER = """
import sys
from dropoutnet_jax.data import files

def fill(file):
  file.write(b'half')
  file.flush()
  print('half', flush=True)
  sys.stdin.readline()
  file.write(b' and whole')

files.write(sys.argv[1], fill, hidden=len(sys.argv) > 2)
"""


@contextlib.contextmanager
def _writing(path, *flags):
  """Another process that has written a half, and goes on after a line."""
  command = [sys.executable, '-c', _WRITER, str(path), *flags]
  with subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    try:
      assert process.stdout.readline() == 'half\n'
      yield process
    finally:
      process.kill()


@pytest.mark.parametrize('flags', [(), ('hidden',)])
def test_what_a_kill_left_goes_with_the_next_write(flags, here):
  with _writing('lists.csv', *flags) as process:
    (left,) = os.listdir()
    assert left == '.' * len(flags) + f'lists.csv.{process.pid}.tmp'
  assert process.returncode == -signal.SIGKILL
  assert pathlib.Path(left).read_bytes() == b'half'
  others = ['lists.csv.tmp', 'xlists.csv.7.tmp', 'lists.csv.x.tmp', 'o.7.tmp']
  for name in others:
    pathlib.Path(name).touch()
  files.write('lists.csv', lambda file: file.write(b'new'), hidden=bool(flags))
  assert sorted(os.listdir()) == sorted([*others, 'lists.csv'])
  assert pathlib.Path('lists.csv').read_bytes() == b'new'


def test_what_another_process_is_writing_stays(here):
  with _writing('file') as process:
    files.write_text('file', 'first')
    assert sorted(os.listdir()) == ['file', f'file.{process.pid}.tmp']
    process.communicate('\n', timeout=60)
    assert process.returncode == 0
  assert os.listdir() == ['file']
  assert pathlib.Path('file').read_bytes() == b'half and whole'


def test_one_that_is_left_under_the_own_number_is_replaced(here, monkeypatch):
  left = pathlib.Path(f'file.{os.getpid()}.tmp')
  left.write_text('longer than the new one')
  monkeypatch.setattr(files, 'remove_left', lambda stem: None)
  files.write_text('file', 'new')
  assert os.listdir() == ['file']
  assert pathlib.Path('file').read_text() == 'new'


def test_one_that_is_removed_before_its_lock_is_made_again(here):
  made = []

  def make():
    descriptor = os.open('folder/x.1.tmp', os.O_RDWR | os.O_CREAT)
    made.append(descriptor)
    if len(made) == 1:
      files.remove_left('folder/x')
      assert not os.listdir('folder')
    return descriptor

  os.mkdir('folder')
  descriptor = files.claim('folder/x.1.tmp', make)
  assert len(made) == 2 and os.listdir('folder') == ['x.1.tmp']
  files.remove_left('folder/x')
  assert os.listdir('folder') == ['x.1.tmp']
  os.close(descriptor)
  files.remove_left('folder/x')
  assert not os.listdir('folder')


def test_without_locks_files_are_written_and_nothing_is_removed(
    here, monkeypatch
):
  def refuse(descriptor, kind):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, 'flock', refuse)
  pathlib.Path('file.7.tmp').touch()
  files.write_text('file', 'new')
  assert sorted(os.listdir()) == ['file', 'file.7.tmp']


def test_the_file_appears_with_its_last_byte(tmp_path):
  path = tmp_path / 'file'

  def fill(file):
    file.write(b'a' * 100_000)
    assert not path.exists()
    file.write(b'b')

  files.write(str(path), fill)
  assert path.read_bytes() == b'a' * 100_000 + b'b'


def test_missing_and_unwritable_folders(tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match='No such file or directory'):
    files.write_text(str(tmp_path / 'gone' / 'file'), 'text')

  def refuse(path, *unused, **also_unused):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

  monkeypatch.setattr(builtins, 'open', refuse)
  with pytest.raises(errors.UserError, match='Read-only file system'):
    files.write_text(str(tmp_path / 'file'), 'text')


def test_text_and_json_keep_every_letter(tmp_path):
  path = tmp_path / 'file'
  files.write_text(str(path), 'bêta\n')
  assert path.read_bytes() == 'bêta\n'.encode()
  value = {'a': [1, 2.5, None], 'b': 'ü'}
  files.write_json(str(path), value)
  assert json.loads(path.read_text(encoding='utf-8')) == value


def test_arrays_come_back_as_they_were(tmp_path):
  path = str(tmp_path / 'arrays.npz')
  arrays = {
      'plain': np.arange(6, dtype=np.int32).reshape(2, 3),
      'with/slash': np.array([0.1, np.nan, np.inf], np.float32),
      'empty': np.zeros((4, 0), np.float32),
      'bool': np.array([True, False]),
      'text': np.array(['', 'à', 'long text']),
      'objects': np.array(['b', 'ccc'], object),
      'scalar': np.asarray('one'),
  }
  files.save_arrays(path, arrays)
  found = files.load_arrays(path)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
    if name != 'objects':  # their strings are kept without pickle
      assert found[name].dtype == array.dtype
  assert found['objects'].dtype.kind == 'U'


def test_sparse_matrices_come_back_as_they_were(tmp_path):
  path = str(tmp_path / 'sparse.npz')
  rng = np.random.default_rng(0)
  for shape in ((5, 7), (3, 0), (0, 4)):
    matrix = scipy.sparse.csr_array(
        scipy.sparse.random_array(shape, density=0.4, rng=rng, dtype='float32')
    )
    files.save_arrays(path, files.sparse_arrays('m', matrix))
    found = files.sparse_from_arrays('m', files.load_arrays(path))
    assert found.shape == shape and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), matrix.toarray())


def whole_npz():
  buffer = io.BytesIO()
  np.savez(buffer, x=np.arange(1000))
  return buffer.getvalue()


@pytest.mark.parametrize(
    'content',
    [b'', b'no zip', whole_npz()[:-30], whole_npz()[:500], b'PK\x03\x04'],
    ids=['empty', 'text', 'end missing', 'half', 'magic only'],
)
def test_damaged_arrays_are_told(tmp_path, content):
  path = tmp_path / 'arrays.npz'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='is damaged') as caught:
    files.load_arrays(str(path))
  assert str(path) in str(caught.value)
  assert 'Remove the run folder' in str(caught.value)


def test_flipped_byte_is_noticed(tmp_path):
  content = bytearray(whole_npz())
  content[600] ^= 0xFF
  path = tmp_path / 'arrays.npz'
  path.write_bytes(bytes(content))
  with pytest.raises(errors.UserError, match='is damaged'):
    files.load_arrays(str(path))


def test_missing_arrays_are_told(tmp_path):
  path = str(tmp_path / 'none.npz')
  with pytest.raises(errors.UserError, match='does not exist; is this a run'):
    files.load_arrays(path)


def test_pickles_are_never_loaded(tmp_path):
  path = tmp_path / 'arrays.npz'
  np.savez(path, x=np.array([{}], object), allow_pickle=True)
  with pytest.raises(errors.UserError, match='is damaged'):
    files.load_arrays(str(path))
