# SPDX-License-Identifier: Apache-2.0
"""Downloads are checked, whole or absent, and never asked for twice."""

import hashlib
import io
import pathlib
import tarfile
import zipfile

import pooch
import pytest
import requests

from dropoutnet_jax import errors
from dropoutnet_jax.data import download


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> pathlib.Path:
  """Keeps the user's own cache out of the tests."""
  folder = tmp_path / 'cache'
  monkeypatch.setattr(pooch, 'os_cache', lambda project: folder / project)
  return folder / 'dropoutnet_jax'


class _Server:
  """Stands in for the network: serves contents by address, counts requests."""

  def __init__(self, contents: dict[str, bytes]):
    self.contents = contents
    self.requests: list[str] = []

  def __call__(self, url, known_hash, fname, path, downloader):
    assert isinstance(downloader, pooch.HTTPDownloader)
    self.requests.append(url)
    path.mkdir(parents=True, exist_ok=True)
    if url not in self.contents:
      raise ConnectionError('Name or\nservice not known')
    content = self.contents[url]
    kind, _, digest = known_hash.partition(':')
    if hashlib.new(kind, content).hexdigest() != digest:
      raise ValueError(f'{kind.upper()} hash of downloaded file does not match')
    (path / fname).write_bytes(content)
    return str(path / fname)


@pytest.fixture
def serve(monkeypatch):
  """Serves the contents and makes their checksums the known ones."""

  def start(name: str, contents: dict[str, bytes]) -> _Server:
    package = download.PACKAGES[name]
    files = {
        address: 'sha256:' + hashlib.sha256(content).hexdigest()
        for address, content in contents.items()
    }
    changed = download.Package(files, package.marker, package.size)
    monkeypatch.setitem(download.PACKAGES, name, changed)
    server = _Server(contents)
    monkeypatch.setattr(pooch, 'retrieve', server)
    return server

  return start


def _zip(files: dict[str, str]) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return buffer.getvalue()


def _tar(files: dict[str, str]) -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content.encode()))
  return buffer.getvalue()


def test_single_files(serve, cache):
  server = serve('citeulike-t', {'http://x/users.dat': b'1 0'})
  folder = download.fetch('citeulike-t')
  assert folder == cache / 'citeulike-t'
  assert (folder / 'users.dat').read_bytes() == b'1 0'
  assert server.requests == ['http://x/users.dat']


@pytest.mark.parametrize(
    'name, address, pack, files',
    [
        ('ml-100k', 'http://x/a.zip', _zip, {'ml-100k/u.data': '1'}),
        ('ml-100k', 'http://x/a.zip', _zip, {'u.data': '1'}),
        (
            'layer6-citeulike',
            'http://x/a.tar.gz',
            _tar,
            {'citeu/eval/item_features_0based.txt': '1', 'citeu/README': '2'},
        ),
    ],
)
def test_archives_are_unpacked_once(serve, cache, name, address, pack, files):
  server = serve(name, {address: pack(files)})
  folder = download.fetch(name)
  marker = next(iter(files))
  assert folder == (cache / name / 'unpacked' / marker).parent
  assert (cache / name / 'unpacked' / marker).read_text() == '1'
  assert [path.name for path in (cache / name).iterdir()] == ['unpacked']
  assert download.fetch(name) == folder
  assert len(server.requests) == 1  # the second time nothing was asked


def test_a_broken_archive_leaves_nothing_to_be_taken_for_whole(serve, cache):
  content = _tar({'eval/item_features_0based.txt': '1' * 5000})
  serve('layer6-citeulike', {'http://x/a.tar.gz': content[:-40]})
  with pytest.raises(errors.UserError, match='could not be downloaded'):
    download.fetch('layer6-citeulike')
  assert not (cache / 'layer6-citeulike' / 'unpacked').exists()
  names = [path.name for path in (cache / 'layer6-citeulike').iterdir()]
  assert names == ['a.tar.gz']


def test_an_archive_cannot_write_outside(serve, tmp_path):
  content = _tar({'../../../../escaped': '1'})
  serve('layer6-citeulike', {'http://x/a.tar.gz': content})
  with pytest.raises(errors.UserError, match='OutsideDestinationError'):
    download.fetch('layer6-citeulike')
  assert not list(tmp_path.rglob('escaped'))


