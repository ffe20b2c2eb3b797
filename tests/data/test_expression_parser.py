# SPDX-License-Identifier: Apache-2.0
"""Texts of expressions: what they mean, and what is refused and where."""

import hypothesis
from hypothesis import strategies as st
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import expression_parser
from dropoutnet_jax.data import expressions

NUMBER = expression_parser.NUMBER
CONTENTS = {
    'price': NUMBER,
    'pages': NUMBER,
    'my column': NUMBER,
    'größe': NUMBER,
    'ﬁsh': NUMBER,  # which Python would read as another name
    'tags': 'tags',
    'country': 'strings',
    'image': 'several numbers per row',
}
Call = expressions.Call


def parse(text):
  return expression_parser.parse(text, 'config.here', CONTENTS)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('price', 'price'),
        ('  price ', 'price'),
        ('-price', Call('negative', ('price',))),
        (
            'price + pages * 2',
            Call('+', ('price', Call('*', ('pages', 2.0)))),
        ),
        (
            'price - pages - 1',
            Call('-', (Call('-', ('price', 'pages')), 1.0)),
        ),
        ('-price ** 2', Call('negative', (Call('**', ('price', 2.0)),))),
        ('1e3 / price', Call('/', (1000.0, 'price'))),
        ('5 >= price', Call('>=', (5.0, 'price'))),
        ('max(price, pages, 0)', Call('max', ('price', 'pages', 0.0))),
        ("log(col('my column'))", Call('log', ('my column',))),
        ('größe % 2', Call('%', ('größe', 2.0))),
        ('ﬁsh', 'ﬁsh'),
        ("col('price')", 'price'),
        ('price * (2 ** 3 - 1)', Call('*', ('price', 7.0))),
        ('where(is_missing(price), 0, sqrt(4))', None),
    ],
)
def test_trees(text, expected):
  node, names = parse(text)
  if expected is None:
    condition = Call('is_missing', ('price',))
    expected = Call('where', (condition, 0.0, 2.0))
  assert node == expected
  assert all(name in text for name in names)


def test_columns_are_listed_once_in_their_order():
  _, names = parse('pages + price / pages')
  assert names == ('pages', 'price')


