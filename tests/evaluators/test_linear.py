import json

import jax
import numpy as np
import pytest
from scipy.special import softmax

from byol_jax.errors import InputError
from byol_jax.evaluation import contract
from byol_jax.evaluation.contract import Features, FrozenEncoder
from byol_jax.evaluators import linear
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import Shards
from tests.evaluation.training_images import images_of
from tests.evaluators import by_features

_, evaluate = by_features.functions(linear)
SIZE, CLASSES, SHARDS, BATCH = 4, 7, Shards(4, (0, 1, 2, 3)), 8
# The view is the whole image, so that its embedding can be computed directly.
WHOLE = dict(crop_area=(1., 1.), crop_aspect=(1., 1.), flip_probability=0.)
RATES = (10., 40., 2.)
# 24 images in batches of 8: 13 steps.
TRAINING = dict(epochs=4.5, batch_size=BATCH, momentum=.9, view=WHOLE, seed=3)
OPTIONS = dict(TRAINING, num_classes=CLASSES, learning_rates=RATES, refit=False)


def pooled(images):
  """Means of 2 x 2 pixels, [B, 12]; images are [B, 4, 4, 3]."""
  return images.reshape(-1, 2, 2, 2, 2, 3).mean((2, 4)).reshape(-1, 12)


def encode(variables, views):
  return pooled(views) @ variables['weights']


def embed(variables, views):
  """`encode` in float64."""
  return pooled(np.float64(views)) @ np.float64(variables['weights'])


def whole(batch):
  return batch['images'] / 255.


@pytest.fixture(scope='module')
def variables():
  return {'weights': np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)}


def make_split(seed, count):
  random = np.random.default_rng(seed)
  return Split(np.arange(count, dtype=np.int32),
               random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
               random.integers(0, CLASSES, count, dtype=np.int32), count, CLASSES)


def make_images(variables, split, with_validation=None):
  return images_of(split, FrozenEncoder(encode, variables), size=SIZE, shards=SHARDS,
                   with_validation=with_validation)


def fit(images, validation, *, num_classes, **options):
  context, _ = contract.of_features(num_classes, validation=validation)
  return linear.fit(context._replace(images=images), **options)


@pytest.fixture(scope='module')
def train():
  return make_split(0, 24)


@pytest.fixture(scope='module')
def together():
  """The training images and twelve more."""
  return make_split(1, 36)


@pytest.fixture(scope='module')
def images(variables, train):
  """Calling `with_validation` of these raises."""
  return make_images(variables, train)


@pytest.fixture(scope='module')
def refit_images(variables, train, together):
  return make_images(variables, train, lambda: make_images(variables, together))


def as_features(embeddings, labels):
  return Features(embeddings.astype(np.float32), labels.astype(np.int32),
                  np.arange(len(labels), dtype=np.int32))


@pytest.fixture(scope='module')
def validation(variables):
  split = make_split(2, 200)
  return as_features(embed(variables, split.images / 255.), split.labels)


def reference(variables, split, rate, *, steps, momentum=.9, views=whole):
  """[D + 1, C]: weights over the bias of one classifier, trained alone in float64."""
  parameters, velocity = np.zeros((7, CLASSES)), 0.
  batches = split.host_batches(seed=TRAINING['seed'], batch_size=BATCH,
                               first_step=0, last_step=steps, shards=SHARDS)
  for number, batch in enumerate(batches):
    inputs = np.concatenate([embed(variables, views(batch)), np.ones((BATCH, 1))], axis=1)
    errors = softmax(inputs @ parameters, axis=1) - np.eye(CLASSES)[batch['labels']]
    gradient = inputs.T @ errors / BATCH
    velocity = momentum * velocity + gradient
    decay = (1 + np.cos(np.pi * number / steps)) / 2
    parameters = parameters - rate * BATCH / 256 * decay * (gradient + momentum * velocity)
  return parameters


def parameters(classifier, index=0):
  return np.concatenate([classifier.weights[index], classifier.bias[index][None]])


def assert_trained(classifier, expected, index=0):
  # Far from the start, where any training would do.
  assert np.abs(expected).max() > .1
  np.testing.assert_allclose(parameters(classifier, index), expected, rtol=2e-4, atol=2e-5)


@pytest.fixture(scope='module')
def classifiers(images):
  """Those of all RATES, trained in one run on all devices."""
  return linear._train(images, RATES, CLASSES, **TRAINING)


def predicted_by(classifiers, index, features):
  """The features, with the predictions of one classifier as their labels."""
  logits = features.embeddings @ classifiers.weights[index] + classifiers.bias[index]
  return features._replace(labels=np.argmax(logits, axis=1).astype(np.int32))


# Training.

