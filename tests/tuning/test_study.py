# SPDX-License-Identifier: Apache-2.0
"""Studies without training: what is tried next, what is kept, what it took."""

import itertools
import math

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import space
from dropoutnet_jax.tuning import spaces
from dropoutnet_jax.tuning import study as study_lib

pytest.importorskip('optuna')

ENTRIES = [
    space.Float('train.learning_rate', 1e-4, 1e-1, log=True),
    space.Choice('model.hidden', ((8,), (16, 8))),
    space.Choice('train.optimizer', ('adam', 'adamw')),
    space.Float(
        'train.weight_decay', 0.01, 0.1, when=('train.optimizer', 'adamw')
    ),
    space.Int('model.rank', 4, 64, log=True),
    space.Float('dropout.item_rate', 0.0, 0.9, step=0.1),
]
ANY = study_lib.Budget(1000, None)
OWN = {
    'train.learning_rate': 1e-3,
    'model.hidden': (16, 8),
    'train.optimizer': 'adam',
    'model.rank': 32,
    'dropout.item_rate': 0.5,
}


def _open(folder, prune_after=None, seed=0):
  return study_lib.Study(str(folder), ENTRIES, seed, prune_after)


def _value(point):
  """Best at a rate of 0.01 and a small rank."""
  return -abs(math.log10(point['train.learning_rate']) + 2) - (
      point['model.rank'] / 1000
  )


def _work(study, count):
  """Runs so many trials; returns their points."""
  points = []
  for _ in range(count):
    claim = study.claim(ANY, OWN)
    points.append(claim.point)
    study.complete(claim, _value(claim.point))
  return points


def test_the_experiment_comes_first_and_every_point_is_in_the_space(tmp_path):
  points = _work(_open(tmp_path), 14)
  assert points[0] == OWN
  for point in points:
    decays = 'train.weight_decay' in point
    assert decays == (point['train.optimizer'] == 'adamw')
    assert spaces.own_point(made(point), ENTRIES) == point
    rate = point['train.learning_rate']
    assert float(f'{rate:.3g}') == rate  # as a person would write it
  assert len({point['train.learning_rate'] for point in points}) > 10


def made(point):
  """A configuration with these values, whether they go together or not."""
  cfg = config.Config()
  for name, value in point.items():
    section, field = name.split('.')
    setattr(getattr(cfg, section), field, value)
  return cfg


def test_a_study_that_is_opened_for_each_trial_is_the_same_study(tmp_path):
  """The sampler has no state but the journal: 14 trials are past its start."""
  whole = _work(_open(tmp_path / 'whole'), 14)
  parts = [_work(_open(tmp_path / 'parts'), count) for count in (1, 4, 7, 1, 1)]
  assert list(itertools.chain(*parts)) == whole
  assert _work(_open(tmp_path / 'other', seed=1), 3)[1:] != whole[1:3]


def test_a_trial_whose_process_has_ended_is_the_next_one(tmp_path):
  study = _open(tmp_path, prune_after=2)
  _work(study, 2)
  left = study.claim(ANY, OWN)
  study.report(left, 2, 0.25)
  left.lock.close()  # as the system does for a process that is killed
  again = _open(tmp_path, prune_after=2)
  claim = again.claim(ANY, OWN)
  assert (claim.number, claim.point) == (2, left.point)
  assert claim.is_resumed and len(claim.worked) == 2
  again.report(claim, 2, 0.25)  # evaluated once more
  again.complete(claim, 0.25)
  (trial,) = [x for x in again.trials() if x.number == 2]
  assert trial.value == 0.25 and trial.intermediate_values == {2: 0.25}
  after = again.claim(ANY, OWN)
  assert after.number == 3
  after.lock.close()


def test_a_running_trial_belongs_to_its_process(tmp_path):
  one, two = _open(tmp_path), _open(tmp_path)
  budget = study_lib.Budget(2, None)
  first, second = one.claim(budget, OWN), two.claim(budget, OWN)
  assert (first.number, second.number) == (0, 1)
  assert one.claim(budget, OWN) is None and one.others() == 2
  two.complete(second, 1.0)
  one.fail(first, 'it was no good')
  assert one.others() == 0 and one.best().number == 1
  assert one.trials()[0].user_attrs['why'] == 'it was no good'


def test_what_does_worse_than_the_median_is_pruned(tmp_path):
  study = _open(tmp_path, prune_after=10)
  for number in range(5):
    claim = study.claim(ANY, OWN)
    for step in (10, 20, 30):
      assert not study.report(claim, step, 0.1 * number + step / 1000)
    study.complete(claim, 0.1 * number)
  bad = study.claim(ANY, OWN)
  assert not study.report(bad, 10, 0.0)  # the first one decides nothing
  assert study.report(bad, 20, 0.0)
  assert study.report(bad, 20, 0.0)  # asked again after a kill
  study.prune(bad)
  good = study.claim(ANY, OWN)
  assert not study.report(good, 20, 0.9)
  assert study.best().number == 4
  assert not _open(tmp_path).report(good, 30, 0.0)  # which prunes nothing
  study.complete(good, 0.9)


def test_importances_say_what_matters(tmp_path):
  study = _open(tmp_path)
  for number in range(14):
    if number == 3:
      assert not study.importances()  # of so few nothing can be said
    claim = study.claim(ANY, OWN)
    study.complete(claim, math.log10(claim.point['train.learning_rate']))
  found = study.importances()
  assert max(found, key=found.get) == 'train.learning_rate'
  assert sum(found.values()) == pytest.approx(1.0)
  assert set(found) == {e.field for e in ENTRIES if e.when is None}


def test_a_line_that_was_cut_off_is_no_loss(tmp_path):
  _work(_open(tmp_path), 3)
  path = tmp_path / study_lib.FILE
  whole = path.read_bytes()
  path.write_bytes(whole + b'{"op_code": 5, "tri')
  study = _open(tmp_path)
  assert path.read_bytes().startswith(whole + b'{') and len(study.trials()) == 3
  assert b'"tri{' not in path.read_bytes()
  _work(study, 1)
  assert len(_open(tmp_path).trials()) == 4


@pytest.mark.parametrize(
    'content', [b'no\n{}\n', b'{}\n', b'\xff\xfe\n', b'3\n']
)
def test_a_damaged_journal_is_told(tmp_path, content):
  (tmp_path / study_lib.FILE).write_bytes(content)
  with pytest.raises(errors.UserError, match='study.log is damaged'):
    _open(tmp_path)


def test_budgets_count_time_once_where_several_work():
  class Trial:

    def __init__(self, *spans):
      self.user_attrs = {'worked': [list(span) for span in spans]}

  trials = [Trial((100, 160), (400, 430)), Trial((130, 190)), Trial((410, 420))]
  assert study_lib.seconds(trials) == 90 + 30
  assert study_lib.seconds([]) == 0
  assert study_lib.Budget(None, 2.0).is_spent(99, 120.0)
  assert not study_lib.Budget(None, 2.0).is_spent(99, 119.0)
  assert study_lib.Budget(3, 2.0).is_spent(3, 0.0)
  assert not study_lib.Budget(3, None).is_spent(2, 1e9)
