# SPDX-License-Identifier: Apache-2.0
"""The command line: what goes wrong ends with one message and status 2.

`CASES` is the list of mistakes: each leaves every file as it was.
"""

import os
import pathlib
import runpy
import shutil
import sys
from typing import Any, NamedTuple

import pytest

from tests import command_line

_TINY = runpy.run_path(str(command_line.ROOT / 'tests/data/conftest.py'))[
    'TINY'
]
_COLD = '--config.data.split=published-cold'


class Case(NamedTuple):
  """A mistake.

  Attributes:
    name: of the test.
    arguments: of run.py, one string without blanks within arguments.
    message: part of what must be said.
    files: content by path, written beside tiny.py; None deletes.
    data: name of a tiny data set, which `files` then changes.
    run: whether run/ is a finished run of tiny.py, which `files` damage.
  """

  name: str
  arguments: str
  message: str
  files: dict[str, str | bytes | None] = {}
  data: str = ''
  run: bool = False


def _broken(data: str, name: str, content: Any, message: str) -> Case:
  """A broken file of a data set; the message begins with its path."""
  return Case(
      f'{data}: {name} {message}',
      f'--config.data.name={data} --data_dir=data',
      f'run.py: data/{data}/{name}{message}',
      {f'data/{data}/{name}': content},
      data,
  )


def _field(setting: str, message: str, name: str = '') -> Case:
  return Case(name or setting, f'--config.{setting}', message)


def _experiment(name: str, content: str | bytes, message: str) -> Case:
  files: dict[str, Any] = {'mine.py': content}
  return Case(name, '--config=mine.py', f'run.py: mine.py{message}', files)


