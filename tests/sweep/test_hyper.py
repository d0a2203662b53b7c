import pytest

from byol_jax.errors import InputError
from byol_jax.sweep import hyper

A, B = hyper.sweep('config.a', [1, 2]), hyper.sweep('config.b', 'xy')


def test_a_sweep_has_a_point_for_each_value():
  assert A == [{'config.a': 1}, {'config.a': 2}]
  assert hyper.fixed('config.a', None) == [{'config.a': None}]


def test_a_product_has_every_combination():
  assert hyper.product([A, B]) == [
      {'config.a': 1, 'config.b': 'x'}, {'config.a': 1, 'config.b': 'y'},
      {'config.a': 2, 'config.b': 'x'}, {'config.a': 2, 'config.b': 'y'}]
  assert hyper.product([]) == [{}] and hyper.product([A, []]) == []


def test_zipped_sweeps_go_side_by_side():
  assert hyper.zipit([A, B]) == [{'config.a': 1, 'config.b': 'x'}, {'config.a': 2, 'config.b': 'y'}]
  assert hyper.zipit([A, hyper.fixed('config.c', 3)])[1] == {'config.a': 2, 'config.c': 3}
  assert hyper.zipit([]) == []


def test_chained_sweeps_go_one_after_the_other():
  chained = hyper.chainit([A, B])
  assert chained == [*A, *B]
  chained[0]['config.a'] = 9
  assert A[0] == {'config.a': 1}


@pytest.mark.parametrize('make, message', [
    (lambda: hyper.sweep('seed', [1]), "'config.seed', not 'seed'"),
    (lambda: hyper.product([A, A]), 'config.a is set by two'),
    (lambda: hyper.zipit([A, hyper.sweep('config.a', [3, 4])]), 'config.a is set by two'),
    (lambda: hyper.zipit([A, hyper.sweep('config.b', [1, 2, 3])]), r'not \[2, 3\]')])
def test_what_cannot_be_combined_is_said(make, message):
  with pytest.raises(InputError, match=message):
    make()
