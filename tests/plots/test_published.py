"""Published numbers beside a run."""

import pytest

from byol_jax.config import as_json
from byol_jax.evaluation import scoring
from byol_jax.plots import published
from experiments.configs import cifar10, imagenet_r50
from experiments.configs.eval import data_sets
from tests import tiny


def test_the_papers_run_stands_beside_its_own_number():
  first, *others = published.beside(as_json(imagenet_r50.get_config('epochs=1000')))
  assert first[0].score == 'top-1 74.3, top-5 91.6' and 'Table 1' in first[0].source
  assert first[1] == [] and all(differences for _, differences in others)


@pytest.mark.parametrize('argument, score', [
    ('epochs=300', '72.5'), ('epochs=1000,depth=200,width=2', '79.6'),
    ('epochs=1000,width=4', '78.6')])
def test_every_preset_of_the_paper_has_its_own(argument, score):
  entry, differences = published.beside(as_json(imagenet_r50.get_config(argument)))[0]
  assert differences == [] and score in entry.score


def test_what_differs_is_named_and_the_nearest_length_comes_first():
  found = published.beside(as_json(cifar10.get_config('size=cpu')))
  entry, differences = found[0]
  assert entry.data == 'cifar10' and entry.settings['epochs'] == 200
  assert 'depth 10 (published: 18)' in differences and 'epochs 30.0 (published: 200)' in differences


def test_generated_images_have_none():
  assert published.beside(as_json(tiny.config())) == []


def test_every_entry_names_its_protocol_and_source():
  for entry in published.NUMBERS:
    assert entry.source and entry.protocol and set(entry.settings) == set(published.SETTINGS)


@pytest.mark.parametrize('evaluator, dataset, parts', [
    ('linear_transfer', 'food101', [
        'linear (D.2) top-1: BYOL 75.3', 'SimCLR (their own) 72.8', 'supervised 72.3']),
    ('linear_transfer', 'voc/2007', ['linear (D.2) VOC07 mAP: BYOL 82.5']),
    ('fine_tuned_transfer', 'oxford_iiit_pet:4.0.0', [
        'fine-tuned (D.3) mean per class: BYOL 91.7', 'random 81.5']),
    ('semi_supervised', 'imagenet2012_subset/1pct', ['1 % of the labels: BYOL 53.2, 78.4',
                                                     'supervised 25.4, 48.4']),
    ('semi_supervised', 'imagenet2012', ['all labels: BYOL 77.7, 93.9']),
    ('linear_transfer', 'birdsnap', ['BYOL 57.2']),
    ('linear', 'imagenet2012', ['top-1 74.3, top-5 91.6'])])
def test_the_papers_numbers_for_a_protocol(evaluator, dataset, parts):
  text = published.of_protocol(evaluator, dataset)
  assert text.startswith('Published (not run here)') and all(part in text for part in parts)


@pytest.mark.parametrize('evaluator, dataset', [
    ('knn', 'cifar10'), ('linear', 'cifar10'), ('linear_transfer', 'shapes'),
    ('semi_supervised', 'cifar10'), ('linear_transfer', 'voc/2012')])
def test_other_protocols_have_none(evaluator, dataset):
  assert published.of_protocol(evaluator, dataset) == ''


@pytest.mark.parametrize('name', [name for name, found in data_sets.DATA_SETS.items()
                                  if found.linear and name != 'imagenet'])
def test_the_table_of_data_sets_has_the_same_numbers(name):
  found = data_sets.DATA_SETS[name]
  known = found.options.get('name', name)
  for evaluator, score in (('linear_transfer', found.linear),
                           ('fine_tuned_transfer', found.fine_tuned)):
    metric = scoring.TITLES[found.metric]
    assert f'{metric}: BYOL {score},' in published.of_protocol(evaluator, known)
