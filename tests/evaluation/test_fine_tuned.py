import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuned, fine_tuning
from byol_jax.evaluation.contract import Features
from byol_jax.evaluation.scoring import mean_per_class
from tests.evaluation import fine_tuning_parts as parts


def weights(w, b):
  return fine_tuning.Weights({'classifier': dict(w=np.float32(w), b=np.float32(b))}, {})


def features(embeddings, labels):
  return Features(np.float32(embeddings), np.int32(labels), np.arange(len(labels)))


def test_scores_are_those_counted_by_hand():
  # Class c scores as dimension c does. Right: 3 of 4 of class 0, 0 of 1 of class 1, none of 2.
  embeddings = [[9, 1, 0], [9, 1, 0], [9, 1, 0], [0, 1, 0], [5, 4, 0]]
  found = fine_tuned.scores(weights(np.eye(3), np.zeros(3)),
                            lambda _: features(embeddings, [0, 0, 0, 0, 1]), 'top1')
  assert found == dict(top1=.6, mean_per_class=pytest.approx(.375))


def test_the_mean_per_class_is_of_the_classes_that_occur():
  assert mean_per_class(np.array([0, 0, 3, 0]), np.array([7, 7, 7, 2])) == pytest.approx(5 / 6)


def test_there_is_no_score_of_what_has_diverged():
  assert fine_tuned.scores(None, None, 'top1') is None
  assert fine_tuned.scores(weights(np.eye(3), np.zeros(3)),
                           lambda _: features([[np.inf, 0, 0]], [0]), 'top1') is None


def check(split=None, images=None, num_classes=3, metric='top1'):
  images = images or parts.make_images(split or parts.make_split(0, 24))
  fine_tuned.check('an_evaluator', parts.fit_context(images, num_classes=num_classes), metric)


def test_a_metric_of_other_labels_is_said():
  with pytest.raises(InputError, match='one label per image; set metric to top1 or mean_per_cl'):
    check(metric='map_voc07')


def test_classes_without_training_images_are_named_ten_at_most():
  split = parts.make_split(0, 24)
  split.labels[split.labels == 1] = 0
  with pytest.raises(InputError, match='^1 of 3 classes have no image among the 24 .*: 1. Use'):
    check(split)
  with pytest.raises(InputError, match=r'^13 of 15 .*: 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...\. Use'):
    check(split, num_classes=15)


def test_a_class_of_several_must_be_present_in_an_image():
  split = parts.with_several_labels(parts.make_split(0, 24))
  check(split, metric='map_voc07')
  split.labels[:, 2] = -1
  with pytest.raises(InputError, match='^1 of 3 classes have no image among the 24 .*: 2. Use'):
    check(split, metric='map_voc07')


def test_an_encoder_without_training_is_refused():
  images = parts.make_images(parts.make_split(0, 24))
  with pytest.raises(InputError, match='raw pixels have none'):
    check(images=images._replace(encoder=images.encoder._replace(training=None)))


def test_unusable_validation_images_are_said_before_the_training():
  split = parts.make_split(0, 24)
  checked = lambda validation, metric='top1': fine_tuned.checked_validation(
      parts.fit_context(parts.make_images(split), validation), metric)
  with pytest.raises(InputError, match='24 validation images have no labels'):
    checked(split._replace(labels=None))
  several = parts.with_several_labels(split)
  several.labels[:, 1] = 0
  with pytest.raises(InputError, match='None of the 24 images has class 1'):
    checked(several, 'map_voc07')
  count, digest = checked(split)
  other = checked(split._replace(labels=split.labels[::-1]))
  assert count == 24 and digest != other[1]
