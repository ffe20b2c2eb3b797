# SPDX-License-Identifier: Apache-2.0
"""`run.py evaluate --logged`: what it says of a log, and what it refuses."""

import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from dropoutnet_jax.data import problem as problem_lib
from tests import command_line

_HEAD = 'user_id,item_id,rank,propensity,reward\n'
_GOOD = 'user-00001,item-00002,1,0.5,1\n'


def write_log(path, seed=0, slates=2):
  """Slates of four places, drawn uniformly of 80 items; returns the rows."""
  rng = np.random.default_rng(seed)
  rows = []
  for user in range(60):
    for slate in range(slates):
      for place, item in enumerate(rng.permutation(80)[:4]):
        rows.append(
            {
                'user_id': f'user-{user:05d}',
                'item_id': f'item-{item:05d}',
                'rank': place + 1,
                'propensity': 1 / (80 - place),
                'reward': int(rng.random() < 0.4),
                'slate': f'visit {slate}',
            }
        )
  text = '\n'.join(json.dumps(row) for row in rows)
  pathlib.Path(path).write_text(text)
  return rows


def test_a_log_is_judged_and_the_report_says_so(finished):
  rows = write_log('log.jsonl')
  more = {'user_id': 'nobody', 'slate': 'visit 0', 'rank': 9, 'reward': 0}
  more |= {'item_id': 'item-00001', 'propensity': 1}
  with open('log.jsonl', 'a', encoding='utf-8') as file:
    file.write('\n' + json.dumps(more))
  before = set(command_line.snapshot(finished))
  ended = command_line.call('evaluate', '--workdir=run', '--logged=log.jsonl')
  assert (ended.status, ended.err) == (0, ''), ended.err
  assert 'Written to run/off_policy.json' in ended.out
  found = json.loads((finished / 'off_policy.json').read_text())
  after = set(command_line.snapshot(finished))
  assert after - before == {'off_policy.json', 'off_policy.md'}
  assert (found['places'], found['slates'], found['users']) == (480, 120, 60)
  rewards = [row['reward'] for row in rows]
  assert found['place']['logged']['value'] == pytest.approx(np.mean(rewards))
  slate = found['slate']['logged']['value']
  assert slate == pytest.approx(4 * np.mean(rewards))
  assert any('user_id (1 of them, such as nobody)' in n for n in found['notes'])
  assert any('effective sample' in text for text in found['warnings'])
  text = (finished / 'off_policy.md').read_text()
  assert text in ended.out and 'doubly robust (DR)' in text
  for name in ('index.html', 'report.md'):
    page = (finished / 'report' / name).read_text()
    assert 'What a log says' in page and 'doubly robust (DR)' in page
  # What trained the run is still known.
  assert 'this command made the run' in page.lower()


def test_the_first_places_are_those_of_recommend(finished):
  """A log of this run's own lists is what it would show, place by place."""
  ended = command_line.call(
      'recommend', '--workdir=run', '--output=lists.csv', '--k=3'
  )
  assert ended.status == 0, ended.err
  lines = pathlib.Path('lists.csv').read_text().splitlines()
  head = lines[0] + ',propensity,reward'
  rows = [f'{line},1,{n % 2}' for n, line in enumerate(lines[1:])]
  pathlib.Path('own.csv').write_text('\n'.join([head, *rows]))
  ended = command_line.call('evaluate', '--workdir=run', '--logged=own.csv')
  assert ended.status == 0, ended.err
  found = json.loads((finished / 'off_policy.json').read_text())
  assert found['same'] == 1.0 and not found['notes']
  for view, logged in (('place', 0.5), ('slate', 1.5)):
    for name in ('logged', 'ips', 'snips'):
      assert found[view][name]['value'] == pytest.approx(logged)
    assert found[view]['mean_weight']['value'] == 1.0
  assert found['place']['effective'] == found['places'] == 180


def test_clipped_weights_and_training_items_are_told(finished):
  problem = problem_lib.load(str(finished))
  user, item = problem.split.train.user[0], problem.split.train.item[0]
  write_log('log.jsonl', slates=1)
  row = f'{problem.user.ids[user]},{problem.item.ids[item]},1,0.5,1\n'
  pathlib.Path('met.csv').write_text(_HEAD + row)
  ended = command_line.call('evaluate', '--workdir=run', '--logged=met.csv')
  assert '1 place(s) show what the user has met in training' in ended.out
  ended = command_line.call(
      'evaluate', '--workdir=run', '--logged=log.jsonl', '--clip=10'
  )
  assert ended.status == 0 and 'weights clipped at 10' in ended.out
  found = json.loads((finished / 'off_policy.json').read_text())
  assert found['clip'] == 10 and found['place']['clipped'] > 0