CASES = [
    # Data files.
    _broken('citeulike-a', 'users.dat', None, ' does not exist. Fetch '),
    _broken('citeulike-a', 'users.dat', '2 0\n', ':1: the line says 2 and'),
    _broken('citeulike-a', 'users.dat', '2 0 x\n', ":1: item 'x' is not a"),
    _broken('citeulike-a', 'users.dat', '1 0\n1 4\n', ':2: item 4 is out of'),
    _broken('citeulike-a', 'users.dat', '1 0\n1 -1\n', ':2: item -1 is out'),
    _broken('citeulike-a', 'users.dat', '1,0\n', ":1: the count '1,0' is not"),
    _broken('citeulike-a', 'users.dat', '', ': no rows; the file is empty.'),
    _broken('citeulike-a', 'users.dat', '0\n0\n', ': 2 users and not one like'),
    _broken('citeulike-a', 'tags.dat', b'a\n\xff\nc\n', ':2: byte 0xff is not'),
    _broken('citeulike-a', 'tags.dat', 'a'.encode('utf-16'), ':1: the file is'),
    _broken(
        'citeulike-a', 'item-tag.dat', '1 9\n', ':1: tag 9 is out of range'
    ),
    _broken('citeulike-t', 'mult.dat', '1 0:0\n', ':1: word count 0 is out of'),
    _broken('citeulike-t', 'mult.dat', '1 0=2\n', ":1: found '0=2'; expected"),
    _broken(
        'ml-100k', 'u.data', '1,1,5,881250949\n', ':1: expected 4 field(s)'
    ),
    _broken('ml-100k', 'u.data', '1\t9\t5\t1\n' * 4, ':1: item 9 is not in u.'),
    _broken('ml-100k', 'u.user', '1|24|M\n', ':1: expected 5 field(s)'),
    _broken(
        'layer6-citeulike',
        'eval/item_features_0based.txt',
        '0\n0 x:1\n0\n0\n0\n',
        ":2: index 'x' is not a whole number",
    ),
    _broken(
        'layer6-citeulike',
        'eval/trained/cold/WRMF_cold_rank2_reg1.U.txt',
        '0 0\n1 nan\n2 2\n3 3\n',
        ': row 1 (from 0) holds nan in column 1; factors must be finite',
    ),
    _broken(
        'recsys2017',
        'eval/warm/train.csv',
        '1,1,1,1478041200\n1,1,9,1478041100\n',
        ':2: interaction type 9 is out of range',
    ),
    Case(
        'a cold split that leaks',
        f'--config.data.name=citeulike-a {_COLD} --data_dir=data '
        '--config.data.drop_leaks=false',
        'cold_item: 1 item (3, in the files 4) of 1 cold ones occur in 1 train',
        {'data/citeulike-a/cold/train.csv': '1,1,1\n1,2,1\n2,3,1\n3,4,1\n'},
        'citeulike-a',
    ),
    Case(
        'no data folder', '--config.data.name=ml-100k --data_dir=no', 'no is no'
    ),
    Case(
        'a published split of a set that has none',
        f'--config.data.name=ml-100k {_COLD}',
        "config.data.split is 'published-cold', but ml-100k comes without",
    ),
    Case(
        'a time split without times',
        '--config.data.name=citeulike-a --config.data.split=time '
        '--data_dir=data',
        "config.data.split is 'time', but",
        data='citeulike-a',
    ),
    Case(
        'NaN in a file of factors',
        '--config.teacher.user_file=nan.txt',
        'run.py: nan.txt: row 1 (from 0) holds nan in column 1; factors must',
        {'nan.txt': '0 1 2 3\n0 nan 2 3\n'},
    ),
    Case(
        'factors of others',
        '--config.teacher.user_file=two.txt',
        'run.py: two.txt has 2 rows of factors, but there are 60 users',
        {'two.txt': '0 1 2 3\n4 5 6 7\n'},
    ),
    _field('teacher.item_file=no.npz', 'no.npz does not exist'),
    _field('teacher.rank=5', 'factors.npz: rows of 4 numbers, expected 5'),
    _field('teacher.user_file=', 'config.teacher.user_file is empty'),
    _field(
        'data.validation=keep_out',
        "config.teacher.source is 'file' and config.data.validation is 'keep_",
    ),
    _field('features.item[0].kind=words', "kind is 'words'; it must be one of"),
    # Settings.
    _field(
        'train.batch_sise=512', "no field 'batch_sise'. Did you mean 'batch_si"
    ),
    _field(
        'trian.seed=1', "config has no field 'trian'. Did you mean 'train'?"
    ),
    _field('train=5', 'config.train is a section; set its fields'),
    _field('features.item=5', 'config.features.item is a list; set fields of'),
    _field(
        'features.item[7].rank=5', 'config.features.item has 2 entries; [7]'
    ),
    _field(
        'train.batch_size=abc',
        '--config.train.batch_size=abc: expected a whole',
    ),
    _field(
        'train.batch_size=1.5',
        '--config.train.batch_size=1.5: expected a whole',
    ),
    _field(
        'train.learning_rate=fast', 'learning_rate=fast: expected a number.'
    ),
    _field(
        'train.learning_rate=nan', 'learning_rate is nan; it must be a finite'
    ),
    _field('train.seed', '--config.train.seed has no value; write --config.tr'),
    Case(
        'a forgotten value',
        '--config.train.seed --workdir=run',
        '--config.train.seed has no value; write --config.train.seed=VALUE.',
    ),
    Case(
        'a forgotten folder',
        '--workdir --config.train.seed=1',
        '--workdir has no value; write --workdir=VALUE.',
    ),
    Case(
        'no to a misspelt field',
        '--noconfig.data.dropleaks',
        "config.data has no field 'dropleaks'. Did you mean 'drop_leaks'?",
    ),
    Case(
        'no to a number',
        '--noconfig.train.seed',
        '--noconfig.train.seed: config.train.seed is not true or false; write',
    ),
    _field('objective.teacher=0', 'positive; it is the only loss where'),
    _field('objective.softmax=1', '0 unless objective.pairing is'),
    _field('objective.num_sampled=8', 'it must be 0 where no term uses it;'),
    _field('objective.sampling=epochs', "it must be 'replacement' unless obje"),
    _field('objective.learn_weights', 'it must be False with one term: there'),
    _field('objective.scale_bounds=(5,1)', 'must be two positive numbers, the'),
    _field(
        'objective.pairing=interactions --config.objective.teacher=0 '
        '--config.objective.softmax=1 --config.objective.num_impressions=2',
        'config.objective.num_impressions is 2, but no user of synthetic with',
        'impressions of likes alone',
    ),
    _field('train.accumulate=7', 'train.num_steps'),
    _field('train.freeze=user', 'train.freeze'),
    _field('data.cold_item_share=0', 'nothing is held out and nothing could'),
    _field(
        'data.cold_item_share=0.00001',
        'this holds out 0 for each of test and validation',
    ),
    _field('data.drop_leaks=maybe', 'drop_leaks=maybe: expected true or false'),
    _field(
        'model.hidden=(8,"a")', "config.model.hidden[1] is 'a'; it must be a"
    ),
    _field(
        'dropout.item_rate=1.2', 'config.dropout.item_rate is 1.2; it must be'
    ),
    _field('data.seed=-1', 'config.data.seed is -1; it must be from 0 to'),
    _field('train.seed=-1', 'config.train.seed is -1; it must be from 0 to'),
    _field(
        'train.optimizer=adm',
        "lamb, lion, rmsprop, sgd. Did you mean 'adam'?",
    ),
    _field('model.tower=papr', "modern, groups. Did you mean 'paper'?"),
    _field('model.group_hidden=(8,)', "model.tower is 'paper'; 'groups' reads"),
    _field(
        'model.tower=groups --config.model.group_hidden=8,0',
        'config.model.group_hidden is 0; it must be at least 1',
    ),
    _field('profile=layr6', "layer6, easyrec. Did you mean 'layer6'?"),
    _field('profile=layer6 --config.train.decay_every=0', 'decay_every is 0'),
    _field(
        'profile=easyrec --config.train.batch_size=64',
        'config.objective.pointwise is 1.0, but every training row of',
    ),
    _field('features.statistics=7', 'the pairs of synthetic have no times'),
    _field('features.statistics=0,-1', 'config.features.statistics is -1'),
    _field('features.statistics=0,0', '(0, 0); it must be distinct'),
    _field('features.statistics_smoothing=9', 'features.statistics is empty'),
    _field('dropout.rescale_kept=often', 'kept=often: expected true or false'),
    _field('objective.pairing=block', "interactions. Did you mean 'blocks'?"),
    _field(
        'data.name=citeulike-b', "config.data.name is 'citeulike-b'; it must"
    ),
    _field('evaluation.baselines=("popular",)', "Did you mean 'popularity'?"),
    _field(
        'train.select_by=cold_item/ndcg@50 --config.teacher.source=als '
        '--config.data.validation=keep_out',
        "Did you mean 'cold_item/ndcg@5'?",
    ),
    _field(
        'train.patience=2 --config.train.eval_every=0', 'eval_every is 0; it'
    ),
    _field('mesh.model=3', 'config.mesh.model is 3, but there are 8 devices'),
    _field('features.item[1].column=tagz', "'tagz'"),
    _field('features.item[1].rank=5000', 'config.features.item[1].rank'),
    Case(
        'a sparse part without sparse content',
        '--config.model.sparse.enabled=true '
        '--config.features.item[0].kind=numeric '
        '--config.features.item[0].column=year '
        '--config.features.item[1].sparse=false',
        'config.model.sparse.enabled needs sparse content of the items',
    ),
    Case(
        'selection without validation',
        '--config.train.select_by=warm/mrr',
        'there are no validation sets',
    ),
    # Arguments.
    Case(
        'an unknown flag',
        '--workdirr=x',
        "Unknown command line flag 'workdirr'. Did you mean 'workdir'? See",
    ),
    Case(
        'no to a folder',
        '--noworkdir',
        '--noworkdir: write --workdir=VALUE.',
    ),
    Case(
        'neither yes nor no', '--profile=x', '--profile=x: expected true or f'
    ),
    Case('a file of no flags', '--flagfile=no', 'run.py: --flagfile: '),
    Case(
        'an empty folder', '--data_dir=', '--data_dir is empty; name a folder'
    ),
    Case('no run folder', '--workdir=', '--workdir is empty; name a folder'),
    Case(
        'a missing folder of data for a run that needs it no more',
        '--data_dir=no',
        '--data_dir=no is no folder; give the folder that holds one',
        run=True,
    ),
    Case(
        'a process that is not one of them',
        '--num_processes=2 --process_id=5 --coordinator=localhost:1',
        '--process_id=5: of 2 processes it must be from 0 to 1.',
    ),
    *(
        Case(
            f'process 0 at {address}',
            f'--num_processes=2 --process_id=0 --coordinator={address}',
            f'--coordinator={address}: expected HOST:PORT of process 0',
        )
        for address in ('foo', 'foo:abc', 'foo:0', 'foo:65536', ':1')
    ),
    Case(
        'another way to find processes',
        '--distributed=maybe',
        '--distributed=maybe: it must be one of auto, on, off.',
    ),
    Case(
        'one of several that is alone',
        '--distributed=off --num_processes=2 --process_id=0 --coordinator=a:1',
        'leave out the one or the others.',
    ),
    # What a command does not read.
    Case(
        'training of suites',
        '--suite=speed',
        'train does not read that; leave out --suite.',
    ),
    Case(
        'evaluation with an experiment and data',
        'evaluate --config=tiny.py --data_dir=. --noprofile',
        'evaluate takes everything from the run folder; leave out --data_dir, '
        '--profile, --config.',
        run=True,
    ),
    Case(
        'description with an experiment',
        'describe --config=tiny.py --noconfig.data.drop_leaks',
        'describe takes everything from the run folder; leave out --config, '
        '--config.data.drop_leaks.',
        run=True,
    ),
    Case(
        'comparisons of an experiment',
        'bench --config.train.num_steps=4 --profile',
        'bench does not read that; leave out --profile, --config.train.num_s',
    ),
    Case(
        'training of several experiments',
        '--experiments=quickstart --check',
        'train does not read that; leave out --experiments, --check.',
    ),
    Case(
        'a table of one experiment with settings',
        'reproduce --config=tiny.py --k=5 --config.train.num_steps=4',
        'reproduce does not read that; leave out --k, --config, --config.train',
    ),
    # What reproduce is asked for.
    Case(
        'an unknown experiment of the list',
        'reproduce --experiments=quickstart,citeulike_cold',
        'experiment; there are all, quickstart, ',
    ),
    Case(
        'a comparison in the list',
        'reproduce --experiments=movielens_losses',
        '--experiments=movielens_losses: it is a comparison, with seeds and a '
        'table of its own. Leave it out, or train it: python run.py --config=e',
    ),
    Case('no experiment of the list', 'reproduce --experiments=', 'is empty'),
    *(
        Case(
            f'seeds {seeds!r}',
            f'reproduce --seeds={seeds}',
            f'--seeds={seeds}: expected whole numbers from 0 on, each once, su',
        )
        for seeds in ('', '1,x', '0,,1', '-1', '0.5', '2,2')
    ),
    Case(
        'a seed out of range',
        'reproduce --experiments=quickstart --seeds=99999999999',
        'config.train.seed is 99999999999; it must be below 2147483648.',
    ),
    Case(
        'a table without data',
        'reproduce --experiments=movielens_cold_item --data_dir=. '
        '--output=R.md',
        'ml-100k does not exist. ',
    ),
    *(
        Case(f'a table into {output}', f'reproduce --output={output}', message)
        for output, message in (
            ('tiny.py', 'the table is Markdown; let its name end in .md.'),
            ('none/R.md', 'there is no folder none. Make it, or correct the'),
            ('/proc/R.md', '--output=/proc/R.md cannot be written: '),
        )
    ),
    Case(
        'a check without a table',
        'reproduce --check --output=R.md',
        '--check: there is no table at R.md to compare with; name another --ou',
    ),
    Case(
        'an unknown command', 'trian', "'trian' is no command; there are train"
    ),
    Case('too many commands', 'train evaluate', 'Unknown arguments evaluate;'),
    Case('half of a cluster', '--num_processes=2', 'belong together; give all'),
    Case('no number', '--num_processes=two', '--num_processes=two'),
    # Experiment files.
    Case(
        'no experiment',
        '--config=no.py',
        '--config=no.py: there is no such file',
    ),
    _experiment('a syntax error', 'x = 1\ny = (\n', ':2: SyntaxError: '),
    _experiment('a file that is no text', b'\xff\xfe', ':1: SyntaxError: '),
    _experiment(
        'no get_config', 'x = 1\n', ' defines no function get_config().'
    ),
    _experiment(
        'another type',
        'def get_config():\n  return {}\n',
        ': get_config() returns dict; it must return',
    ),
    _experiment(
        'an experiment that exits',
        'import sys\nsys.exit(3)\n',
        ':2: SystemExit: 3',
    ),
    _experiment(
        'an experiment that raises',
        'def get_config():\n  return 1 / 0\n',
        ':2: ZeroDivisionError: division by zero',
    ),
    _experiment(
        'an experiment with a misspelt field',
        'from dropoutnet_jax import config\n'
        'def get_config():\n'
        '  return config.Config(train=config.TrainConfig(batch_sise=1))\n',
        ':3: TypeError: TrainConfig.__init__() got an unexpected keyword',
    ),
    Case(
        'a profile by name alone',
        '--config=mine.py',
        "config.profile is 'layer6', but no field has what that profile sets",
        {
            'mine.py': (
                'from dropoutnet_jax import config\n'
                'def get_config():\n'
                "  return config.Config(profile='layer6')\n"
            )
        },
    ),
    Case(
        'a field that an experiment makes up',
        '--config=mine.py',
        "config.train has no field 'batch_sise'. Did you mean 'batch_size'?",
        {
            'mine.py': (
                'from dropoutnet_jax import config\n'
                'def get_config():\n'
                '  cfg = config.Config()\n'
                '  cfg.train.batch_sise = 1\n'
                '  return cfg\n'
            )
        },
    ),
    # Run folders.
    Case(
        'another experiment',
        '--config.model.rank=3',
        'run holds another experiment; it differs in model.rank (4 there, 3',
        run=True,
    ),
    Case(
        'a folder that is no run',
        '--config.model.rank=4',
        'run is no run folder: it has no config.json, but it holds thesis.txt',
        {'run/thesis.txt': 'all of it'},
    ),
    Case(
        'a sweep into a folder of something else',
        '--config.sweep.values=(0.,)',
        'run holds thesis.txt, which is no part of a sweep over dropout.item_r',
        {'run/thesis.txt': 'all of it'},
    ),
    Case(
        'seeds into a folder of a single run',
        '--config.sweep.field=train.seed --config.sweep.values=(0,1)',
        'run holds checkpoints, config.json, features.json, which is no part',
        run=True,
    ),
    Case(
        'evaluation of a whole sweep',
        'evaluate --workdir=.',
        '. is no run folder: ./config.json: No such file or directory. It '
        'holds 1 runs of a sweep or a comparison; name one of them, such as '
        '--workdir=run.',
        run=True,
    ),
    Case(
        'a folder with a temporary file of somebody',
        '--config.features.item[0].column=nope',
        'run is no run folder: it has no config.json, but it holds thesis.tmp.',
        {'run/thesis.tmp': 'all of it'},
    ),
    Case(
        'half a seed',
        '--config.sweep.field=train.seed --config.sweep.values=(0.5,)',
        'config.train.seed is 0.5; it must be a whole number',
    ),
    Case(
        'a folder below a file',
        '--workdir=tiny.py/run',
        'tiny.py/run cannot be written: Not a directory',
    ),
    Case('a file as folder', '--workdir=tiny.py', 'tiny.py cannot be written'),
    Case('a folder of the system', '--workdir=/proc/none', 'cannot be written'),
    Case('evaluation of nothing', 'evaluate', 'run is no run folder'),
    Case(
        'evaluation below a file',
        'evaluate --workdir=tiny.py/x',
        'Not a direct',
    ),
    Case('description of nothing', 'describe', 'run is no run folder'),
    Case(
        'evaluation with settings',
        'evaluate --config.evaluation.cutoffs=(7,)',
        'leave out --config.evaluation.cutoffs',
        run=True,
    ),
    Case(
        'a run without checkpoints',
        'evaluate',
        'run has no checkpoints; train it first',
        {'run/checkpoints': None},
        run=True,
    ),
    Case(
        'damaged settings',
        'evaluate',
        'run/config.json is damaged: ',
        {'run/config.json': '{"name": "ti'},
        run=True,
    ),
    Case(
        'settings of another type',
        'evaluate',
        'run/config.json is damaged: config.train is 3; expected a section',
        {'run/config.json': '{"train": 3}'},
        run=True,
    ),
    Case(
        'settings of another version',
        'evaluate',
        "has the field 'tower', which this version does not know",
        {'run/config.json': '{"train": {"tower": 3}}'},
        run=True,
    ),
    Case(
        'damaged data',
        'evaluate',
        'run/problem.npz is damaged (',
        {'run/problem.npz': b'PK\x03\x04 and no more'},
        run=True,
    ),
    Case(
        'damaged checkpoints',
        'evaluate',
        'cannot be restored',
        {'run/checkpoints/2/default': None, 'run/checkpoints/4/default': None},
        run=True,
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with tiny.py in it."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(os, '_exit', sys.exit)  # ends more than a call here
  command_line.write_experiment(tmp_path)
  return tmp_path


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_mistakes(case, folder, tmp_path_factory):
  if case.data:
    tiny = _TINY[case.data].items()
    command_line.write(folder, {f'data/{case.data}/{k}': v for k, v in tiny})
  if case.run:
    finished = command_line.finished_run(tmp_path_factory)
    shutil.copytree(finished, folder / 'run')
  command_line.write(folder, case.files)
  arguments = case.arguments.split()
  if '--workdir' not in case.arguments and arguments[0] != 'bench':
    arguments.insert(0, '--workdir=run')
  if '--config=' not in case.arguments and not case.arguments.startswith(
      ('evaluate', 'describe', 'reproduce', 'bench')
  ):
    arguments.insert(0, '--config=tiny.py')
  before = command_line.snapshot(folder)
  ended = command_line.call(*arguments)
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(folder) == before
  assert (folder / 'run').exists() == ('run' in before)


def test_there_are_many_cases():
  assert len({case.name for case in CASES}) == len(CASES) >= 80
