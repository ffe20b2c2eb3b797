# SPDX-License-Identifier: Apache-2.0
"""`run.py evaluate --logged`: what it says of a log, and what it refuses."""

import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.exploring import log_value
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving import recommender
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


def _judge(finished, log, *flags):
  """Evaluates lines of JSON: what off_policy.json holds."""
  text = '\n'.join(json.dumps(row) for row in log)
  pathlib.Path('made.jsonl').write_text(text)
  ended = command_line.call(
      'evaluate', '--workdir=run', '--logged=made.jsonl', *flags
  )
  assert (ended.status, ended.err) == (0, ''), ended.err
  return json.loads((finished / 'off_policy.json').read_text())


def _everything(user, items, reward, **more):
  """Each item as often as its chance says: slates of one place."""
  return [
      {
          'user_id': user,
          'item_id': item,
          'rank': 1,
          'propensity': 1 / len(items),
          'reward': reward(item),
          'slate': number,
          **more,
      }
      for number, item in enumerate(items)
  ]


def test_what_the_run_does_not_know_counts_with_weight_0(finished):
  """Were it left out, what it does know would seem to be shown twice."""
  items = [f'item-{n:05d}' for n in range(80)]
  items += [f'fresh {n}' for n in range(80)]
  log = _everything('user-00001', items, lambda x: x.startswith('item'))
  found = _judge(finished, log)
  assert any(
      '80 row(s) show what the run does not' in n for n in found['notes']
  )
  for view in ('place', 'slate'):
    assert found[view]['places'] == 160
    for name in ('ips', 'snips', 'dr', 'mean_weight'):
      assert found[view][name]['value'] == pytest.approx(1), name


def test_how_slates_are_put_together_is_of_no_matter(finished, monkeypatch):
  """Long ones and short ones, a few at a time, of a million items too."""
  rows = write_log('log.jsonl')
  del rows[5:8], rows[100]
  whole = _judge(finished, rows)
  drawn = _judge(finished, rows, '--policy=epsilon', '--seed=3')
  chunks = []
  inner = log_value._chunks

  def count(slate, most):
    for part in inner(slate, most):
      chunks.append(len(np.unique(slate[part])))
      yield part

  monkeypatch.setattr(log_value, '_chunks', count)
  monkeypatch.setattr(log_value, '_SCORES', 80 * 7)
  monkeypatch.setattr(log_value, '_PLACES', 12)
  other = _judge(finished, rows)
  for view in ('place', 'slate'):
    # The scores that it has differ in their last digits.
    one, two = other[view].pop('dr'), whole[view].pop('dr')
    assert one == pytest.approx(two, rel=1e-5)
  assert other == whole
  assert max(chunks) == 3 and sum(chunks) == 120
  again = _judge(finished, rows, '--policy=epsilon', '--seed=3')
  assert again['place']['ips'] == drawn['place']['ips']


def test_slates_of_nobody_are_left_out(finished):
  items = [f'item-{n:05d}' for n in range(80)]
  log = _everything('user-00001', items, lambda _: 1)
  log += _everything(None, items[:9], lambda _: 0)
  found = _judge(finished, log)
  assert found['place']['ips']['value'] == pytest.approx(1)
  assert (found['places'], found['users']) == (80, 1)
  assert any(
      '9 row(s) without user_id are left out' in n for n in found['notes']
  )


def test_a_policy_is_judged_by_a_log_of_all_that_can_happen(finished):
  """Of places that show everything once, IPS is the value itself."""
  users = [f'user-{n:05d}' for n in range(30)]
  items = [f'item-{n:05d}' for n in range(80)]
  value = lambda item: (int(item[-2:]) % 7) / 7
  log = sum((_everything(user, items, value) for user in users), [])
  problem = problem_lib.load(str(finished))
  likes = problem.likes()[:30].toarray() > 0
  row = {name: n for n, name in enumerate(problem.item.ids.tolist())}
  at = [row[item] for item in items]
  left = ~likes[:, at]
  uniform = (left * [value(x) for x in items]).sum(axis=1) / left.sum(axis=1)
  found = _judge(finished, log, '--policy=epsilon', '--epsilon=1', '--seed=1')
  assert 'policy epsilon epsilon=1' in found['target']
  assert found['place']['ips']['value'] == pytest.approx(uniform.mean())
  assert found['place']['mean_weight']['value'] == pytest.approx(1)
  greedy = _judge(finished, log)['place']
  same = _judge(finished, log, '--policy=greedy')['place']
  assert same == greedy
  mixed = _judge(finished, log, '--policy=epsilon', '--epsilon=0.25')['place']
  want = 0.25 * uniform.mean() + 0.75 * greedy['ips']['value']
  assert mixed['ips']['value'] == pytest.approx(want)
  assert mixed['dr']['value'] == pytest.approx(want, abs=0.02)


