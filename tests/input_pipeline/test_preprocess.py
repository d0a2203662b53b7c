import jax
import numpy as np
import pytest
from scipy import stats

from byol_jax.augment import crops
from byol_jax.input_pipeline import preprocess, tf_pipeline

tf = pytest.importorskip('tensorflow')
# After TensorFlow, which it imports.


HEIGHT, WIDTH, COUNT = 20, 30, 2000
AREA, ASPECT = (.3, 1.), (3 / 4, 4 / 3)


def seeds(count):
  return np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.int32)


def crop(image, seed, area, aspect, size, resize='bicubic'):
  return preprocess.random_resized_crop(tf.constant(image), tf.constant(seed, tf.int32), area=area,
                                        aspect=aspect, size=size, resize=resize).numpy()


@pytest.fixture(scope='module')
def windows():
  """Top, left, height and width of 2000 crops, read off an image of its own coordinates."""
  rows, columns = np.mgrid[:HEIGHT, :WIDTH] * 8
  image = tf.constant(np.stack([rows, columns, rows], axis=-1), tf.uint8)
  found_crops = tf.function(lambda: tf.map_fn(
      lambda seed: preprocess.random_resized_crop(image, seed, area=AREA, aspect=ASPECT, size=8,
                                                  resize='bicubic'),
      tf.constant(seeds(COUNT)), tf.uint8))().numpy() / 8
  # Away from the border, cubic interpolation reproduces the ramps: position i of the
  # result lies at start + (i + 1/2) extent / 8 - 1/2.
  vertical, horizontal = found_crops[:, :, 4, 0], found_crops[:, 4, :, 1]
  found = {}
  for name, ramp in (('vertical', vertical), ('horizontal', horizontal)):
    extent = np.rint((ramp[:, 5] - ramp[:, 2]) * 8 / 3)
    found[name] = np.rint((ramp[:, 2] + ramp[:, 5]) / 2 + .5 - extent / 2), extent
  (top, height), (left, width) = found['vertical'], found['horizontal']
  return crops.Window(top, left, height, width)


@pytest.fixture(scope='module')
def device_windows():
  draw = jax.jit(jax.vmap(lambda key: crops.random_window(
      key, HEIGHT, WIDTH, area=AREA, aspect=ASPECT)))
  return crops.Window(*map(np.asarray, draw(jax.random.split(jax.random.key(0), COUNT))))


def test_windows_lie_inside_the_image(windows):
  assert windows.top.min() == 0 and windows.left.min() == 0
  assert (windows.top + windows.height).max() == HEIGHT
  assert (windows.left + windows.width).max() == WIDTH


@pytest.mark.parametrize('quantity', [
    lambda w: w.height * w.width, lambda w: w.width / w.height,
    lambda w: (w.top + .5) / (HEIGHT - w.height + 1),
    lambda w: (w.left + .5) / (WIDTH - w.width + 1)], ids=['area', 'aspect', 'top', 'left'])
def test_windows_are_distributed_as_on_the_device(windows, device_windows, quantity):
  ours, theirs = quantity(windows), quantity(device_windows)
  error = 5 * np.sqrt(2 / COUNT) * theirs.std()
  np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=error)
  np.testing.assert_allclose(ours.std(), theirs.std(), atol=error)
  assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize('size', [7, 9])
def test_the_whole_image_resized_equals_the_crop_on_the_device(size):
  image = np.random.default_rng(0).integers(0, 256, (7, 7, 3)).astype(np.uint8)
  expected = jax.jit(crops.crop_and_resize, static_argnums=2)(
      (image / 255).astype(np.float32), crops.Window(0, 0, 7, 7), size)
  actual = crop(image, (0, 0), (1., 1.), (1., 1.), size)
  assert actual.dtype == np.uint8
  np.testing.assert_allclose(actual / 255, expected, atol=1 / 255)
  if size == 7:
    np.testing.assert_array_equal(actual, image)


def test_bilinear_crops_are_another_interpolation_of_the_same_window():
  # Of a ramp both give the same away from the border, of noise they do not.
  ramp = np.tile(np.arange(40, dtype=np.uint8)[:, None, None] * 6, (1, 40, 3))
  noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
  for image, same in ((ramp, True), (noise, False)):
    two = [crop(image, (5, 0), (.3, .9), ASPECT, 9, resize)[2:-2].astype(int)
           for resize in preprocess.RESIZE]
    assert (np.abs(two[0] - two[1]).max() <= 1) == same


def test_an_image_of_one_pixel():
  image = np.array([[[3, 200, 255]]], np.uint8)
  np.testing.assert_array_equal(crop(image, (0, 0), AREA, ASPECT, 2), np.tile(image, (2, 2, 1)))


POLICY = dict(crop_area=(.1, .6), crop_aspect=ASPECT)


def cropped(seed, policies=(POLICY, POLICY)):
  image = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
  found = preprocess.crops(tf.constant(image), tf.constant(seed, tf.int32), policies=policies,
                           size=6, resize='bicubic')
  return image, {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize('views', [1, 2, 3])
def test_there_is_a_crop_for_each_policy(views):
  _, found = cropped((0, 0), [POLICY] * views)
  assert list(found) == [f'crop{i + 1}' for i in range(views)]
  for crop in found.values():
    assert crop.shape == (6, 6, 3) and crop.dtype == np.uint8


def test_crops_are_a_function_of_the_seed_and_the_view():
  drawn = [crop.tobytes() for seed in ((0, 0), (0, 1), (1, 0))
           for crop in cropped(seed)[1].values()]
  assert len(set(drawn)) == 6
  assert [crop.tobytes() for crop in cropped((0, 0))[1].values()] == drawn[:2]


def test_each_view_follows_its_own_policy():
  whole = dict(crop_area=(1., 1.), crop_aspect=(1., 1.))
  image, found = cropped((0, 0), [whole, whole | dict(crop_area=(.02, .02))])
  np.testing.assert_array_equal(found['crop1'], image)
  np.testing.assert_array_equal(np.ptp(found['crop2'], axis=(0, 1)), 0)


def test_the_pipelines_crops_depend_on_seed_epoch_and_sample_alone():
  image = tf.constant(np.random.default_rng(0).integers(0, 256, (9, 12, 3)), tf.uint8)

  def crop(seed, epoch, sample_id):
    record = dict(epoch=tf.constant(epoch), sample_id=tf.constant(sample_id))
    return tf_pipeline.random_crops(seed, [POLICY], 6, 'bicubic')(
        image, record)['crop1'].numpy().tobytes()

  draws = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
  assert len({crop(*draw) for draw in draws}) == 4
  assert crop(0, 0, 0) == crop(0, 0, 0)
