# SPDX-License-Identifier: Apache-2.0
"""Tags as pieces of their names: by hand, old and new rows, errors."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import features
from dropoutnet_jax.data import name_pieces
from dropoutnet_jax.data import schema

NAMES = ('data-mining', 'Data_Base', 'datamining', '***', 'x')


def _tags(rows, names=NAMES):
  matrix = scipy.sparse.csr_array(np.array(rows, np.float32))
  return schema.Tags(matrix, None if names is None else np.array(names))


def _by_name(tags, row):
  line = tags.matrix[[row]]
  return dict(zip(tags.names[line.indices].tolist(), line.data.tolist()))


def test_words_add_up():
  found = name_pieces.split(
      _tags([[1, 2, 0, 0, 0], [0, 0, 1, 1, 3]]), 'words', 'f'
  )
  assert list(found.names) == sorted(found.names)
  assert _by_name(found, 0) == {'data': 3, 'mining': 1, 'base': 2}
  assert _by_name(found, 1) == {'datamining': 1, 'x': 3}


def test_characters_ignore_case_and_separators():
  found = name_pieces.split(
      _tags([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]),
      'characters',
      'f',
  )
  assert _by_name(found, 0) == _by_name(found, 1)
  runs = _by_name(found, 0)
  assert {'^dat', 'data', 'amin', 'ing$'} < set(runs)
  assert {len(run) for run in runs} == {4}
  assert sum(runs.values()) == len('^datamining$') - 3
  assert _by_name(found, 2) == {'^x$': 1}  # and '***' is nothing


def test_whole_is_the_same():
  tags = _tags([[1, 2, 0, 0, 0]])
  assert name_pieces.split(tags, 'whole', 'f') is tags


@pytest.mark.parametrize('pieces', ['words', 'characters'])
def test_rows_are_encoded_alike_in_any_company(pieces):
  feature = config.Feature('tags', pieces=pieces, idf='none')
  rows = np.random.default_rng(0).integers(0, 3, (12, len(NAMES)))
  table = schema.Entities(np.arange(12), {'tags': _tags(rows)})
  encoder = features.fit([feature], 'row', table, np.arange(8))
  whole = encoder.transform(table).sparse.toarray()
  assert np.any(whole[8:])
  for row in range(12):
    used = np.flatnonzero(rows[row])
    alone = _tags([rows[row, used]], [NAMES[n] for n in used])
    found = encoder.transform(schema.Entities(np.array([99]), {'tags': alone}))
    np.testing.assert_allclose(found.sparse.toarray()[0], whole[row], rtol=1e-6)


def test_a_name_never_seen_shares_its_pieces():
  feature = config.Feature('tags', pieces='characters', idf='none')
  table = schema.Entities(np.arange(2), {'tags': _tags(np.eye(2, 5))})
  encoder = features.fit([feature], 'row', table, np.arange(2))
  new = _tags([[1]], ['Data Mining!'])
  found = encoder.transform(schema.Entities(np.array([7]), {'tags': new}))
  old = encoder.transform(table)
  np.testing.assert_allclose(
      (found.sparse @ old.sparse.T).toarray()[0, 0], 1, rtol=1e-6
  )
  assert encoder.sparse_names[0].startswith('tags (characters)=')


def test_texts_have_pieces_too():
  feature = config.Feature('title', 'text', pieces='characters', idf='none')
  column = np.array(['The networks', 'a network', None], object)
  table = schema.Entities(np.arange(3), {'title': column})
  encoder = features.fit([feature], 'row', table, np.arange(3))
  content = encoder.transform(table).sparse
  assert (content @ content.T).toarray()[0, 1] > 0.5
  assert not content[[2]].nnz


def test_tags_without_names_are_refused():
  feature = config.Feature('tags', pieces='words')
  table = schema.Entities(np.arange(1), {'tags': _tags([[1]], None)})
  with pytest.raises(errors.UserError, match='no names to take apart'):
    features.fit([feature], 'row', table, np.arange(1))


@pytest.mark.parametrize(
    'settings, name',
    [({'pieces': 'letters'}, 'pieces'), ({'kind': 'category'}, 'pieces')],
)
def test_settings_that_do_not_fit(settings, name):
  feature = config.Feature('tags', **({'pieces': 'words'} | settings))
  with pytest.raises(errors.UserError, match=name):
    feature.validate('features.item[0]')