# Text, character from 1 if Python's versions agree, and what is said of it.
REFUSED = [
    ('1 + ', 4, 'it ends too early'),
    ('(price', 1, "'(' was never closed"),
    ('price pages', 7, 'invalid syntax ... my column'),
    ('größe + $', 9, 'invalid syntax'),
    ('größe + pric', 9, "no column 'pric' ... price ... Did you mean 'price'?"),
    ("col('my colum')", 5, "no column 'my colum' ... mean 'my column'?"),
    ('tags + 1', 1, "'tags' holds tags; one number per row is needed"),
    ('1 + image', 5, "'image' holds several numbers per row; one number"),
    ("col('country')", 5, "'country' holds strings"),
    ('1 + log', 5, 'log is a function, and is written log(...)'),
    ('lok(price)', 1, "no function 'lok' ... Did you mean 'log'?"),
    ('2 * price(3)', 5, "'price' is a column; is an operator missing"),
    ('__import__(price)', 1, "no function '__import__'. Functions are: log,"),
    ('log(price, 2)', 1, 'log takes 1 argument(s), found 2'),
    ('clip(price, 2)', 1, 'clip takes 3 argument(s), found 2'),
    ('max(price)', 1, 'max takes at least 2 arguments, found 1'),
    ('1 + exp()', 5, 'exp takes 1 argument(s), found 0'),
    ('log(x=price)', 1, 'log takes its arguments one after the other'),
    ('max(*price)', 1, 'one after the other'),
    ('price.real', 1, "'price.real' cannot be used. An expression has"),
    ('1 + price[0]', 5, "'price[0]' cannot be used"),
    ('price.log(2)', 1, 'cannot be used'),
    ('(lambda: 1)()', 1, 'cannot be used'),
    ('lambda x: x', 1, 'cannot be used'),
    ("'price' + 1", 1, '"\'price\'" cannot be used'),
    ("f'{price}'", 1, 'cannot be used'),
    ('[price]', 1, 'cannot be used'),
    ('[x for x in price]', 1, 'cannot be used'),
    ('(price, 1)', 1, 'cannot be used'),
    ('(y := price)', 2, 'cannot be used'),
    ('await price', 1, 'cannot be used'),
    ('price = 1', 7, 'invalid syntax'),
    ('import os', 1, 'invalid syntax'),
    ('True + price', 1, "'True' cannot be used"),
    ('None', 1, "'None' cannot be used"),
    ('price + 1j', 9, "'1j' cannot be used"),
    ('price and pages', 1, "Write a * b for 'and', max(a, b) for 'or'."),
    ('not price', 1, 'Write 1 - x.'),
    ('+price', 1, 'Leave the + out.'),
    ('~price', 1, "'~price' cannot be used"),
    ('price // 2', 1, 'Write floor(a / b).'),
    ('price ^ 2', 1, 'A power is written a ** b.'),
    ('price @ 2', 1, 'cannot be used'),
    ('1 if price else 2', 1, 'Write where(condition, a, b).'),
    ('1 + (0 < price < 5)', 6, 'Write (a < b) * (b < c) for a < b < c.'),
    ('price in pages', 1, 'cannot be used'),
    ('price is pages', 1, 'cannot be used'),
    ('col(price)', 1, 'col takes the name of a column in quotes'),
    ("col('price', 'pages')", 1, 'col takes the name of a column in quotes'),
    ('price + 9**9**9', 9, "'9**9**9' is no number: too large for float32."),
    ('price + 1 / (2 - 2)', 9, "'1 / (2 - 2)' is no number: division by 0."),
    ('log(0 - 1) * price', 1, "'log(0 - 1)' is no number: a logarithm of 0 or"),
    ('price * (0 - 8) ** 0.5', 9, 'a power that is no real number'),
    ('price + 1e999', 9, 'the number is too large'),
    ('price + 1' + '0' * 400, 9, 'the number is too large'),
    ('1 + 2', 1, 'it names no column'),
    ('  ', 1, 'it ends too early'),
    ('price +\npages', 8, 'the line ends; write all on one line'),
    ('price' + ' + price' * 200, 1001, '1,605 characters; the most is 1,000'),
    ('price' + ' + price' * 110, 1, 'more than 100 levels deep'),
    ('-' * 900 + 'price', 102, 'levels deep'),
    ('(' * 300 + 'price' + ')' * 300, '', 'nested'),
    ('price\0', 6, 'there is a NUL character'),
    ('price + \ud800', 1, 'surrogates not allowed'),
    ('1or price', 1, 'cannot be used'),  # Python warns of it
    ("price + col('\\d')", 13, "no column '\\\\d'"),  # and of this
]


@pytest.mark.parametrize(
    'text, character, message', REFUSED, ids=[case[0][:20] for case in REFUSED]
)
def test_refusals(text, character, message):
  with pytest.raises(errors.UserError) as caught:
    parse(text)
  found = str(caught.value)
  assert found.startswith('config.here is ') and '\n' not in found
  assert f'at character {character}' in found, found
  for part in message.split(' ... '):
    assert part in found, found


def test_a_long_text_and_many_columns_are_cut_in_messages():
  contents = {f'column{n}': NUMBER for n in range(90)}
  with pytest.raises(errors.UserError) as caught:
    expression_parser.parse('a' * 200, 'config.here', contents)
  assert len(str(caught.value)) < 600
  assert 'and 70 more columns' in str(caught.value)


@hypothesis.settings(deadline=None, max_examples=150, derandomize=True)
@hypothesis.given(
    st.text(max_size=30)
    | st.lists(
        st.sampled_from(
            [
                'price',
                'log',
                '(',
                ')',
                '+',
                '**',
                ',',
                '9',
                'col',
                "'",
                '.',
                ' ',
            ]
        ),
        max_size=12,
    ).map(''.join)
)
def test_any_text_is_an_expression_or_refused(text):
  try:
    parse(text)
  except errors.UserError as error:
    assert 'at character' in str(error)
