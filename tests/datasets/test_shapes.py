import numpy as np
import pytest

from byol_jax.datasets import shapes
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import PARTS, TOGETHER, Shards

OPTIONS = dict(image_size=24, train_examples=100, validation_examples=33, test_examples=50, seed=0)


def load(split='train', shards=Shards(), **changes):
  return splits.read('shapes', split, purpose='a test', shards=shards, options=OPTIONS | changes)


@pytest.fixture(scope='module')
def train():
  return load(image_size=32, train_examples=2000)


def test_shapes_and_dtypes_are_the_contracts(train):
  assert train.images.shape == (2000, 32, 32, 3) and train.images.dtype == np.uint8
  assert train.labels.shape == (2000,) and train.labels.dtype == np.int32
  np.testing.assert_array_equal(train.sample_id, np.arange(2000))
  assert (train.num_examples, train.num_classes) == (2000, 10)
  assert train.class_names[2] == 'striped square' and len(train.class_names) == 10
  assert len(shapes.CLASS_NAMES) == len(set(shapes.CLASS_NAMES)) == 10


@pytest.mark.parametrize('split, count', list(zip(PARTS, (100, 33, 50))))
def test_classes_are_balanced_to_within_one(split, count):
  counts = np.bincount(load(split).labels, minlength=10)
  assert counts.sum() == count and counts.max() - counts.min() <= 1


@pytest.mark.parametrize('shards', [Shards(4, (1,)), Shards(5, (0, 3)), Shards(100, (42,))])
def test_an_image_does_not_depend_on_what_else_is_drawn(shards):
  whole, part = load(), load(shards=shards)
  np.testing.assert_array_equal(part.sample_id, shards.sample_ids(100))
  np.testing.assert_array_equal(part.images, whole.images[part.sample_id])
  np.testing.assert_array_equal(part.labels, whole.labels[part.sample_id])
  assert part.num_examples == 100


def test_an_image_does_not_depend_on_the_size_of_the_split():
  np.testing.assert_array_equal(load(train_examples=300).images[:100], load().images)


def test_splits_and_seeds_share_no_image():
  images = [load(split, **{f'{split}_examples': 30}).images for split in PARTS]
  images += [load(train_examples=30, seed=seed).images for seed in (1, -1)]
  assert len({image.tobytes() for part in images for image in part}) == 150


@pytest.mark.parametrize('shards', [Shards(), Shards(5, (1, 3))])
def test_training_and_held_out_images_together(shards):
  parts, both = [load('train'), load('validation')], load(TOGETHER, shards)
  assert both.num_examples == 133
  np.testing.assert_array_equal(both.sample_id, shards.sample_ids(133))
  for name in ('images', 'labels'):
    expected = np.concatenate([getattr(part, name) for part in parts])[both.sample_id]
    np.testing.assert_array_equal(getattr(both, name), expected)


def test_classes_differ_in_no_first_order_statistic(train):
  """The nearest class mean of colour, spread and raw pixels is near chance."""
  pixels = train.images.reshape(2000, -1, 3).astype(np.float64)
  for features in (pixels.mean(axis=1), pixels.reshape(2000, -1)):
    means = np.stack([features[:1000][train.labels[:1000] == c].mean(axis=0) for c in range(10)])
    distance = np.square(features[1000:, None] - means).sum(axis=-1)
    assert np.mean(distance.argmin(axis=1) == train.labels[1000:]) < .2


def test_objects_stand_out_from_the_ground_lighter_and_darker(train):
  gray = train.images.mean(axis=-1)
  contrast = np.median(gray[:, 12:20, 12:20], axis=(1, 2)) - np.median(gray[:, 0], axis=1)
  assert .3 < np.mean(contrast > 0) < .7
  assert gray.std(axis=(1, 2)).min() > 10
