# SPDX-License-Identifier: Apache-2.0
"""The rules that keep the project readable, held by tests.

Read from the source with `ast`, so that a comment or a string that mentions a
module is no import, and an import within a function is one.
"""

import ast
from collections.abc import Iterator, Set
import configparser
import functools
import pathlib
import re
from typing import NamedTuple

import pytest

from dropoutnet_jax import experiment

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = 'dropoutnet_jax'
# A layer imports itself and what stands before it.
LAYERS = (
    'errors',
    'checks',
    'config_data',
    'config_dropout',
    'config_evaluation',
    'config_features',
    'config_model',
    'config_objective',
    'config_streaming',
    'config_train',
    'config',
    'space',
    'profiles',
    'config_tree',
    'experiment',
    'arguments',
    'unread',
    'clusters',
    'processes',
    'data',
    'easyrec',
    'model',
    'joint',
    'parallel',
    'table_shards',
    'ahead',
    'normal_equations',
    'split_als',
    'teacher',
    'fold_in',
    'evaluation',
    'training',
    'exploring',
    'serving',
    'report',
    'run_report',
    'commands',
    'log_commands',
    'serving_commands',
    'sweeps',
    'comparisons',
    'tuning',
    'results_table',
    'moves',
    'reproduce',
    'benchmarks',
    'run',
)
# Only parallel.py says which devices there are and how arrays lie on them,
# table_shards.py what each does with its part of a table, processes.py joins
# those of several hosts, joint.py has them work together, and ahead.py names
# some that are not there.
DEVICE_FILES = ('parallel', 'processes', 'joint', 'table_shards', 'ahead')
DEVICE_NAMES = {
    'AxisType',
    'Mesh',
    'NamedSharding',
    'PartitionSpec',
    'P',
    'device_count',
    'device_put',
    'devices',
    'distributed',
    'make_array_from_process_local_data',
    'multihost_utils',
    'local_device_count',
    'local_devices',
    'make_mesh',
    'pmap',
    'process_count',
    'process_index',
    'sharding',
}
MAX_LINES = 400
_IMPORTS = (ast.Import, ast.ImportFrom)


def _python_files(pattern: str) -> list[pathlib.Path]:
  """Python files that match, relative to the root, without built copies."""
  found = sorted(path.relative_to(ROOT) for path in ROOT.glob(pattern))
  built = ('build', 'dist', 'runs', 'venv')
  return [
      path
      for path in found
      if path.parts[0] not in built and not path.parts[0].startswith('.')
  ]


PACKAGE_FILES = _python_files(f'{PACKAGE}/**/*.py')
EXPERIMENTS = _python_files('experiments/*.py')
ALL_FILES = _python_files('**/*.py')


class _File(NamedTuple):
  """What the rules look at; trees of all files would fill the memory."""

  imports: frozenset[str]
  of_jax: frozenset[str]
  of_flax: frozenset[str]
  skipped_without: frozenset[str]
  docstring: str


@functools.cache
def _read(path: pathlib.Path) -> _File:
  tree = _tree(path)
  return _File(
      frozenset(_imports(tree)),
      frozenset(_names_of_jax(tree)),
      frozenset(_flax_attributes(tree)),
      frozenset(_skipped_without(tree)),
      ast.get_docstring(tree) or '',
  )


def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse((ROOT / path).read_text(encoding='utf-8'), str(path))


def _imports(tree: ast.AST) -> set[str]:
  """Full names of all imports: 'a.b' for `import a.b` and `from a import b`."""
  names: set[str] = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      source = '.' * node.level + (node.module or '')
      names |= {f'{source}.{alias.name}' for alias in node.names}
  return names


def _layer(path: pathlib.Path) -> str:
  """'data' for dropoutnet_jax/data/schema.py, 'run' for run.py."""
  return path.parts[path.parts[0] == PACKAGE].removesuffix('.py')


def _wrong_imports(layer: str, imports: Set[str]) -> list[str]:
  """What a file of this layer may not import of the package."""
  allowed = LAYERS[: LAYERS.index(layer) + 1]
  wrong = []
  for name in sorted(imports):
    first, _, rest = name.partition('.')
    inside = rest.split('.')[0]
    if first == 'run' or (
        first == PACKAGE and inside != '__version__' and inside not in allowed
    ):
      wrong.append(name)
  return wrong


