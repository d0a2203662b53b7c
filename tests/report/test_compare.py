"""Differences between configs, seeds of one setting, and the effect of a key."""

import pytest

from byol_jax.report import compare
from tests.report.conftest import records


@pytest.fixture
def six(make_run):
  """Two values of tau and three seeds, with scores that are known."""
  return [make_run(f'{tau}-{seed}', records(knn=(score,)), train__base_tau=tau, seed=seed)
          for tau, scores in ((.9, (.40, .50, .60)), (.99, (.70, .80, .90)))
          for seed, score in enumerate(scores)]


def test_differing_keys_have_a_value_for_each_run(six):
  assert compare.differing(six) == {'seed': [0, 1, 2] * 2,
                                    'train.base_tau': [.9] * 3 + [.99] * 3}


def test_settings_are_runs_that_differ_in_the_seed_only(six):
  found = compare.settings(six)
  assert [setting.name for setting in found] == ['base_tau=0.9', 'base_tau=0.99']
  assert [len(setting.runs) for setting in found] == [3, 3]


def test_keys_that_leave_the_weights_alone_make_no_setting(make_run):
  found = compare.settings([make_run('a'), make_run('b', log__every_steps=7)])
  assert len(found) == 1 and found[0].name == ''


def test_the_effect_is_the_span_of_the_means_beside_the_spread_over_seeds(six):
  effect, = compare.effects(compare.settings(six))
  assert effect.key == 'train.base_tau' and effect.balanced
  assert [value for value, _ in effect.rows] == [.9, .99]
  assert effect.rows[0][1] == pytest.approx([40, 50, 60])
  assert effect.span == pytest.approx(30) and effect.spread == pytest.approx(10)


def test_the_larger_effect_comes_first_and_unbalanced_ones_are_known(make_run):
  points = ((.9, .1, .2), (.9, .2, .3), (.99, .2, .8))
  found = [make_run(f'{tau}-{rate}', records(knn=(score,)), train__base_tau=tau,
                    train__base_learning_rate=rate) for tau, rate, score in points]
  first, second = compare.effects(compare.settings(found))
  assert first.key == 'train.base_tau' and first.span == pytest.approx(55)
  assert second.span == pytest.approx(35) and first.spread is None
  assert not first.balanced and not second.balanced


def test_unfinished_and_unlabelled_runs_have_no_score(make_run):
  assert compare.score(make_run('a', finished=False)) is None
  assert compare.score(make_run('b', records(knn=()))) is None
  assert compare.effects(compare.settings([make_run('c'), make_run(
      'd', finished=False, train__base_tau=.5)])) == []


@pytest.mark.parametrize('value, text', [([.5, 1.], '(0.5, 1)'), (1e-6, '1e-06'), ('a', 'a'),
                                         (True, 'True'), (None, 'None'), ([], '()')])
def test_values_are_shown_as_a_person_writes_them(value, text):
  assert compare.shown(value) == text
