import functools
import math

import jax
import numpy as np
import pytest

from byol_jax.augment import crops


def noise(*shape):
  return np.random.default_rng(0).random(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def crop(image, windows, size):
  return jax.vmap(lambda *w: crops.crop_and_resize(image, crops.Window(*w), size))(
      *windows.T)


WINDOWS = np.array([(0, 0, 13, 17), (3, 5, 8, 9), (12, 16, 1, 1), (0, 0, 1, 17), (2, 0, 11, 1),
                    (4, 4, 6, 6), (10, 2, 3, 2)])


@pytest.mark.parametrize('size', [6, 20])
def test_crop_and_resize_equals_cubic_resizing_of_the_slice(size):
  image = noise(13, 17, 3)
  for (top, left, height, width), actual in zip(WINDOWS, crop(image, WINDOWS, size)):
    window = image[top:top + height, left:left + width]
    expected = jax.image.resize(window, (size, size, 3), 'cubic', antialias=False)
    np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-5)


def test_crop_and_resize_equals_tensorflow_up_to_its_table_of_weights():
  tf = pytest.importorskip('tensorflow')
  image = noise(13, 17, 3)
  for (top, left, height, width), actual in zip(WINDOWS, crop(image, WINDOWS, 6)):
    expected = tf.image.resize(image[top:top + height, left:left + width], (6, 6), 'bicubic')
    np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-3)


def test_the_full_window_at_equal_size_is_the_image():
  image = noise(9, 9, 3)
  np.testing.assert_array_equal(crop(image, np.array([(0, 0, 9, 9)]), 9)[0], image)


@functools.partial(jax.jit, static_argnames='aspect')
def draw_windows(height, width, area, aspect):
  return jax.vmap(lambda key: crops.random_window(
      key, height, width, area=area, aspect=aspect))(jax.random.split(jax.random.key(0), 4000))


def windows(*options):
  return crops.Window(*map(np.asarray, draw_windows(*options)))


def numpy_windows(height, width, area, aspect):
  """Rows and columns drawn with another generator."""
  random = np.random.default_rng(1)
  wanted = height * width * random.uniform(*area, 4000)
  ratio = np.exp(random.uniform(*np.log(aspect), 4000))
  return (np.clip(np.round(np.sqrt(wanted / ratio)), 1, height),
          np.clip(np.round(np.sqrt(wanted * ratio)), 1, width))


WINDOW_OPTIONS = [(20, 30, (.08, 1.), (3 / 4, 4 / 3)), (32, 12, (.3, .5), (.5, 2.)),
                  (32, 32, (.2, .2), (.5, 2.)), (1, 1, (.08, 1.), (3 / 4, 4 / 3)),
                  (1, 40, (.08, 1.), (3 / 4, 4 / 3))]


@pytest.mark.parametrize('options', WINDOW_OPTIONS)
def test_windows_lie_inside_the_image(options):
  top, left, height, width = windows(*options)
  assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
  assert (top + height).max() <= options[0] and (left + width).max() <= options[1]


@pytest.mark.parametrize('options', WINDOW_OPTIONS)
def test_areas_and_aspects_are_distributed_as_in_numpy(options):
  window, (rows, columns) = windows(*options), numpy_windows(*options)
  for ours, theirs in ((window.height * window.width, rows * columns),
                       (np.log(window.width / window.height), np.log(columns / rows))):
    error = 5 * math.sqrt(2 / len(ours)) * theirs.std() + 1e-6
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=error)
    np.testing.assert_allclose(ours.std(), theirs.std(), atol=error)


@pytest.mark.parametrize('options', WINDOW_OPTIONS[:3])
def test_every_place_of_a_window_is_equally_likely(options):
  window = windows(*options)
  for start, extent, size in ((window.top, window.height, options[0]),
                              (window.left, window.width, options[1])):
    places = size - extent + 1
    np.testing.assert_allclose(((start + .5) / places).mean(), .5,
                               atol=5 / math.sqrt(12 * len(start)))
    assert (start == 0).any() and (start + extent == size).any()


# Middles.

center_view = jax.jit(crops.center_view, static_argnums=(1, 2, 3))
ORDERS = pytest.mark.parametrize('order', ['resize_first', 'crop_first'])


def middle(image, rows, columns):
  """The middle [rows, columns] of an image, one pixel after the exact middle if need be."""
  top, left = (math.floor((length - side + 1) / 2)
               for length, side in zip(image.shape, (rows, columns)))
  return image[top:top + rows, left:left + columns]


@ORDERS
@pytest.mark.parametrize('share, resized', [(.875, 9), (1, 8)])
@pytest.mark.parametrize('height, width', [(20, 31), (33, 20), (21, 21), (5, 7)], ids=[
    'landscape', 'portrait', 'square', 'smaller_than_the_view'])
def test_center_view_equals_resizing_and_slicing_in_tensorflow(height, width, share, resized,
                                                               order):
  tf = pytest.importorskip('tensorflow')
  image, short = noise(height, width, 3), min(height, width)
  if order == 'resize_first':
    shape = [round(length * resized / short) for length in (height, width)]
    expected = middle(tf.image.resize(image, shape, 'bicubic').numpy(), 8, 8)
  else:
    side = int(share * short)
    expected = tf.image.resize(middle(image, side, side), (8, 8), 'bicubic')
  actual = center_view(image, 8, share, order)
  assert actual.shape == (8, 8, 3)
  # TensorFlow reads its weights from a table.
  np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-3)


@ORDERS
@pytest.mark.parametrize('height, width, rows, columns', [
    (4, 9, slice(0, 4), slice(3, 7)), (7, 4, slice(2, 6), slice(0, 4)),
    (4, 6, slice(0, 4), slice(1, 5)), (4, 4, slice(0, 4), slice(0, 4))])
def test_the_whole_square_at_its_own_size_is_a_slice(height, width, rows, columns, order):
  image = noise(height, width, 3)
  np.testing.assert_array_equal(center_view(image, 4, 1., order), image[rows, columns])


@pytest.mark.parametrize('height, width, rows, columns', [
    (16, 16, slice(1, 15), slice(1, 15)), (17, 20, slice(2, 16), slice(3, 17))])
def test_crop_first_at_the_size_of_the_square_is_a_slice(height, width, rows, columns):
  image = noise(height, width, 3)
  np.testing.assert_array_equal(center_view(image, 14, .875, 'crop_first'), image[rows, columns])


@ORDERS
def test_the_middle_of_one_pixel_is_that_pixel(order):
  image = noise(1, 1, 3)
  np.testing.assert_allclose(center_view(image, 3, .875, order), np.tile(image, (3, 3, 1)),
                             atol=1e-6)