def test_each_classifier_is_that_of_a_run_alone_on_any_number_of_devices(
    variables, train, images, devices, monkeypatch):
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  found = linear._train(images, RATES, CLASSES, **TRAINING)
  for index, rate in enumerate(RATES):
    assert_trained(found, reference(variables, train, rate, steps=13), index)


def test_training_side_by_side_changes_nothing(images, classifiers):
  alone = linear._train(images, RATES[1:2], CLASSES, **TRAINING)
  assert_trained(alone, parameters(classifiers, 1))


@pytest.mark.parametrize('changes, steps', [
    (dict(momentum=0.), 13), (dict(epochs=1), 3), (dict(epochs=.1), 1)],
                         ids=['no_momentum', 'one_epoch', 'less_than_a_step'])
def test_momentum_and_epochs_are_those_of_the_options(variables, train, images, changes, steps):
  momentum = changes.get('momentum', .9)
  found = linear._train(images, RATES, CLASSES, **TRAINING | changes)
  assert_trained(found, reference(variables, train, RATES[1], steps=steps, momentum=momentum), 1)


def test_views_are_drawn_from_the_policy_and_the_seed(variables, train, images):
  view = dict(crop_area=(.3, 1.), crop_aspect=(3 / 4, 4 / 3), flip_probability=.5)
  drawn = jax.jit(images.single_views(view, TRAINING['seed']))
  found = linear._train(images, RATES[:1], CLASSES, **TRAINING | dict(view=view))
  assert_trained(found, reference(variables, train, RATES[0], steps=13, views=drawn))


def test_the_encoder_is_frozen(variables, train, together, validation, devices, monkeypatch):
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  # On a device, where training could change or donate them.
  placed = jax.device_put(variables, devices[0])
  images = make_images(placed, train, lambda: make_images(placed, together))
  fit(images, validation, **OPTIONS | dict(refit=True))
  np.testing.assert_array_equal(placed['weights'], variables['weights'])


# The choice.

@pytest.mark.parametrize('best', range(len(RATES)))
def test_the_learning_rate_with_the_best_validation_top1_is_chosen(
    images, classifiers, validation, best):
  validation = predicted_by(classifiers, best, validation)
  fitted = fit(images, validation, **OPTIONS)
  described = linear.describe(fitted)
  scores = [candidate['top1'] for candidate in described['candidates']]
  assert [candidate['learning_rate'] for candidate in described['candidates']] == [*RATES]
  assert scores[best] == 1 and sorted(scores)[-2] < 1
  assert (described['learning_rate'], described['validation_top1']) == (RATES[best], 1)
  assert_trained(fitted.classifier, parameters(classifiers, best))
  for index, score in enumerate(scores):
    labels = predicted_by(classifiers, index, validation).labels
    assert score == pytest.approx(np.mean(labels == validation.labels))


def test_the_first_of_equals_is_chosen(images, classifiers, validation):
  # One image on which the classifiers agree.
  agreed = np.flatnonzero(np.ptp([predicted_by(classifiers, index, validation).labels
                                  for index in range(len(RATES))], axis=0) == 0)[:1]
  image = Features(*(array[agreed] for array in predicted_by(classifiers, 0, validation)))
  described = linear.describe(fit(images, image, **OPTIONS))
  assert [candidate['top1'] for candidate in described['candidates']] == [1, 1, 1]
  # Neither the smallest nor the largest.
  assert described['learning_rate'] == RATES[0]


def test_the_test_images_choose_nothing(images, classifiers, validation):
  fitted = fit(images, predicted_by(classifiers, 0, validation), **OPTIONS)
  before = json.dumps(linear.describe(fitted))
  assert evaluate(fitted, predicted_by(classifiers, 1, validation))['top1'] < 1
  assert evaluate(fitted, predicted_by(classifiers, 0, validation))['top1'] == 1
  assert json.dumps(linear.describe(fitted)) == before


# The refit.

def test_a_refit_trains_on_training_and_validation_images(
    variables, refit_images, together, classifiers, validation):
  fitted = fit(refit_images, predicted_by(classifiers, 0, validation),
                      **OPTIONS | dict(refit=True))
  # 4.5 passes over 36 images.
  assert_trained(fitted.classifier, reference(variables, together, RATES[0], steps=20))
  described = linear.describe(fitted)
  assert 'trained once more on training and held-out images' in described['protocol']
  assert described['refit']
  assert described['learning_rate'] == RATES[0] and len(described['candidates']) == len(RATES)
  assert (described['train_images'], described['validation_images']) == (36, 200)


def test_without_a_refit_the_training_images_are_all(images, validation):
  described = linear.describe(fit(images, validation, **OPTIONS))
  assert 'trained once more' not in described['protocol']
  assert not described['refit']
  assert (described['train_images'], described['validation_images']) == (24, 200)


