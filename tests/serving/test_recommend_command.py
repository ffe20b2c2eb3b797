# SPDX-License-Identifier: Apache-2.0
"""`python run.py recommend`: a file of lists, or one message and no file."""

import csv
import gc
import json
import pathlib
import shutil
from typing import NamedTuple
import weakref

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet
import pytest

from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import from_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_blocks
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import row_sources
from dropoutnet_jax.serving import told_files
from tests import command_line


def _recommend(*flags: str) -> command_line.Ended:
  return command_line.call('recommend', '--workdir=run', *flags)


def _rows(path: pathlib.Path | str) -> list[dict[str, str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_lists_of_all_users(shop, here):
  (here / 'lists.csv').write_text('of yesterday')
  ended = _recommend('--output=lists.csv', '--k=4')
  assert (ended.status, ended.err) == (0, '')
  rows = _rows('lists.csv')
  assert len(rows) == 36 * 4
  lines = ended.out.splitlines()
  assert lines[-2:] == [
      '144 rows for 36 users, the best of 30 items by the model after step 2.',
      'Written to lists.csv',
  ]
  assert lines[0].strip() == 'the first 5 of 36 users'
  shown = next(line.split() for line in lines if line.strip().startswith('u0'))
  first = [row for row in rows if row['user_id'] == 'u0']
  assert shown[1::2] == [row['item_id'] for row in first]
  assert shown[2] == f'({float(first[0]["score"]):.3g})'
  train = shop.model.problem.split.train
  seen = {(f'u{u}', f'i{i}') for u, i in zip(train.user, train.item)}
  assert not seen & {(row['user_id'], row['item_id']) for row in rows}
  assert sorted(path.name for path in here.iterdir()) == ['lists.csv', 'run']
  ended = _recommend('--output=again.csv', '--k=30', '--noexclude_seen')
  assert not ended.status and len(_rows('again.csv')) == 36 * 30


def test_the_recall_of_the_results(shop, here):
  """Of items without training pairs, from the files alone."""
  held_out = shop.model.problem.split.evaluation['cold_item']
  users = sorted({f'u{n}' for n in held_out.user})
  (here / 'users.csv').write_text('\n'.join(['user_id', *users]))
  ended = _recommend(
      '--output=lists.csv', '--users=users.csv', '--candidates=new', '--k=5'
  )
  assert not ended.status, ended.err
  relevant: dict[str, set[str]] = {}
  for user, item in zip(held_out.user, held_out.item):
    relevant.setdefault(f'u{user}', set()).add(f'i{item}')
  lists: dict[str, list[str]] = {}
  for row in _rows('lists.csv'):
    lists.setdefault(row['user_id'], []).append(row['item_id'])
    assert int(row['rank']) == len(lists[row['user_id']])
  assert list(lists) == users
  recall = [len(relevant[u] & set(lists[u])) / len(relevant[u]) for u in users]
  methods = shop.results()['splits']['cold_item']['methods']
  expected = methods['model']['recall@5']
  assert np.mean(recall) == pytest.approx(expected, abs=1e-6)


def test_new_users_new_items_and_their_first_clicks(here):
  (here / 'users.csv').write_text(
      'user_id,region,about\nnew,north,loud music\nu3,,\n'
  )
  (here / 'items.csv').write_text(
      'item_id,tags,image\nfresh,word1|word2,1|0|-1\ni4,,\ni5,,\n'
  )
  (here / 'clicks.csv').write_text(
      'user_id,item_id\nnew,i7\nnew,i4\nu3,fresh\nx,i1\n'
  )
  ended = _recommend(
      '--output=lists.csv',
      '--users=users.csv',
      '--items=items.csv',
      '--interactions=clicks.csv',
  )
  assert (ended.status, ended.err) == (0, '')
  rows = {(row['user_id'], row['item_id']) for row in _rows('lists.csv')}
  assert {item for user, item in rows if user == 'new'} == {'fresh', 'i5'}
  assert ('u3', 'fresh') not in rows
  assert ended.out.splitlines()[:7] == [
      'users.csv: 2 user(s), 1 of them new to the run.',
      'users.csv: region, about of users of the run are not read again; these '
      'keep what they had in training.',
      "users.csv has no column 'age', which features read: it counts as "
      'missing.',
      "users.csv has no column 'visits', which features read: it counts as "
      'missing.',
      'items.csv: 3 item(s), 1 of them new to the run.',
      'items.csv: tags, image of items of the run are not read again; these '
      'keep what they had in training.',
      'clicks.csv: 1 row(s) are left out, whose user_id (1 of them, such as x) '
      'is not among the users that are asked about or tells of a candidate.',
  ]


def test_candidates_are_told_who_likes_them(shop, here):
  """Users of the run, asked about or not; a row of label 0 tells nothing."""
  (here / 'users.csv').write_text('user_id\nu3\nu5\n')
  (here / 'items.csv').write_text('item_id,tags\nfresh,word1|word2\ni4,\n')
  (here / 'clicks.csv').write_text(
      'user_id,item_id,label\nu8,fresh,1\nu9,fresh,1\nu3,fresh,0\n'
      'u9,i4,0\nnobody,fresh,1\n'
  )
  flags = ('--users=users.csv', '--items=items.csv')
  for name, more in (('bare', ()), ('told', ('--interactions=clicks.csv',))):
    ended = _recommend(f'--output={name}.csv', *flags, *more)
    assert (ended.status, ended.err) == (0, '')
  assert 'clicks.csv: 1 row(s) are left out, whose user_id' in ended.out
  bare, told = (
      {(row['user_id'], row['item_id']): float(row['score']) for row in rows}
      for rows in (_rows('bare.csv'), _rows('told.csv'))
  )
  assert bare.keys() - told.keys() == {('u3', 'fresh')}
  library = facade.Recommender(shop.model)
  item = library.embed_items(
      [{'item_id': 'fresh', 'tags': ['word1', 'word2']}],
      {'fresh': ['u8', 'u9']},
  )
  user = library.embed_users(['u5'])
  score = user.dense @ item.dense.T + (user.sparse @ item.sparse.T).toarray()
  assert told['u5', 'fresh'] == pytest.approx(score.item(), rel=1e-4)
  assert abs(told['u5', 'fresh'] - bare['u5', 'fresh']) > 1e-3
  for user in ('u3', 'u5'):
    if (user, 'i4') in bare:
      assert told[user, 'i4'] == bare[user, 'i4']


@pytest.mark.parametrize(
    'clicks, flags',
    [
        ('user_id,item_id\nu8,i4\nu9,i3\n', ()),
        ('user_id,item_id,label\nu8,fresh,0\n', ()),
    ],
    ids=['of other items', 'none is a like'],
)
def test_a_file_that_tells_of_nobody(here, clicks, flags):
  (here / 'users.csv').write_text('user_id\nu3\nu5\n')
  (here / 'items.csv').write_text('item_id,tags\nfresh,word1|word2\n')
  (here / 'clicks.csv').write_text(clicks)
  ended = _recommend(
      '--output=lists.csv',
      '--users=users.csv',
      '--items=items.csv',
      '--interactions=clicks.csv',
      *flags,
  )
  command_line.check(
      ended,
      2,
      'is among the users that are asked about or tells of a candidate',
  )
  assert not (here / 'lists.csv').exists()


@pytest.mark.parametrize('label', ['', ',1'], ids=['likes', 'labels'])
def test_beliefs_and_towers_are_not_told_the_same(
    shop, here, monkeypatch, label
):
  """What beliefs count of new items their towers do not know."""
  (here / 'users.csv').write_text('user_id\nu3\nu5\n')
  (here / 'items.csv').write_text('item_id,tags\nfresh,word1|word2\ni4,\n')
  head = 'user_id,item_id' + (',label' if label else '')
  clicks = f'{head}\nu8,fresh{label}\nu9,fresh{label}\nu7,i4{label}\n'
  if label:
    clicks += 'u6,fresh,0\n'
  (here / 'clicks.csv').write_text(clicks)
  told, tell = [], told_files.with_likes

  def watched(items, pairs, model, which):
    found = tell(items, pairs, model, which)
    told.append(np.diff(found.history.indptr).tolist())
    return found

  monkeypatch.setattr(told_files, 'with_likes', watched)
  ended = _recommend(
      '--output=slates.csv',
      '--users=users.csv',
      '--items=items.csv',
      '--interactions=clicks.csv',
      '--policy=thompson',
      '--spread=belief',
      '--k=2',
  )
  assert (ended.status, ended.err) == (0, '')
  assert shop.model.is_trained(shop.model.items())[4]
  assert told == [[0 if label else 2, 1]]


def test_candidates_by_what_training_had(shop, here):
  _, trained = shop.model.problem.split.train_rows()
  known = {f'i{n}' for n in trained}
  for which in ('known', 'new'):
    ended = _recommend(
        f'--output={which}.csv', f'--candidates={which}', '--k=50'
    )
    assert not ended.status, ended.err
    found = {row['item_id'] for row in _rows(f'{which}.csv')}
    assert (found <= known) == (which == 'known')
    assert (not found & known) == (which == 'new')


def test_slates_by_a_policy_say_their_chances(shop, here):
  flags = ('--policy=thompson', '--epsilon=0.1', '--passes=4', '--k=3')
  flags += ('--spread=masks',)
  try:
    ended = _recommend('--output=slates.csv', *flags)
    assert (ended.status, ended.err) == (0, '')
    rows = _rows('slates.csv')
    assert list(rows[0])[4:] == ['propensity', 'policy']
    assert len(rows) == 36 * 3
    chances = [float(row['propensity']) for row in rows]
    assert min(chances) > 0 and max(chances) <= 1
    assert {row['policy'] for row in rows} == {'thompson epsilon=0.1'}
    notes = ended.out.splitlines()[:2]
    assert notes[0].startswith('This run kept no new items for validation')
    told, _, seed = notes[1].rstrip('.').partition(', drawn with ')
    assert told == 'Slates by thompson epsilon=0.1'
    last = '108 rows for 36 users, slates of 30 items by the model after'
    assert last in ended.out
    kept = json.loads((here / 'run' / 'exploring.json').read_text())
    assert (kept['step'], kept['scale']) == (2, 1.0)
    assert not _recommend('--output=same.csv', seed, *flags).status
    assert _rows('same.csv') == rows
  finally:
    (here / 'run' / 'exploring.json').unlink(missing_ok=True)


def _write_users(path, kind):
  """Old and new users in a format whose parts do not say all types."""
  rows = [
      {'user_id': f'{"u" if n % 3 else "n"}{n}', 'age': 20 + n, 'about': 'loud'}
      for n in range(36)
  ]
  table = pa.Table.from_pylist(rows)
  if kind == 'parquet':
    parquet.write_table(table, path, row_group_size=7)
  elif kind == 'jsonl':
    path.write_text('\n'.join(json.dumps(row) for row in rows))
  else:
    with open(path, 'wb') as file:
      arrow_csv.write_csv(table, file)


@pytest.mark.parametrize('kind', ['parquet', 'jsonl', 'csv'])
def test_blocks_of_users_get_the_lists_of_all(shop, here, monkeypatch, kind):
  """And no block stays when the next one comes, nor do its lists."""
  _write_users(here / f'u.{kind}', kind)
  clicks = [('user_id', 'item_id'), ('n3', 'i1'), ('n3', 'i2'), ('u1', 'i4')]
  clicks = [*clicks, ('u20', 'i9'), ('n30', 'i4'), ('gone', 'i1')]
  (here / 'c.csv').write_text('\n'.join(map(','.join, clicks)))
  flags = (f'--users=u.{kind}', '--interactions=c.csv', '--k=6')
  ended = [_recommend('--output=whole.csv', *flags)]
  monkeypatch.setattr(row_sources, 'BLOCK', 8)
  monkeypatch.setattr(request_blocks, '_BYTES', 256)
  alive: list[weakref.ref] = []
  sizes, most = [], []
  real = recommender_lib.Ranker.user_parts

  def watched(self, users):
    gc.collect()
    most.append(sum(one() is not None for one in alive))
    found = real(self, users)
    alive.extend(map(weakref.ref, (users, users.history, found[0])))
    sizes.append(len(users))
    return found

  monkeypatch.setattr(recommender_lib.Ranker, 'user_parts', watched)
  ended.append(_recommend('--output=blocks.csv', *flags))
  for one in ended:
    assert (one.status, one.err) == (0, ''), one.err
  assert ended[0].out.replace('whole', 'blocks') == ended[1].out
  assert sum(sizes) == 36 and len(sizes) >= 5 and max(sizes) <= 8
  assert max(most) <= 3 and len(alive) == 3 * len(sizes)
  assert _rows('blocks.csv') == _rows('whole.csv')
  # By one call of the library, which has no blocks.
  users, _ = request_files.read_rows(f'u.{kind}', 'user', shop.model)
  told = told_files.Told(
      'c.csv', 'user', shop.model, shop.model.problem.item.ids
  )
  users, met = told.add(users)
  items = shop.model.items()
  which = np.ones(len(items), bool)
  items = told_files.with_likes(items, told.pairs, shop.model, which)
  exclude = shop.model.seen(users, items) + met
  (lists,) = shop.model.recommend(users, items, 6, exclude)
  expected = [
      (users.ids[row], items.ids[place])
      for row, places in enumerate(lists.item)
      for place in places
  ]
  found = [(row['user_id'], row['item_id']) for row in _rows('blocks.csv')]
  assert found == expected and len(found) == 36 * 6


def test_a_user_who_comes_again_in_another_block(here, monkeypatch):
  monkeypatch.setattr(row_sources, 'BLOCK', 2)
  (here / 'u.csv').write_text('user_id\nu1\nu2\nnew\nu1\n')
  ended = _recommend('--output=lists.csv', '--users=u.csv')
  command_line.check(ended, 2, 'u.csv, row 4: u1 occurs more than once. Keep')
  assert not (here / 'lists.csv').exists()


class Case(NamedTuple):
  """A mistake: the flags, and what must be said of it."""

  name: str
  flags: str
  message: str


_OUT = '--output=lists.csv'
CASES = [
    Case(
        'no flags', '', 'recommend needs a run and a file for its lists; writ'
    ),
    Case('no output', '--workdir=run', 'recommend needs a run and a file for'),
    Case('no run', _OUT, 'write python run.py recommend --workdir=RUN --outp'),
    Case(
        'an unknown flag', f'{_OUT} --topk=5', "Unknown command line flag 'to"
    ),
    Case(
        'no folder', f'--workdir=no {_OUT}', 'no is no run folder: no/config.'
    ),
    Case('no words', '--workdir=run --output=', '--output is empty; name a f'),
    Case(
        'no users', f'--workdir=run {_OUT} --users=', '--users is empty; name'
    ),
    Case(
        'an unknown ending',
        '--workdir=run --output=lists.xls',
        '--output=lists.xls: its name does not say the format; let it end in',
    ),
    Case(
        'no folder for the file',
        '--workdir=run --output=no/lists.csv',
        '--output=no/lists.csv: there is no folder no. Make it, or correct',
    ),
    Case(
        'a file of the run',
        '--workdir=run --output=run/results.json',
        '--output=run/results.json is a file of the run; name another one.',
    ),
    Case(
        'over the users',
        '--workdir=run --output=u.csv --users=u.csv',
        '--output=u.csv is a file that is read; name another one.',
    ),
    Case(
        'nothing', f'--workdir=run {_OUT} --k=0', '--k=0: a list has at least'
    ),
    Case(
        'an unknown policy',
        f'--workdir=run {_OUT} --policy=tompson',
        '--policy=tompson: it must be one of greedy, epsilon, ucb, thompson. D',
    ),
    Case(
        'numbers of no policy',
        f'--workdir=run {_OUT} --new_share=0.2',
        '--new_share is of a policy; name one with --policy, such as thompson',
    ),
    Case(
        'no chance',
        f'--workdir=run {_OUT} --policy=ucb --epsilon=1.5',
        'epsilon of the policy is 1.5; it is a chance, from 0 to 1.',
    ),
    Case(
        'no quota',
        f'--workdir=run {_OUT} --policy=ucb --new_share=-1',
        'new_share of the policy is -1.0; it is a chance, from 0 to 1.',
    ),
    Case(
        'no passes',
        f'--workdir=run {_OUT} --policy=ucb --passes=0',
        'passes of the policy are 0; they must be 1 to 64.',
    ),
    Case(
        'too many passes',
        f'--workdir=run {_OUT} --policy=ucb --passes=65',
        'passes of the policy are 65; they must be 1 to 64.',
    ),
    Case(
        'no spread',
        f'--workdir=run {_OUT} --policy=ucb --spread=belief_',
        "spread of the policy is 'belief_'; it must be one of belief, masks. "
        "Did you mean 'belief'?",
    ),
    Case(
        'a spread of no policy',
        f'--workdir=run {_OUT} --spread=belief',
        '--spread is of a policy; name one with --policy, such as thompson',
    ),
    Case(
        'over the prior',
        '--workdir=run --output=run/belief.json',
        'run/belief.json is a file of the run; name another one.',
    ),
    Case(
        'no seed',
        f'--workdir=run {_OUT} --policy=ucb --seed=-1',
        'seed of the policy is -1; it must be 0 to 2147483647.',
    ),
    Case(
        'no width',
        f'--workdir=run {_OUT} --policy=ucb --width=-2',
        'width of the policy is -2.0; it is a number of standard deviations',
    ),
    Case(
        'over the calibration',
        '--workdir=run --output=run/exploring.json',
        'run/exploring.json is a file of the run; name another one.',
    ),
    Case(
        'over what a log said',
        '--workdir=run --output=run/off_policy.json',
        'run/off_policy.json is a file of the run; name another one.',
    ),
    Case('no number', f'--workdir=run {_OUT} --k=x', '--k=x: expected a whole'),
    Case(
        'unknown candidates',
        f'--workdir=run {_OUT} --candidates=old',
        '--candidates=old: it must be one of all, new, known.',
    ),
    Case(
        'no candidates',
        f'--workdir=run {_OUT} --items=i.csv --candidates=new',
        '--candidates=new leaves nothing of 1 items: all of them have training',
    ),
    Case(
        'no file of users',
        f'--workdir=run {_OUT} --users=no.csv',
        "--users is 'no.csv', where there is no file (from the folder",
    ),
    Case(
        'a format nobody knows',
        f'--workdir=run {_OUT} --users=run/.lock',
        'its name does not say the format; let it end in one of .parquet, ',
    ),
    Case(
        'users twice',
        f'--workdir=run {_OUT} --users=u.csv',
        "u.csv: 1 user_id occur more than once, such as 'u1' (u.csv, row 1 and",
    ),
    Case(
        'clicks of nobody',
        f'--workdir=run {_OUT} --interactions=c.csv',
        'c.csv: no item_id (1 of them, such as j1) is among the items of the r',
    ),
    Case(
        'other settings',
        f'{_OUT} --workdir=run --data_dir=. --config=x.py --config.name=other',
        'recommend takes everything from the run folder; leave out --data_dir, '
        '--config, --config.name.',
    ),
    Case(
        'several processes',
        f'--workdir=run {_OUT} --num_processes=2 --process_id=0',
        'run folder, in one process; leave out --num_processes, --process_id.',
    ),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_mistakes(case, here, shop):
  trained = shop.model.problem.split.train_rows()[1][0]
  command_line.write(
      here,
      {
          'x.py': command_line.EXPERIMENT,
          'u.csv': 'user_id\nu1\nu1\n',
          'i.csv': f'item_id\ni{trained}\n',
          'c.csv': 'user_id,item_id\nu1,j1\n',
      },
  )
  before = command_line.snapshot(here)
  ended = command_line.call('recommend', *case.flags.split())
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(here) == before


@pytest.mark.parametrize('command', ['train', 'evaluate', 'describe', 'bench'])
def test_other_commands_do_not_read_its_flags(command, here):
  flags = ('--output=x.csv', '--noexclude_seen', '--k=3', '--users=u.csv')
  ended = command_line.call(command, *flags)
  listed = '--exclude_seen, --k, --output, --users'
  command_line.check(ended, 2, 'leave out --')
  assert set(listed.split(', ')) <= set(
      ended.err.rstrip('.\n').split('leave out ')[1].split(', ')
  )


def test_a_run_without_checkpoints(shop, tmp_path, monkeypatch):
  """And one with a folder for them, in which there is nothing yet."""
  run = tmp_path / 'half'
  shutil.copytree(shop.run, run)
  output = str(tmp_path / 'lists.csv')
  shutil.rmtree(run / 'checkpoints')
  for message in ('has no checkpoints; train', 'has no whole checkpoint yet'):
    with pytest.raises(from_files.errors.UserError, match=message):
      from_files.answer(str(run), from_files.Request(output))
    (run / 'checkpoints').mkdir(exist_ok=True)
  assert not pathlib.Path(output).exists()
