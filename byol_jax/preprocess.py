"""One record -> crops: TensorFlow functions of one image, for the tf.data path.

The crops follow the distribution of `augment.random_window`; the draws differ,
because TensorFlow's generator is another one.
"""

import math

import tensorflow as tf


def random_resized_crop(image: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float],
                        aspect: tuple[float, float], size: int) -> tf.Tensor:
  """A random window of an image, resized with bicubic interpolation.

  Args:
    image: uint8 [H, W, 3].
    seed: int32 [2], the draw's own.
    area: least and largest share of the image's area, drawn uniformly.
    aspect: least and largest width / height, drawn log-uniformly.
    size: side of the result in pixels.

  Returns:
    uint8 [size, size, 3].
  """
  draws = tf.random.stateless_uniform([4], seed)
  height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
  wanted = height * width * (area[0] + draws[0] * (area[1] - area[0]))
  low, high = map(math.log, aspect)
  ratio = tf.exp(low + draws[1] * (high - low))
  rows = tf.clip_by_value(tf.round(tf.sqrt(wanted / ratio)), 1., height)
  columns = tf.clip_by_value(tf.round(tf.sqrt(wanted * ratio)), 1., width)
  top = tf.floor(draws[2] * (height - rows + 1.))
  left = tf.floor(draws[3] * (width - columns + 1.))
  window = tf.image.crop_to_bounding_box(
      image, *(tf.cast(x, tf.int32) for x in (top, left, rows, columns)))
  resized = tf.image.resize(window, [size, size], tf.image.ResizeMethod.BICUBIC)
  return tf.cast(tf.round(tf.clip_by_value(resized, 0., 255.)), tf.uint8)


def two_crops(record: dict[str, tf.Tensor], *, seed: int, view1, view2, size: int
              ) -> dict[str, tf.Tensor]:
  """Replaces a record's `images` by `crop1` and `crop2`.

  Each crop's seed is a function of the run's seed, the epoch, the sample's id and
  the view, so that workers and hosts have no part in it.
  """
  record = dict(record)
  image = record.pop('images')
  sample = tf.random.experimental.stateless_fold_in(
      tf.random.experimental.stateless_fold_in(tf.constant([seed, 0]), record['epoch']),
      record['sample_id'])
  for number, policy in ((1, view1), (2, view2)):
    record[f'crop{number}'] = random_resized_crop(
        image, tf.random.experimental.stateless_fold_in(sample, number),
        area=policy['crop_area'], aspect=policy['crop_aspect'], size=size)
  return record