def _names_of_jax(tree: ast.AST) -> set[str]:
  """Last parts of every attribute of jax and of every import from it."""
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute):
      root = node
      while isinstance(root, ast.Attribute):
        root = root.value  # type: ignore[assignment]
      if isinstance(root, ast.Name) and root.id == 'jax':
        names.add(node.attr)
  for name in _imports(tree):
    if name.split('.')[0] == 'jax':
      names |= set(name.split('.')[1:])
  return names


def _flax_attributes(tree: ast.AST) -> set[str]:
  return {
      node.attr
      for node in ast.walk(tree)
      if isinstance(node, ast.Attribute)
      and isinstance(node.value, ast.Name)
      and node.value.id == 'flax'
  }


def _skipped_without(tree: ast.AST) -> set[str]:
  """Packages that tests are skipped without."""
  return {
      node.args[0].value.split('.')[0]  # type: ignore[attr-defined]
      for node in ast.walk(tree)
      if isinstance(node, ast.Call)
      and isinstance(node.func, ast.Attribute)
      and node.func.attr == 'importorskip'
  }


def test_imports_point_one_way():
  found = {}
  for path in PACKAGE_FILES:
    if path != pathlib.Path(PACKAGE, '__init__.py'):
      assert _layer(path) in LAYERS, f'{path} belongs to no layer'
      found[path] = _wrong_imports(_layer(path), _read(path).imports)
  assert len(found) > 200
  assert not {path: wrong for path, wrong in found.items() if wrong}


def test_the_package_itself_imports_nothing():
  path = pathlib.Path(PACKAGE, '__init__.py')
  now = ast.Module(_tree(path).body, [])
  now.body = [
      x for x in now.body if not isinstance(x, (ast.FunctionDef, ast.If))
  ]
  assert _imports(now) == {'typing'}
  # When it is called, or for the types alone.
  assert _read(path).imports == {'typing', f'{PACKAGE}.serving.facade'}


def test_run_and_experiments_import_from_the_package_alone():
  run = ROOT / 'run.py'
  assert not _wrong_imports('run', _imports(_tree(run)))
  for path in EXPERIMENTS:
    # An experiment is settings; what computes belongs into the package.
    assert not _wrong_imports('profiles', _read(path).imports), path


def test_absolute_imports_of_modules():
  for path, name in _package_imports():
    assert not name.startswith('.'), f'{path}: write {name} in full'
    if name.startswith(f'{PACKAGE}.') and not name.endswith('.__version__'):
      target = ROOT.joinpath(*name.split('.'))
      is_module = target.is_dir() or target.with_suffix('.py').is_file()
      assert is_module, f'{path}: {name} is not a module; import its module'


def _package_imports() -> Iterator[tuple[pathlib.Path, str]]:
  for path in PACKAGE_FILES:
    for name in _read(path).imports:
      yield path, name


def test_no_other_framework():
  # What `bench` compares with is imported in benchmarks/, see below.
  others = {'torch', 'tensorflow', 'keras', 'implicit', 'chex'}
  for path in (*PACKAGE_FILES, pathlib.Path('run.py')):
    roots = {name.split('.')[0] for name in _read(path).imports}
    assert not roots & others, path


def test_what_is_slow_to_import_is_imported_where_it_is_used():
  """Each costs every start of a command half a second to three."""
  slow = {'sklearn', 'optuna', 'grain', 'tensorboardX', 'faiss', 'fastapi'}
  used = set()
  for path in PACKAGE_FILES:
    used |= slow & {name.split('.')[0] for name in _read(path).imports}
    if path.parts[1:3] == ('serving', 'service'):  # which is slow to start
      continue
    of_start = [x for x in _tree(path).body if isinstance(x, _IMPORTS)]
    names = _imports(ast.Module(of_start, []))
    assert not slow & {name.split('.')[0] for name in names}, path
  assert used == slow


def test_one_file_of_the_benchmarks_each_imports_what_is_compared_with():
  found = {
      path.as_posix(): roots & {'torch', 'implicit'}
      for path in ALL_FILES
      if path.parts[0] != 'tests'
      and (roots := {name.split('.')[0] for name in _read(path).imports})
      & {'torch', 'implicit'}
  }
  assert found == {
      'benchmarks/als.py': {'implicit'},
      'benchmarks/torch_dropoutnet.py': {'torch'},
  }


def test_all_but_the_tests_is_type_checked():
  settings = configparser.ConfigParser()
  settings.read(ROOT / 'setup.cfg', encoding='utf-8')
  checked = settings['mypy']['files'].split(', ')
  roots = {path.parts[0] for path in ALL_FILES if path.parts[0] != 'tests'}
  assert sorted(checked) == sorted(roots)


