"""What a range allows, how it describes itself, and what an error says."""

import math

import numpy as np
import pytest

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.ranges import OneOf, Several, number, whole

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize('one, text, good, bad', [
    (whole(1), 'a whole number of 1 or more', [1, np.int32(7), 2 ** 31 - 1],
     [0, -1, 4., 32.5, True, None, '1', NAN, INF, 2 ** 31, 10 ** 400, (1,)]),
    (whole(), 'a whole number', [-5, 0], [.5, 2 ** 31]),
    (whole(0, 9), 'a whole number in [0, 9]', [0, 9], [-1, 10]),
    (whole(1, ranges.LARGEST_64_BITS), 'a whole number of 1 or more', [2 ** 33], [2 ** 63]),
    (number(0, 1, '[)'), 'a number in [0, 1)', [0, 0., .5, np.float32(.5)],
     [1, 1., 1.5, -.1, NAN, True, None, '0.5', (0.5,)]),
    (number(0, 1, '(]'), 'a number in (0, 1]', [1, 1e-9], [0, 1.1]),
    (number(0, ends='()'), 'a number above 0', [1e-300, 10 ** 40], [0, INF, 10 ** 400]),
    (number(0.5), 'a number of 0.5 or more', [.5, 1e9], [.4, INF]),
    (number(), 'a number', [-3., 0], [-INF, NAN]),
    (OneOf(('a', 'b', 'c')), "'a', 'b' or 'c'", ['a', 'c'], ['', 'd', None, ('a',)]),
    (OneOf((1, 2)), '1 or 2', [1, 2], [True, 1., 3, '1', np.zeros(2)]),
    (ranges.FLAG, 'True or False', [True, False], [1, 0, 'True', None]),
    (ranges.PATH, 'a path', ['x'], ['', None, 3]),
    (ranges.optional(ranges.PATH), 'a path or None', ['x', None], ['', False]),
    (ranges.or_empty(ranges.TEXT), "a text or ''", ['x', ''], [None, 0]),
    (Several(whole(1)), 'one or more whole numbers of 1 or more', [(1,), [2, 2]],
     [(), (32.5, 16), (0,), 3, '12', None, (True,)]),
    (Several(whole(1), least=0), 'any number of whole numbers of 1 or more', [(), (4,)], [(0,)]),
    (Several(number(), exactly=3), 'three numbers', [(0, 0, 0)],
     [(.5, .5), (0, 0, 0, 0), (0, 0, NAN)]),
    (Several(number(0, 1, '(]'), exactly=2, order='ascending'),
     'two numbers in (0, 1], ascending', [(.1, 1), (1., 1.)], [(1, .1), (0, 1), (.1, 1.1)]),
    (ranges.GRID, 'one or more numbers above 0, each once', [(.2, .1)], [(), (.1, .1), (0.,), .1]),
    (Several(OneOf(('a', 'b')), order='each once'), "one or more of 'a' or 'b', each once",
     [('b', 'a')], [('a', 'a'), ('c',), 'a']),
    (Several(ranges.TEXT, least=0), 'any number of texts', [(), ('x',)], [('',), 'x'])],
    ids=str)
def test_a_range_allows_what_it_says(one, text, good, bad):
  assert str(one) == text
  assert [value for value in good if not one.allows(value)] == []
  assert [value for value in bad if one.allows(value)] == []


@pytest.mark.parametrize('section, message', [
    (dict(a=0, b=dict(c='x')), 'run.a is 0; it can be a whole number of 1 or more.'),
    (dict(a=2 ** 31, b=dict(c='x')),
     'run.a is 2147483648; it can be a whole number of 1 or more, at most 2147483647.'),
    (dict(a='two\nlines', b=dict(c='x')),
     "run.a is 'two\\nlines'; it can be a whole number of 1 or more."),
    (dict(a='x' * 999, b=dict(c='x')),
     f"run.a is '{'x' * 119}...; it can be a whole number of 1 or more."),
    (dict(a=1, b=dict(c='y')), "run.b.c is 'y'; it can be 'x'."),
    (dict(a=1, b=3), 'run.b is 3; it can be a section with c.'),
    (dict(a=1, b={}), "run.b lacks the key 'c'; it can have c."),
    (dict(a=1, b=dict(c='x'), d=1), "run has no key 'd'; it can have a, b.")])
def test_an_error_is_one_line_with_the_key_and_the_range(section, message):
  table = dict(a=whole(1), b=dict(c=OneOf(('x',))))
  ranges.check('run', dict(a=1, b=dict(c='x')), table)
  with pytest.raises(InputError) as error:
    ranges.check('run', section, table)
  assert str(error.value) == message
