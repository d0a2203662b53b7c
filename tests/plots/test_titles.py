"""What evaluators measure: every module of the package says it, and one of the user's must."""

import pytest

from byol_jax import plugins
from byol_jax.errors import InputError
from byol_jax.plots import titles

EVALUATORS = plugins.known('evaluators')


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Writes a module outside of the package; returns its dotted path."""
  (tmp_path / 'own_titles').mkdir()
  monkeypatch.syspath_prepend(tmp_path)
  def write(name, text):
    (tmp_path / 'own_titles' / f'{name}.py').write_text(text)
    return f'own_titles.{name}'
  return write


def test_these_are_the_evaluators():
  assert EVALUATORS == ['few_shot', 'fine_tuned_transfer', 'knn', 'knn_grid', 'linear',
                        'linear_features', 'linear_transfer', 'retrieval', 'semi_supervised']


@pytest.mark.parametrize('name', EVALUATORS)
def test_every_evaluator_keeps_the_contract(name):
  titles.check(name)
  assert titles.title(name) != name or name == 'retrieval'
  module = plugins.load('evaluators', name)
  assert {*getattr(module, 'IN_TABLE', ())} <= {*module.METRICS}


@pytest.mark.parametrize('name, scores, metrics, main, shown', [
    ('knn', dict(top5=.5, top1=.25, k=3), dict(top1='top-1', top5='top-5'), ['top1'], ['top1']),
    ('linear', dict(top1=.25, top5=.5), dict(top1='top-1', top5='top-5'), ['top1'],
     ['top1', 'top5']),
    ('few_shot', dict(top1_5_shots=.2, top1_10_shots=.3, top1_5_shots_std=.1),
     dict(top1_5_shots='top-1, 5 per class', top1_10_shots='top-1, 10 per class'),
     ['top1_5_shots', 'top1_10_shots'], ['top1_5_shots', 'top1_10_shots']),
    ('linear_transfer', dict(top1=.2, mean_per_class=.3, metric='mean_per_class'),
     dict(top1='top-1', mean_per_class='mean per class'), ['mean_per_class'],
     ['top1', 'mean_per_class']),
    ('fine_tuned_transfer', dict(map_voc07=.2, metric='map_voc07'), dict(map_voc07='VOC07 mAP'),
     ['map_voc07'], ['map_voc07']),
    ('retrieval', dict(map=.2, rank1=.1, recall_10=.3, queries=5),
     {'map': 'mAP', 'rank1': 'rank-1', 'recall_10': 'recall at 10'}, ['map'], ['map', 'rank1'])])
def test_metrics_of_results(name, scores, metrics, main, shown):
  assert titles.metrics(name, scores) == metrics
  assert titles.main_metrics(name, scores) == main
  assert list(titles.in_table(name, scores)) == shown


def test_an_evaluator_of_the_users_own_has_the_name_of_its_module(own):
  name = own('plain', "METRICS, MAIN_METRIC = {'error': 'mean error'}, 'error'\n")
  titles.check(name)
  assert titles.title(name) == name
  assert titles.in_table(name, dict(error=.5)) == dict(error='mean error')


@pytest.mark.parametrize('text, message', [
    ("MAIN_METRIC = 'top1'", 'it has no constant METRICS; '),
    ("METRICS = dict(top1='top-1')", 'it has no constant MAIN_METRIC; '),
    ("METRICS, MAIN_METRIC = dict(top1='top-1'), 'top5'",
     "is 'top5', which is not one of its METRICS, top1; correct one of them.")])
def test_what_a_module_does_not_say_is_named(own, text, message):
  name = own(f'lacks{len(text)}', text)
  with pytest.raises(InputError) as error:
    titles.check(name)
  assert message in str(error.value) and repr(name) in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('score', [55., -.1, float('nan')])
def test_metrics_are_fractions(score):
  with pytest.raises(InputError, match=f"Evaluator 'knn' returned top1 {score}; metrics are frac"):
    titles.check_scores('knn', dict(top1=score), dict(top1=score))
  titles.check_scores('knn', dict(top1=1.), dict(top1=1.))
