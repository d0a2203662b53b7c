"""What an evaluation is refused for before an image is encoded or an encoder is trained."""

import csv
import json

import numpy as np
import pytest

from byol_jax import evaluate, train
from byol_jax.errors import InputError
from byol_jax.evaluation import baselines, features
from byol_jax.input_pipeline import loading
from experiments.configs.eval import default
from experiments.configs.eval import retrieval as eval_retrieval
from tests import identity_folders, tiny

FEW = dict(learning_rates=(.1,), batch_size=32)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('pretrained')
  train.pretrain(tiny.config(train__epochs=1.0, train__warmup_epochs=.5), workdir)
  return workdir


@pytest.fixture
def nothing_is_encoded(monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('too late')
  monkeypatch.setattr(features, 'extract', refuse)
  monkeypatch.setattr(baselines, 'make', refuse)


def config(evaluator, encoders=('pretrained',), **options):
  config = default.with_evaluators(default.get_config().unlock(), evaluator)
  config.batch_size, config.encoders = 32, encoders
  config.evaluators[evaluator].update(options)
  return config


def arrays(path, labels, test_labels, **changes):
  """The config's data: so many random images as there are labels, for training and test."""
  random = np.random.default_rng(0)
  options = dict(validation_share=.2, num_classes=0, labels=None, test_labels=None)
  for name, own in (('images', labels), ('test_images', test_labels)):
    options[name] = str(path / f'{name}.npz')
    np.savez(options[name], labels=np.array(own, np.int32),
             images=random.integers(0, 256, (len(own), 16, 16, 3), np.uint8))
  return dict(dataset='arrays', options=options | changes)


def refusal(found, pretrained, workdir):
  with pytest.raises(InputError) as error:
    evaluate.evaluate(found.lock(), pretrained, workdir)
  assert '\n' not in str(error.value)
  return str(error.value)


# The tiny set has 64 training, 20 held-out and 30 test images, and embeddings of 64 numbers.
@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('evaluator, options, message', [
    ('knn', dict(k=65), 'knn.k is 65 but there are 64 training images; set k to 1 ... 64, or give '
     'more images.'),
    ('knn_grid', dict(k_values=(65, 100), temperatures=(.07,)),
     'evaluators.knn_grid.k_values is (65, 100), but there are 64 training images; give at '
     'least one value in 1 ... 64.'),
    ('few_shot', dict(shots=(1, 60)), 'training images, fewer than the 60 shots; give '
     'fewer shots.'),
    ('linear', dict(batch_size=30), 'evaluators.linear.batch_size is 30, which 4 '),
    ('linear_transfer', dict(metric='map_voc07'), "metric is 'map_voc07', but the data set has one "
     'label per image; set metric to top1 or mean_per_class.'),
    ('semi_supervised', dict(FEW, batch_size=30), 'evaluators.semi_supervised.batch_size is 30'),
    ('fine_tuned_transfer', dict(FEW, metric='map_voc07'), "metric is 'map_voc07', but the data "
     'set has one label per image'),
    ('retrieval', dict(gallery='lists'), "gallery is 'lists', but the data set has no lists of "
     'queries; set it to train or test.'),
    ('retrieval', dict(whitening=64), 'whitening is 64, but 64 training images with embeddings of '
     '64 dimensions vary in at most 63 directions; set it to at most that, or to 0 for no '
     'whitening.'),
    ('retrieval', dict(rerank=True, k1=94, k2=6), 'k1 is 94, but there are 94 images including '
     'the queries; set k1 to at most 93.'),
    ('retrieval', dict(rerank=True, gallery='test', k1=60, k2=6), 'k1 is 60, but there are 60 '
     'images including the queries; set k1 to at most 59.'),
    ('retrieval', dict(rerank=True, most_bytes=94 * 21 * 8 - 1), 'Re-ranking 94 images would take '
     '15792 bytes for their neighbours, more than most_bytes, 15791; ')])
def test_counts_and_options_are_looked_at_first(pretrained, tmp_path, evaluator, options, message):
  found = config(evaluator, encoders=('pretrained', 'supervised'), **options)
  assert message in refusal(found, pretrained, tmp_path)
  assert not (tmp_path / 'features').exists()


@pytest.mark.usefixtures('nothing_is_encoded')
def test_whitening_goes_by_the_smallest_embedding(pretrained, tmp_path):
  found = config('retrieval', encoders=('pixels',), whitening=64)
  assert 'embeddings of 768 dimensions vary in at most 63' in refusal(found, pretrained, tmp_path)


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('evaluator, options, labels, message', [
    ('linear_features', {}, [1] * 40, 'All 32 training images are of class 1; a classifier needs '
     'at least 2 classes.'),
    ('linear_transfer', {}, [0, 2] * 20,
     '1 of 3 classes have no image among the 32 training images: 1. '),
    ('semi_supervised', FEW, [0, 2] * 20, '1 of 3 classes have no image among the 32 training'),
    ('fine_tuned_transfer', FEW, [0, 2] * 20, '1 of 3 classes have no image among the 32 training'),
    ('few_shot', dict(shots=(2,)), [0, 2] * 20, 'Class 1 has 0 training images, fewer than the 2 '
     'shots; give fewer shots.')])
def test_labels_are_looked_at_first(pretrained, tmp_path, evaluator, options, labels, message):
  found = config(evaluator, **options)
  found.data.update(arrays(tmp_path, labels, labels))
  assert message in refusal(found, pretrained, tmp_path / 'out')


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('test_labels, message', [
    ([0, 1, 2], 'labels run from 0 to 2, but the classes in the training labels of '),
    ([0, 1, -1], '1 of 3 labels are -1, which marks an image without a label.')])
def test_labels_of_the_test_images_are_looked_at_first(pretrained, tmp_path, test_labels, message):
  found = config('linear_features')
  found.data.update(arrays(tmp_path, [0, 1] * 20, test_labels))
  assert message in refusal(found, pretrained, tmp_path / 'out')
  assert not (tmp_path / 'out' / loading.ACCESS_LOG).exists()


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('evaluator, options, message', [
    ('linear_features', {}, "All 5 training images are of class 1 ('dog'); a"),
    ('linear_transfer', {},
     "1 of 2 classes have no image among the 5 training images: 0 ('cat'). "),
    ('few_shot', dict(shots=(2,)), "Class 0 ('cat') has 0 training images, fewer than the 2")])
def test_classes_are_called_by_their_names(pretrained, tmp_path, monkeypatch, evaluator, options,
                                           message):
  (tmp_path / 'named_classes').mkdir()
  (tmp_path / 'named_classes' / 'two.py').write_text(NAMED_CLASSES)
  monkeypatch.syspath_prepend(tmp_path)
  found = config(evaluator, **options)
  found.data.update(dataset='named_classes.two', options=dict(validation_share=0.5))
  assert message in refusal(found, pretrained, tmp_path / 'out')


NAMED_CLASSES = '''
import numpy as np
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.memory import Arrays
from byol_jax.input_pipeline.records import Records

RANGES = splits.SHARE


def records(part):
  if part == 'validation':
    return None
  images = np.zeros((10, 16, 16, 3), np.uint8)
  return Records(part, Arrays(images.__getitem__, 10), np.ones(10, np.int32), 2,
                 class_names=('cat', 'dog'))
'''


def lists(root, query, gallery):
  """The config of a retrieval among images that CSV files list with these cameras."""
  for name, images in (('query', query), ('gallery', gallery)):
    with (root / f'{name}.csv').open('w') as file:
      csv.writer(file).writerows([('path', 'id', 'camera'), *images])
    for path, identity, _ in images:
      identity_folders.write(root / path, ord(identity), 0, len(path))
  found = eval_retrieval.get_config('csv').unlock()
  found.data.options.update(query=str(root / 'query.csv'), gallery=str(root / 'gallery.csv'))
  found.batch_size = 32
  return found


QUERY = [(f'q{identity}.jpg', identity, 'c1') for identity in 'ab']
NO_MATCH = ('None of the 2 queries has a match in the gallery of 4 images: a match is another '
            'image of its identity, from another camera if cameras are known. Check the '
            'identities and cameras.')


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('gallery, options, message', [
    ([(f'g{i}.jpg', identity, 'c2') for i, identity in enumerate('cdef')], {}, NO_MATCH),
    ([(f'g{i}.jpg', identity, camera) for i, (identity, camera) in enumerate(
        [('a', 'c1'), ('b', 'c1'), ('c', 'c2'), ('d', 'c2')])], {}, NO_MATCH),
    ([('qa.jpg', 'a', 'c2'), ('qb.jpg', 'b', 'c2'), ('g0.jpg', 'c', 'c2'), ('g1.jpg', 'd', 'c2')],
     {}, NO_MATCH),
    ([(f'g{i}.jpg', identity, 'c1') for i, identity in enumerate('aabb')], {},
     'All 2 queries and 4 gallery images come from one camera, and images of a query\'s '
     'identity from its own camera are left out, so no query has a match. If there is only one '
     'camera, leave cameras out of the lists.'),
    ([(f'g{i}.jpg', identity, 'c2') for i, identity in enumerate('aabb')],
     dict(rerank=True, k1=6, k2=1), 'k1 is 6, but there are 6 images including the queries; '
     'set k1 to at most 5.'),
    ([(f'g{i}.jpg', identity, 'c2') for i, identity in enumerate('aabb')],
     dict(rerank=True, k1=2, k2=3, most_bytes=200), 'Re-ranking 6 images would take 360 bytes for '
     'their vectors, more than most_bytes, 200; ')])
def test_lists_are_looked_at_first(pretrained, tmp_path, gallery, options, message):
  found = lists(tmp_path, QUERY, gallery)
  found.evaluators.retrieval.update(options)
  assert message in refusal(found, pretrained, tmp_path / 'out')
  # What chooses nothing may stand beside what does: lists are no images.
  found.unlock().evaluators.knn = dict(k=1, temperature=.07)
  assert message in refusal(found, pretrained, tmp_path / 'out')
  reads = [json.loads(line)['split']
           for line in (tmp_path / 'out' / loading.ACCESS_LOG).read_text().splitlines()]
  assert 'test' not in reads


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('gallery, labels, test_labels, images', [
    ('test', [0, 1, 2] * 10, [0, 1, 2], 3), ('train', [0, 1] * 15, [2, 2, 2], 24)])
def test_classes_without_a_match_are_seen_in_the_labels(pretrained, tmp_path, gallery, labels,
                                                        test_labels, images):
  found = config('retrieval', gallery=gallery)
  found.data.update(arrays(tmp_path, labels, test_labels, num_classes=3))
  assert refusal(found, pretrained, tmp_path / 'out') == (
      f'None of the 3 queries has a match in the gallery of {images} images: a match is another '
      'image of its identity, from another camera if cameras are known. Check the identities and '
      'cameras.')


def test_beside_what_is_chosen_the_test_split_waits_and_is_still_not_encoded(
    pretrained, tmp_path, monkeypatch):
  """kNN needs features of the training images; those of the test images are not made."""
  found = config('retrieval', gallery='test')
  found.evaluators.knn = dict(k=1, temperature=.07)
  found.data.update(arrays(tmp_path, [0, 1, 2] * 10, [0, 1, 2]))
  extract, made = features.extract, []
  monkeypatch.setattr(features, 'extract', lambda *args, **kwargs: made.append(0) or extract(
      *args, **kwargs))
  assert 'None of the 3 queries has a match' in refusal(found, pretrained, tmp_path / 'out')
  assert len(made) == 2


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('name', ['features', 'grids', 'retrieval'])
def test_a_folder_that_cannot_be_written_is_said_first(pretrained, tmp_path, name):
  (tmp_path / name).write_text('a file')
  assert refusal(config('knn', k=3), pretrained, tmp_path) == (
      f'The workdir {tmp_path / name} is a file; give a folder as --workdir.')


PLUG_IN = '''
from byol_jax.errors import InputError

TITLE, MAIN_METRIC = 'images', 'share_{}'
METRICS = {'share_{}': 'share of {}'}


def check(facts, *, most):
  if facts.train.images > most:
    raise InputError(f'{facts.train.images} images are more than {most}.')


def fit(context, *, most):
  return len(context.features('train').embeddings) / most


def evaluate(fitted, context):
  return dict(share_7=fitted)


def describe(fitted):
  return dict(protocol='Counts.')
'''


def own_evaluator(tmp_path, monkeypatch, name, text=PLUG_IN):
  (tmp_path / f'{name}_package').mkdir()
  (tmp_path / f'{name}_package' / 'own.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  found = default.get_config().unlock()
  found.batch_size = 32
  found.evaluators[f'{name}_package.own'] = dict(most=128)
  return found


def test_an_evaluator_of_the_users_own_is_checked_run_and_shown(pretrained, tmp_path, monkeypatch):
  found = own_evaluator(tmp_path, monkeypatch, 'good')
  scores = evaluate.evaluate(found.lock(), pretrained, tmp_path / 'out')['encoders']['pretrained']
  assert scores == {'good_package.own': dict(share_7=.5, protocol='Counts.',
                                             options=dict(most=128))}
  assert (tmp_path / 'out' / 'results.md').read_text().startswith(
      '| encoder | images share of 7 |\n| --- | --- |\n| BYOL, frozen | 50.0 |\n')
  with found.unlocked():
    found.evaluators['good_package.own'].most = 63
  assert refusal(found, pretrained, tmp_path / 'out') == '64 images are more than 63.'


@pytest.mark.usefixtures('nothing_is_encoded')
@pytest.mark.parametrize('name, lacks, message', [
    ('main', "TITLE, MAIN_METRIC = 'images', 'share_{}'", 'has no constant MAIN_METRIC; '),
    ('metrics', "METRICS = {'share_{}': 'share of {}'}", 'has no constant METRICS; '),
    ('evaluate', 'def evaluate(fitted, context):\n  return dict(share_7=fitted)',
     'has no function evaluate.'),
    ('describe', "def describe(fitted):\n  return dict(protocol='Counts.')",
     'has no function describe.')])
def test_what_an_evaluator_of_the_users_own_lacks_is_said(pretrained, tmp_path, monkeypatch, name,
                                                          lacks, message):
  assert lacks in PLUG_IN
  found = own_evaluator(tmp_path, monkeypatch, name, PLUG_IN.replace(lacks, ''))
  text = refusal(found, pretrained, tmp_path / 'out')
  assert text.startswith(f"'{name}_package.own' is no module of the evaluators: it ")
  assert message in text


@pytest.mark.parametrize('name, asked, instead, message', [
    ('peeking', "context.features('train')", "context.features('test')",
     "^This context has features of train and validation, not of 'test'"),
    ('late', 'dict(share_7=fitted)', "context.features('train')",
     "^This context has features of test, not of 'train'")])
def test_an_evaluator_that_asks_for_the_images_of_the_other_function_is_stopped(
    pretrained, tmp_path, monkeypatch, name, asked, instead, message):
  found = own_evaluator(tmp_path, monkeypatch, name, PLUG_IN.replace(asked, instead))
  with pytest.raises(ValueError, match=message) as error:
    evaluate.evaluate(found.lock(), pretrained, tmp_path / 'out')
  assert not isinstance(error.value, InputError)
  reads = (tmp_path / 'out' / loading.ACCESS_LOG).read_text()
  assert ('"test"' in reads) == (name == 'late')


def test_a_main_metric_that_is_not_returned_is_said(pretrained, tmp_path, monkeypatch):
  found = own_evaluator(tmp_path, monkeypatch, 'other', PLUG_IN.replace('share_7=', 'shared='))
  assert refusal(found, pretrained, tmp_path / 'out') == (
      "Evaluator 'other_package.own' returned no 'share_{}', its MAIN_METRIC, but shared; correct "
      'its evaluate or the constant.')