def test_what_differs_from_the_paper_is_listed(images, validation):
  described = linear.describe(fit(images, validation, **OPTIONS))
  differing = {text.split()[0] for text in described['differs_from_paper']}
  assert differing == {key for key, value in linear.PAPER.items()
                       if (OPTIONS | dict(learning_rates=tuple(RATES)))[key] != value}
  assert described['chosen_at_edge'] == (described['learning_rate'] in (min(RATES), max(RATES)))


def test_classifiers_that_all_diverge_are_an_error(images, validation, monkeypatch):
  train = linear._train
  monkeypatch.setattr(linear, '_train', lambda *args, **kwargs: jax.tree.map(
      lambda x: x * np.nan, train(*args, **kwargs)))
  with pytest.raises(InputError, match='All classifiers of the linear evaluation have diverged'):
    fit(images, validation, **OPTIONS)


def test_describe_is_json(images, validation):
  described = json.loads(json.dumps(linear.describe(fit(images, validation, **OPTIONS))))
  assert 'appendix C.1 of the paper' in described['protocol']
  assert described['learning_rate'] in RATES
  assert all(candidate.keys() == {'learning_rate', 'top1', 'top5'}
             for candidate in described['candidates'])
  assert described['validation_top1'] == max(c['top1'] for c in described['candidates'])
  assert all(described[name] == TRAINING[name]
             for name in ('epochs', 'batch_size', 'momentum', 'seed'))
  assert described['view']['crop_area'] == [1, 1]


# Scores.

def fitted_by_hand(weights, bias):
  classifier = linear.Classifiers(np.float32([weights]), np.float32([bias]))
  return linear.Fitted(classifier, ((.1, dict(top1=.5)),), 0, dict(refit=False), 24, 12)


def test_top1_and_top5_are_those_counted_by_hand():
  # Class c scores as dimension c does, and class 6 has one more.
  fitted = fitted_by_hand(np.eye(7), [0, 0, 0, 0, 0, 0, 1])
  embeddings = np.array([[9., 5, 4, 3, 2, 1, 0], [9., 5, 4, 3, 2, 1, 0], [9., 5, 4, 3, 2, 1, 0],
                         [0, 0, 0, 0, 0, 2.5, 2]])
  # Ranked first, fifth, sixth, and first thanks to the bias.
  found = evaluate(fitted, as_features(embeddings, np.array([0, 4, 5, 6])))
  assert found == dict(top1=.5, top5=.75)


def test_there_is_no_top5_of_five_classes():
  fitted = fitted_by_hand(np.eye(5), np.zeros(5))
  found = evaluate(fitted, as_features(np.eye(5), np.array([0, 1, 2, 3, 0])))
  assert found == dict(top1=.8)


def test_separable_classes_are_all_told_apart_on_random_views(variables):
  colours = np.array([[r, g, b] for r in (50, 200) for g in (50, 200) for b in (50, 200)])[1:]
  random = np.random.default_rng(0)

  def make(count):
    labels = np.arange(count, dtype=np.int32) % CLASSES
    noise = random.integers(-9, 10, (count, SIZE, SIZE, 3))
    pixels = (colours[labels][:, None, None] + noise).astype(np.uint8)
    return Split(np.arange(count, dtype=np.int32), pixels, labels, count, CLASSES)

  split, validation, test = make(56), make(28), make(70)
  held_out, tested = (as_features(embed(variables, part.images / 255.), part.labels)
                      for part in (validation, test))
  view = dict(crop_area=(.08, 1.), crop_aspect=(3 / 4, 4 / 3), flip_probability=.5)
  fitted = fit(make_images(variables, split), held_out, **OPTIONS | dict(
      view=view, epochs=60, learning_rates=(.001, 10.)))
  assert linear.describe(fitted)['learning_rate'] == 10
  assert linear.describe(fitted)['validation_top1'] == 1
  assert evaluate(fitted, tested) == dict(top1=1, top5=1)


# Errors.

def test_labels_out_of_range_are_said(images, validation):
  with pytest.raises(InputError, match=r'validation labels run from 0 to 6, outside 0 \.\.\. 5'):
    fit(images, validation, **OPTIONS | dict(num_classes=6))


def test_rejects_unlabelled_images(images, validation):
  with pytest.raises(InputError, match='200 validation images have no labels'):
    fit(images, validation._replace(labels=None), **OPTIONS)
  with pytest.raises(InputError, match='200 test images have no labels'):
    evaluate(fitted_by_hand(np.zeros((6, 7)), np.zeros(7)),
                    validation._replace(labels=None))