@pytest.mark.parametrize('name', list(download.PACKAGES))
def test_without_network(monkeypatch, cache, name):
  monkeypatch.setattr(pooch, 'retrieve', _Server({}))
  with pytest.raises(errors.UserError) as info:
    download.fetch(name)
  message = str(info.value)
  assert f'{name} could not be downloaded into {cache / name}' in message
  assert 'ConnectionError: Name or service not known' in message
  assert 'http' in message and f'into DATA_DIR/{name}.' in message
  assert message.endswith('Then give --data_dir=DATA_DIR.')
  assert not cache.exists()  # no empty folders stay


def test_another_content_than_the_known_one_is_refused(serve, cache):
  server = serve('citeulike-t', {'http://x/users.dat': b'1 0'})
  server.contents['http://x/users.dat'] = b'<html>Sign in</html>'
  with pytest.raises(errors.UserError, match='hash of downloaded file'):
    download.fetch('citeulike-t')
  assert not (cache / 'citeulike-t' / 'users.dat').exists()


def test_pooch_itself_refuses_another_content(monkeypatch, cache):
  """The double above behaves like the library that it stands in for."""

  def download_page(url, output_file, pooch):
    del url, pooch
    pathlib.Path(output_file).write_text('<html>Sign in</html>')

  original = pooch.retrieve
  monkeypatch.setattr(
      pooch,
      'retrieve',
      lambda *args, **kwargs: original(
          *args, **{**kwargs, 'downloader': download_page}
      ),
  )
  with pytest.raises(errors.UserError, match='does not match'):
    download.fetch('ml-100k')
  assert not cache.exists()


class _Response:
  """What the downloader of pooch uses of a response of requests."""

  headers = {'content-length': '2'}

  def __init__(self, content: bytes):
    self._content = content

  def raise_for_status(self) -> None:
    pass

  def iter_content(self, chunk_size):
    del chunk_size
    return iter([self._content[:1], self._content[1:]])


def test_what_is_downloaded_is_said_once_it_comes(
    monkeypatch, cache, serve, capfd
):
  original = pooch.retrieve
  contents = {f'http://x/{name}': name.encode() for name in ('aa', 'bb')}
  serve('citeulike-t', contents)
  monkeypatch.setattr(pooch, 'retrieve', original)
  get = lambda url, **options: _Response(contents[url])
  monkeypatch.setattr(requests, 'get', get)
  folder = download.fetch('citeulike-t')
  assert (folder / 'aa').read_text() + (folder / 'bb').read_text() == 'aabb'
  assert capfd.readouterr() == ('', 'Downloading citeulike-t (5 MB).\n')


def test_without_network_the_message_is_all_that_is_said(
    monkeypatch, cache, capfd
):
  def refuse(*args, **kwargs):
    raise requests.ConnectionError('Name or service not known')

  monkeypatch.setattr(requests, 'get', refuse)
  with pytest.raises(errors.UserError, match='could not be downloaded'):
    download.fetch('ml-100k')
  assert capfd.readouterr() == ('', '')
  assert not cache.exists()


def test_what_came_before_a_failure_stays(serve, cache):
  server = serve('citeulike-t', {'http://x/a': b'1', 'http://x/b': b'2'})
  del server.contents['http://x/b']
  with pytest.raises(errors.UserError, match='could not be downloaded'):
    download.fetch('citeulike-t')
  assert [path.name for path in (cache / 'citeulike-t').iterdir()] == ['a']


def test_a_cache_that_cannot_be_written(cache):
  cache.parent.mkdir()
  cache.write_text('a file where the folder belongs')
  with pytest.raises(errors.UserError) as info:
    download.fetch('ml-100k')
  assert 'ml-100k could not be downloaded' in str(info.value)


def test_every_package_has_a_checksum():
  for package in download.PACKAGES.values():
    assert package.files and package.marker and package.size
    for address, checksum in package.files.items():
      assert address.startswith('https://')
      kind, _, digest = checksum.partition(':')
      assert len(digest) == 2 * hashlib.new(kind).digest_size
      assert int(digest, 16) >= 0


@pytest.mark.parametrize('name', ['citeulike-a', 'citeulike-t'])
def test_the_known_checksums_are_those_of_real_files(data_dir, name):
  for address, checksum in download.PACKAGES[name].files.items():
    content = (data_dir / name / address.rsplit('/', 1)[-1]).read_bytes()
    assert checksum == 'sha256:' + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize('depth', ['', 'a', 'a/b'])
def test_find_root(tmp_path, depth):
  folder = tmp_path / depth
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'u.data').write_text('1')
  assert download.find_root(tmp_path, 'ml-100k') == folder


def test_find_root_without_a_trace(tmp_path):
  assert download.find_root(tmp_path, 'ml-100k') == tmp_path