class Case(NamedTuple):
  """A mistake: the log, part of what must be said, other flags."""

  log: str | None
  message: str
  flags: str = '--logged=log.csv'


CASES = {
    'no file': Case(None, "--logged is 'log.csv', where there is no file"),
    'no rows': Case(_HEAD, 'log.csv: no rows, only a header.'),
    'empty': Case('', 'log.csv'),
    'no propensity': Case(
        'user_id,item_id,rank,reward\nuser-00001,item-00002,1,1\n',
        "log.csv: there is no column 'propensity', which every log names.",
    ),
    'no reward': Case(
        'user_id,item_id,rank,propensity\nuser-00001,item-00002,1,1\n',
        "there is no column 'reward'",
    ),
    'propensity of 0': Case(
        _HEAD + _GOOD + 'user-00001,item-00003,2,0,1\n',
        'log.csv, row 2: propensity is 0, as in 1 of 2 rows; it must be the',
    ),
    'propensity above 1': Case(
        _HEAD + 'user-00001,item-00003,2,1.5,1\n',
        'row 1: propensity is 1.5, as in 1 of 1 rows; it must be the chance',
    ),
    'propensity missing': Case(
        _HEAD + _GOOD + 'user-00001,item-00003,2,,1\n',
        'row 2: propensity is missing',
    ),
    'reward of words': Case(
        _HEAD + _GOOD + 'user-00001,item-00003,2,0.5,yes\n',
        "row 2: reward: 'yes' is not a number; it must be a number.",
    ),
    'reward without end': Case(
        _HEAD + _GOOD + 'user-00001,item-00003,2,0.5,1e999\n',
        'row 2: reward is inf',
    ),
    'rank of 0': Case(
        _HEAD + 'user-00001,item-00003,0,0.5,1\n',
        'row 1: rank is 0, as in 1 of 1 rows; it must be a whole number from 1',
    ),
    'half a rank': Case(
        _HEAD + 'user-00001,item-00003,1.5,0.5,1\n', 'row 1: rank is 1.5'
    ),
    'a place twice': Case(
        _HEAD + _GOOD + 'user-00001,item-00003,1,0.5,0\n',
        'row 2 are of the same user, and of the same rank; 1 place(s) are '
        'filled twice. If it is of several slates, tell them apart by a column '
        "'slate'.",
    ),
    'a place of a slate twice': Case(
        _HEAD.replace('\n', ',slate\n')
        + _GOOD.replace('\n', ',a\n') * 2
        + _GOOD.replace('\n', ',b\n'),
        'are of the same user, slate and rank; 1 place(s) are filled twice. '
        'Keep one row for each place.',
    ),
    'no known user': Case(
        _HEAD + 'x,item-00003,1,0.5,0\n',
        'log.csv: the run knows no user_id of it (such as x). Name a log of',
    ),
    'no known item': Case(
        _HEAD + 'user-00001,x,1,0.5,0\n', 'the run knows no item_id of it'
    ),
    'never both': Case(
        _HEAD + 'user-00001,x,1,0.5,0\nx,item-00001,1,0.5,0\n',
        'no row has both a user and an item that the run knows',
    ),
    'a missing user': Case(
        _HEAD + ',item-00001,1,0.5,0\n', 'is missing, as in'
    ),
    'clipped to nothing': Case(
        _HEAD + _GOOD,
        '--clip=0: the largest weight must be a number above 0',
        '--logged=log.csv --clip=0',
    ),
    'a clip alone': Case(None, '--clip is read beside --logged', '--clip=3'),
    'two evaluations': Case(
        _HEAD + _GOOD,
        '--logged and --against are two evaluations; name one',
        '--logged=log.csv --against=run',
    ),
    'no name': Case(None, '--logged is empty; name a file.', '--logged='),
    'no format': Case(None, 'there is no file', '--logged=log'),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_mistakes(case, folder, tmp_path_factory):
  # Which is read alone: nothing is copied but what could be changed.
  run = command_line.finished_run(tmp_path_factory)
  (folder / 'run').symlink_to(run)
  if case.log is not None:
    (folder / 'log.csv').write_text(case.log)
  before = command_line.snapshot(run)
  ended = command_line.call('evaluate', '--workdir=run', *case.flags.split())
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(run) == before


def test_logged_belongs_to_evaluate(folder):
  shutil.rmtree(folder / 'run', ignore_errors=True)
  ended = command_line.call('--config=tiny.py', '--logged=log.csv')
  command_line.check(ended, 2, 'train does not read that; leave out --logged.')