def test_thompson_is_judged_by_beliefs(finished):
  """Of places that show everything once, some of which it never would."""
  items = [f'item-{n:05d}' for n in range(80)]
  log = _everything('user-00003', items, lambda _: 1)
  flags = ('--policy=thompson', '--seed=1', '--epsilon=0.5')
  found = _judge(finished, log, *flags)
  assert 'policy thompson epsilon=0.5 spread=belief' in found['target']
  assert found['place']['mean_weight']['value'] == pytest.approx(1)
  assert found['place']['ips']['value'] == pytest.approx(1)
  assert (finished / 'belief.json').exists()


@pytest.mark.parametrize('has_new', [True, False])
def test_a_policy_is_judged_by_the_pools_that_it_draws_from(
    finished, monkeypatch, has_new
):
  """Which a slate that is long enough shows whole."""
  monkeypatch.setattr(explorer_lib, 'POOL', 5)
  monkeypatch.setattr(explorer_lib, 'NEW', 3)
  if not has_new:
    all_known = lambda self, items: np.ones(len(items), bool)
    monkeypatch.setattr(recommender.Ranker, 'is_trained', all_known)
  policy = ('--policy=epsilon', '--epsilon=1', '--seed=2')
  ended = command_line.call(
      'recommend', '--workdir=run', '--output=pools.jsonl', '--k=5', *policy
  )
  assert ended.status == 0, ended.err
  lines = pathlib.Path('pools.jsonl').read_text().splitlines()
  # The chance of the last of five places tells how many are left.
  rows = [row for row in map(json.loads, lines) if row['rank'] == 5]
  sizes = {row['user_id']: 4 + round(1 / row['propensity']) for row in rows}
  items = [f'item-{n:05d}' for n in range(80)]
  log = sum((_everything(user, items, lambda _: 1) for user in sizes), [])
  found = _judge(finished, log, *policy)['place']
  assert found['mean_weight']['value'] == pytest.approx(1)
  # All in a pool have the same weight; so many of the places have one.
  effective = sum(80 * 1.0 for _ in sizes) ** 2
  effective /= sum(80**2 / size for size in sizes.values())
  assert found['effective'] == pytest.approx(effective)
  assert max(sizes.values()) == 8 if has_new else {*sizes.values()} == {5}


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
    'an item twice': Case(
        _HEAD + _GOOD + 'user-00001,item-00002,2,0.5,0\n',
        'row 2 are of the same user, and of the same item_id; 1 place(s) show '
        'an item again, which a slate does not. If it is of several slates, ',
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
    'nobody named': Case(
        _HEAD + ',item-00001,1,0.5,0\n', 'log.csv: no row has a user_id. A log'
    ),
    'nobody at all': Case(
        '{"user_id": null, "item_id": "item-00001", "rank": 1, "propensity": 1,'
        ' "reward": 0}\n',
        'log.jsonl: no row has a user_id.',
        '--logged=log.jsonl',
    ),
    'a policy that is none': Case(
        _HEAD + _GOOD,
        '--policy=thompsn: it must be one of greedy, epsilon, ucb, thompson. '
        "Did you mean 'thompson'?",
        '--logged=log.csv --policy=thompsn',
    ),
    'no policy for a number': Case(
        _HEAD + _GOOD,
        '--width is of a policy; name one with --policy',
        '--logged=log.csv --width=2',
    ),
    'a policy without a log': Case(
        None, '--policy is read beside --logged', '--policy=greedy'
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
    name = 'log.jsonl' if case.log.startswith('{') else 'log.csv'
    (folder / name).write_text(case.log)
  before = command_line.snapshot(run)
  ended = command_line.call('evaluate', '--workdir=run', *case.flags.split())
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(run) == before


def test_logged_belongs_to_evaluate(folder):
  shutil.rmtree(folder / 'run', ignore_errors=True)
  ended = command_line.call('--config=tiny.py', '--logged=log.csv')
  command_line.check(ended, 2, 'train does not read that; leave out --logged.')