def test_what_tests_skip_without_is_installed_by_ci_or_said_to_be_left_out():
  tests = [path for path in ALL_FILES if path.parts[0] == 'tests']
  optional = set().union(*(_read(path).skipped_without for path in tests))
  assert {'implicit', 'torch'} <= optional
  script = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
  # Of the package, and of `test`.
  required = {'threadpoolctl', 'faiss', 'optuna'}
  assert all(name in script for name in optional - required)


def test_linen_stays_in_towers():
  only = pathlib.Path(PACKAGE, 'model', 'towers.py')
  elsewhere = ('flax.linen', 'flax.nnx', 'flax.training')
  for path, name in _package_imports():
    assert path == only or not name.startswith(elsewhere), path
  for path in PACKAGE_FILES:
    assert 'linen' not in _read(path).of_flax, path


def test_only_some_files_name_devices():
  # Tests compare meshes, so they may build them.
  these = [pathlib.Path(PACKAGE, f'{name}.py') for name in DEVICE_FILES]
  for path in ALL_FILES:
    if path.parts[0] != 'tests' and path not in these:
      assert not _read(path).of_jax & DEVICE_NAMES, path


def test_files_are_small_and_named_for_what_they_hold():
  for path in ALL_FILES:
    text = (ROOT / path).read_text(encoding='utf-8')
    names = ('util', 'utils', 'helpers', 'common', 'misc')
    assert path.stem not in names, path
    # Tables of cases are long and still one concept.
    limit = 2 * MAX_LINES if path.parts[0] == 'tests' else MAX_LINES
    assert len(text.splitlines()) < limit, path
    if text or path.name != '__init__.py':
      assert text.startswith('# SPDX-License-Identifier: Apache-2.0\n'), path
      assert _read(path).docstring, f'{path}: no module docstring'


def test_no_absolute_paths():
  """No string or comment holds a path of somebody's machine."""
  folders = 'home|root|work|Users|opt|mnt|media|srv|var|tmp'
  for path in ALL_FILES:
    text = (ROOT / path).read_text(encoding='utf-8')
    found = re.findall(r'(?<![\w.})\]*])/(?:' + folders + r')/\w', text)
    assert not found, path
    assert not re.findall(r'\b[A-Z]:\\\\?\w', text), path


def test_the_map_names_every_module():
  text = (ROOT / 'BUILD.md').read_text(encoding='utf-8')
  names = set(re.findall(r'\w+', text[text.index('## Map') :]))
  files = [*PACKAGE_FILES, *_python_files('benchmarks/*.py')]
  missing = [
      str(path)
      for path in files
      if path.name != '__init__.py' and path.stem not in names
  ]
  assert not missing, f'add to the map of BUILD.md: {missing}'


def test_there_are_experiments():
  assert pathlib.Path('experiments', 'quickstart.py') in EXPERIMENTS


@pytest.mark.parametrize('path', EXPERIMENTS, ids=str)
def test_every_experiment_is_valid(path):
  made = experiment.load(str(ROOT / path))
  made.validate()
  assert made.name == path.stem, 'an experiment is named after its file'


@pytest.mark.parametrize('path', EXPERIMENTS, ids=str)
def test_every_experiment_says_how_to_run_it(path):
  assert f'--config={path.as_posix()}' in _read(path).docstring


def test_the_rules_catch_what_they_are_for():
  """Each checker on a line that breaks its rule."""
  imports = _imports(
      ast.parse(
          'from dropoutnet_jax import report\n'
          'def later():\n'
          '  import dropoutnet_jax.training.loop\n'
      )
  )
  assert _wrong_imports('data', imports) == [
      'dropoutnet_jax.report',
      'dropoutnet_jax.training.loop',
  ]
  assert not _wrong_imports('run', imports)
  assert _wrong_imports('report', {'run'}) == ['run']
  named = _names_of_jax(ast.parse('import jax\njax.sharding.Mesh(x.devices)'))
  assert named & DEVICE_NAMES == {'sharding', 'Mesh'}
  named = _names_of_jax(ast.parse('from jax.sharding import NamedSharding'))
  assert 'NamedSharding' in named
  assert _layer(pathlib.Path(PACKAGE, 'data', 'schema.py')) == 'data'
  assert _layer(pathlib.Path(PACKAGE, 'errors.py')) == 'errors'
  assert _layer(pathlib.Path('run.py')) == 'run'
