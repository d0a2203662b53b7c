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


def test_of_many_keys_only_unusual_values_are_named(make_run):
  found = compare.settings([
      make_run('usual'), make_run('tau', train__base_tau=.5),
      make_run('rate', train__optimizer_options__momentum=.7),
      make_run('both', train__optimizer_options__weight_decay=.1,
               train__optimizer_options__eta=.2)])
  assert [setting.name for setting in found] == [
      'the most frequent values', 'base_tau=0.5', 'momentum=0.7', 'eta=0.2  weight_decay=0.1']


def test_keys_that_leave_the_weights_alone_make_no_setting(make_run):
  found = compare.settings([make_run('a'), make_run('b', log__every_steps=7)])
  assert len(found) == 1 and found[0].name == ''



def test_the_effect_is_the_span_of_the_means_beside_the_spread_over_seeds(six):
  effect, = compare.effects(compare.settings(six))
  assert effect.key == 'train.base_tau' and not effect.apart
  assert [(value.value, value.runs, value.collapsed) for value in effect.values] == [
      (.9, 3, 0), (.99, 3, 0)]
  assert [value.score for value in effect.values] == pytest.approx([50, 80])
  assert effect.span == pytest.approx(30) and effect.spread == pytest.approx(10)


@pytest.fixture
def make_grid(make_run):
  """Runs by (tau, learning rate) -> scores of seeds; their effects by key."""
  def make(grid):
    found = [make_run(f'{tau}-{rate}-{seed}', records(knn=(score,)), train__base_tau=tau,
                      train__base_learning_rate=rate, seed=seed)
             for (tau, rate), scores in grid.items() for seed, score in enumerate(scores)]
    return {effect.key: effect for effect in compare.effects(compare.settings(found))}
  return make


def test_unequal_numbers_of_seeds_do_not_shift_an_effect(make_grid):
  low, high = .2, .8
  effects = make_grid({(.9, .1): [low] * 3, (.9, .2): [high], (.99, .1): [low],
                       (.99, .2): [high] * 3})
  assert list(effects) == ['train.base_learning_rate', 'train.base_tau']
  assert effects['train.base_tau'].span == pytest.approx(0)
  assert effects['train.base_learning_rate'].span == pytest.approx(60)


def test_only_settings_that_differ_in_one_key_are_compared(make_grid):
  # One thing at a time: against (.9, .1), tau adds 10 and the learning rate takes 40.
  effects = make_grid({(.9, .1): [.5], (.99, .1): [.6], (.9, .2): [.1]})
  assert effects['train.base_tau'].span == pytest.approx(10)
  assert effects['train.base_learning_rate'].span == pytest.approx(40)
  assert effects['train.base_tau'].spread is None


def test_what_never_changes_alone_is_not_compared(make_grid):
  effects = make_grid({(.9, .1): [.5], (.99, .2): [.6]})
  for key, values in (('train.base_tau', [.9, .99]), ('train.base_learning_rate', [.1, .2])):
    assert effects[key].values == [] and effects[key].apart == values and effects[key].span == 0


def test_collapsed_runs_are_counted(make_run):
  found = [make_run('a', train__base_tau=.9),
           make_run('b', records(std=.01), train__base_tau=.99)]
  effect, = compare.effects(compare.settings(found))
  assert [value.collapsed for value in effect.values] == [0, 1]


def test_unfinished_and_unlabelled_runs_have_no_score(make_run):
  assert compare.score(make_run('a', finished=False)) is None
  assert compare.score(make_run('b', records(knn=()))) is None
  assert compare.effects(compare.settings([make_run('c'), make_run(
      'd', finished=False, train__base_tau=.5)])) == []


@pytest.mark.parametrize('value, text', [([.5, 1.], '(0.5, 1)'), (1e-6, '1e-06'), ('a', 'a'),
                                         (True, 'True'), (None, 'None'), ([], '()')])
def test_values_are_shown_as_a_person_writes_them(value, text):
  assert compare.shown(value) == text
