# SPDX-License-Identifier: Apache-2.0
"""Tiny made-up data sets in the layout of each published one."""

from collections.abc import Callable, Mapping
import pathlib

import numpy as np
import pytest

_SPLITS = {  # of the pairs of users.dat below, ids from 1; paper 4 is cold
    'cold/train.csv': '1,1,1\n1,2,1\n2,1,1\n2,3,1\n',
    'cold/test.csv': '2,4,1\n3,4,1\n',
    'cold/test_item_ids.csv': '4\n',
    'warm/train.csv': '1,1,1\n2,1,1\n2,3,1\n3,4,1\n',
    'warm/test.csv': '1,2,1\n2,4,1\n',
    'warm/test_item_ids.csv': '1\n2\n3\n4\n',
}
_CONTENT = '0\n0 0:1 2:3\n0\n0 1:2\n0 0:0.5 2:1\n'  # row 0 is nobody


def _raw_factors(num_rows: int, absent: int) -> bytes:
  """A row 0, and row n of 200 times n, except for one absent row."""
  table = np.repeat(np.arange(num_rows, dtype='<f4')[:, None], 200, axis=1)
  table[absent] = 0
  return table.tobytes()


TINY: dict[str, dict[str, str | bytes]] = {
    'citeulike-a': {
        'users.dat': '2 0 1\n3 0 2 3\n1 3',
        'item-tag.dat': '1 2\n0\n2 0 1\n1 1\n',
        'tags.dat': 'jax\nlearning-à\nalgorithm',
        **_SPLITS,
    },
    'citeulike-t': {
        'users.dat': '1 0\n2 1 2',
        'mult.dat': '2 0:1 2:3\n0\n1 1:2\n',
        'vocabulary.dat': 'alpha\nbêta\ngamma',
    },
    'ml-100k': {
        'u.user': ('1|24|M|technician|85711\n2||F|other|T8H1N\n5|33.5|M||\n'),
        'u.genre': 'unknown|0\nDrama|1\nFilm-Noir|2\n\n',
        'u.item': (
            '1|Toy Story, A Story (1995)|01-Jan-1995||http://x|0|1|0\n'
            "2|Misérables' Land (1995) (V)|22-Feb-1996||http://y|0|1|1\n"
            '7|unknown||||1|0|0\n'
            '4|1984 (1956)|01-Jan-1956||http://z|0|0|0\n'
        ).encode('latin-1'),
        'u.data': (
            '1\t1\t5\t881250949\n2\t2\t4\t881250950\n2\t1\t3\t881250951\n'
            '1\t7\t4\t881250940\n'
        ),
        'u.info': '3 users\n4 items\n4 ratings\n',
    },
    'layer6-citeulike': {
        'eval/item_features_0based.txt': _CONTENT,
        'eval/trained/cold/WRMF_cold_rank2_reg1.U.txt': (
            '0 0\n0.5 -1\n1e-2 2\n3 4\n'
        ),
        'eval/trained/cold/WRMF_cold_rank2_reg1.V.txt': (
            '0 0\n1 0\n0 1\n1 1\n0 0\n'
        ),
        'eval/trained/warm/WRMF_warm_rank2_reg1.U.txt': (
            '0 0\n1 1\n2 2\n0.0 0\n'
        ),
        'eval/trained/warm/WRMF_warm_rank2_reg1.V.txt': (
            '0 0\n1 0\n0 1\n1 1\n2 2\n'
        ),
        **{f'eval/{name}': content for name, content in _SPLITS.items()},
    },
    'recsys2017': {
        'eval/user_features_0based.txt': '0\n0 0:1\n0 1:2.5\n0 0:1 1:1\n',
        'eval/item_features_0based.txt': _CONTENT,
        'eval/trained/warm/U.csv.bin': _raw_factors(4, absent=3),
        'eval/trained/warm/V.csv.bin': _raw_factors(5, absent=4),
        'eval/warm/train.csv': (
            '1,1,1,1478041200\n1,1,2,1478041100\n2,2,5,1478041300\n'
            '1,2,0,1478041400\n2,3,3,1478041500\n'
        ),
        'eval/warm/test_warm.csv': '1,3,1,1478041600\n2,1,4,1478041700\n',
        'eval/warm/test_warm_item_ids.csv': '3\n1\n2\n',
        'eval/warm/test_cold_user.csv': '3,1,2,1478041800\n',
        'eval/warm/test_cold_user_item_ids.csv': '1\n2\n',
        'eval/warm/test_cold_item.csv': '1,4,1,1478041900\n2,3,1,1478042000\n',
        'eval/warm/test_cold_item_item_ids.csv': '4\n4\n',
    },
}


@pytest.fixture
def make_data(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
  """Writes a tiny data set and returns its folder, DATA_DIR/name.

  `changes` gives files another content, or none at all for None.
  """

  def make(
      name: str, changes: Mapping[str, str | bytes | None] | None = None
  ) -> pathlib.Path:
    folder = tmp_path / name
    for file_name, content in {**TINY[name], **(changes or {})}.items():
      if content is not None:
        path = folder / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_text = isinstance(content, str)
        path.write_bytes(content.encode() if is_text else content)
    return folder

  return make


@pytest.fixture
def tiny_files() -> dict[str, dict[str, str | bytes]]:
  """The files of each tiny data set, by name."""
  return TINY
