# SPDX-License-Identifier: Apache-2.0
"""Beliefs of a service: what slates and interactions make of them."""

import numpy as np
import pytest

from dropoutnet_jax.exploring import belief_file
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.serving import believer as believer_lib

_THOMPSON = {'kind': 'thompson', 'passes': 8, 'seed': 5}
_UNIFORM = {'kind': 'epsilon', 'epsilon': 1.0}


@pytest.fixture(name='folder')
def fixture_folder(shop, tmp_path, monkeypatch):
  """Where the explorer of the service finds a prior, and keeps one."""
  rank = shop.model.cfg.model.rank
  directions = (5 * np.eye(rank)[:, :2]).tolist()
  fitted = belief_file.Fitted(shop.model.step, 0.05, -1.0, 1.0, 0.5, directions)
  belief_file.write(str(tmp_path), fitted)
  init = believer_lib.Believer.__init__
  monkeypatch.setattr(
      believer_lib.Believer,
      '__init__',
      lambda self, ranker, workdir: init(self, ranker, str(tmp_path)),
  )
  return tmp_path


def _slates(running, *users, k=3, **asked):
  return running.post('/recommend', users=list(users), k=k, **asked)['lists']


def _belief(running, *items):
  observed = running.service.showing._remembered.observed()
  return observed.of(list(items))


def _width(running, item):
  """Of the log-odds of a user who is nobody in particular: of the level."""
  seen = np.eye(3)[2:]
  return posterior.deviation(_belief(running, item), seen)[0, 0]


def test_an_item_that_is_shown_in_vain_sinks_and_a_liked_one_rises(
    start, folder
):
  path = folder / 'state.sqlite'
  with start(path) as running:
    new = running.lists({'id': 'u1'}, candidates='new')[0]
    for name in new[2:]:
      running.client.delete(f'/items/{name}')
    vain, liked = new[:2]
    assert not _belief(running, vain, liked).mean.any()
    fans = [f'fan{n}' for n in range(30)]
    for begin in range(0, 30, 10):
      users = [{'id': name} for name in fans[begin : begin + 10]]
      asked = dict(k=2, candidates='new', policy=_UNIFORM)
      _slates(running, *users, {}, **asked)
    pairs = [{'user': name, 'item': liked} for name in fans[:20]]
    running.post('/interactions', interactions=pairs)
    pairs = [{'user': name, 'item': vain, 'label': 0} for name in fans[:5]]
    running.post('/interactions', interactions=pairs)
    found = _belief(running, vain, liked)
    assert found.mean[0, 2] < 0 < found.mean[1, 2]
    assert not found.mean[:, :2].any()  # the towers are told
    assert _width(running, vain) < 0.8 and _width(running, liked) < 0.8
    score = lambda item: np.mean(
        [
            x['items'][0]['id'] == item
            for x in _slates(
                running,
                *[{'id': f'other{n}'} for n in range(5)],
                k=1,
                candidates='new',
                policy={'kind': 'ucb', 'width': 0},
            )
        ]
    )
    assert score(liked) == 1
    log = running.service.showing._state.shown(0, 999)
    assert len(log) == 66 + 5  # what was asked last is an impression too
    counts = len(running.service.showing._remembered.observed())
    assert counts == len(log)
    found = _belief(running, vain, liked)
  with start(path) as running:  # as after a kill: all is in the file
    again = _belief(running, vain, liked)
    for one, other in zip(again, found, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)
    # A like that is taken back is none, and other numbers are not read.
    pairs = [{'user': name, 'item': liked, 'label': 0} for name in fans]
    running.post('/interactions', interactions=pairs)
    assert _belief(running, liked).mean[0, 2] < found.mean[1, 2]
  kept = belief_file.read(str(folder), 2)
  assert kept is not None
  turned = np.array(kept.directions)[::-1].tolist()
  belief_file.write(
      str(folder), belief_file.Fitted(2, 0.05, -1.0, 1.0, 0.5, turned)
  )
  with start(path) as running:
    precision = _belief(running, vain).precision[0]
    np.testing.assert_allclose(precision[:2], np.eye(3)[:2])
    assert precision[2, 2] > 1.1


def test_without_a_prior_the_first_request_makes_one(start, tmp_path):
  with start(tmp_path / 'state.sqlite') as running:
    remembered = running.service.showing._remembered
    (new,) = running.lists({'id': 'u1'}, k=3, candidates='new')
    _slates(running, {'id': 'u1'}, candidates='new', policy=_UNIFORM)
    assert remembered._observed is None
    (one,) = _slates(
        running, {'id': 'u2'}, k=30, candidates='new', policy=_THOMPSON
    )
    assert {*new} <= {item['id'] for item in one['items']}
    assert one['items'][0]['propensity'] <= 1
    # What was shown before it counts for levels, of nobody in particular.
    assert len(remembered.observed()) == 3 + len(one['items'])
    state = running.service.showing._state
    number = state.shown(0, 99)[3][0]
    assert {*state.inputs(0, 99)} == {
        *range(number, number + len(one['items']))
    }
    assert state.shown(3, 1)[0][1].policy == 'thompson spread=belief'


def test_only_what_is_kept_is_believed(start, folder, monkeypatch):
  path = folder / 'state.sqlite'
  with start(path) as running:
    showing = running.service.showing
    monkeypatch.setattr(showing._state, 'kept', 10)
    for _ in range(4):
      _slates(running, {'id': 'u1'}, k=4, candidates='new', policy=_UNIFORM)
    observed = showing._remembered.observed()
    assert len(observed) == len(showing._state.shown(0, 99)) == 10
    names = [name for name in observed._names if name]
    found = observed.of(names)
    liked = showing._state.shown(0, 99)[0][1].item
    running.post('/interactions', interactions=[{'user': 'u1', 'item': liked}])
    after = observed.of(names)
    place = names.index(liked)
    assert after.mean[place, 2] > found.mean[place, 2]
  with start(path) as running:
    again = _belief(running, *names)
    for one, other in zip(again, after, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)


def test_propensities_are_how_often_an_item_is_first(start, folder):
  """Of one draw of beliefs: given the passes, places are drawn from them."""
  with start(folder / 'state.sqlite') as running:
    showing = running.service.showing
    passes = []
    original = showing.explorer.passes

    def keep(*args):
      passes.append(original(*args))
      return passes[-1]

    showing.explorer.passes = keep
    (one,) = _slates(
        running, {'id': 'u3'}, k=1, candidates='new', policy=_THOMPSON
    )
    (first,) = one['items']
    best = passes[0][:, 0].argmax(axis=1)
    counts = np.bincount(best) / len(best)
    assert first['propensity'] in counts[counts > 0]
    assert len(np.flatnonzero(counts)) > 1
