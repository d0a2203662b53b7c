"""One record -> crops: TensorFlow functions of one image, for the tf.data path.

An image is decoded once and cropped once for each view. The crops follow the distribution of
`crops.random_window`, but the draws differ, because TensorFlow has another random generator.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf

from byol_jax.input_pipeline import image_files

# How training crops are resized; crops for evaluation are always bicubic.
RESIZE = dict(bicubic=tf.image.ResizeMethod.BICUBIC, bilinear=tf.image.ResizeMethod.BILINEAR)
# Long, narrow images are cut to this multiple of the shorter side before the middle is cropped.
LONGEST = 8


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """The bytes of an image file -> uint8 [H, W, 3].

  The formats are JPEG, PNG, GIF (only its first frame), BMP and WebP. Grayscale and CMYK become
  RGB, transparency is dropped, 16 bits become 8. Animated WebP and BMP with a palette are refused.
  """
  padded = tf.strings.join([tf.strings.substr(encoded, 0, 32), bytes(32)])
  head = tf.io.decode_raw(padded, tf.uint8)
  starts = lambda at, text: tf.reduce_all(head[at:at + len(text)] == list(text))
  webp = starts(0, b'RIFF') & starts(8, b'WEBP')
  animated = webp & starts(12, b'VP8X') & (tf.bitwise.bitwise_and(head[20], 2) > 0)
  # In TensorFlow 2.21 an animated WebP can crash the process, and a palette gives wrong colours.
  palette = starts(0, b'BM') & (head[28] <= 8)
  check = tf.debugging.Assert(~(animated | palette), ['animated WebP or BMP with a palette'])
  # In a graph, only this makes the decoder wait for the check, which is None
  # outside of a graph.
  with tf.control_dependencies([check] if check is not None else []):
    encoded = tf.identity(encoded)
  # A WebP with transparency can only be decoded to its own four channels.
  image = tf.cond(
      webp, lambda: tf.io.decode_image(encoded, expand_animations=False)[..., :3],
      lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False))
  return tf.ensure_shape(image, [None, None, 3])


# A JPEG without EXIF begins with JFIF's segment of 18 bytes, followed by its tables. Few files have
# EXIF after the tables.
_JFIF, _TABLES, _EXIF = b'\xff\xd8\xff\xe0\0\x10JF', b'\xff\xdb', rb'\C*Exif\C*'
# Number of bytes that are searched for EXIF: more than all tables take, and searched quickly.
_SEARCHED = 4096


def decode_file(encoded: tf.Tensor, *, upright: bool) -> tf.Tensor:
  """The bytes of an image file of any kind that `image_files` reads -> uint8 [H, W, 3].

  `image_files.route` decides from the content whether TensorFlow or Pillow decodes the file, and
  how it is rotated. The most common files, JPEG without EXIF, are recognised without Python.

  Args:
    encoded: bytes of the file.
    upright: whether to rotate the image according to its EXIF orientation; otherwise it is
      returned as stored.
  """
  # If these were bytes, NumPy would cut off the zeros at their end.
  encoded = tf.convert_to_tensor(encoded)
  head = tf.strings.join([tf.strings.substr(encoded, 0, 22), bytes(22)])
  plain = ((tf.strings.substr(head, 0, 8) == _JFIF) & (tf.strings.substr(head, 20, 2) == _TABLES)
           & ~tf.strings.regex_full_match(tf.strings.substr(encoded, 0, _SEARCHED), _EXIF))
  # Few operations, because a branch that is not taken also costs time.
  route = lambda content: np.int32(image_files.route(_bytes(content)))
  number = tf.cond(plain, lambda: tf.constant(1), lambda: tf.numpy_function(
      route, [encoded], tf.int32, stateful=False))
  image = tf.cond(
      number > 0, lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
      lambda: _by_pillow(encoded, upright))
  if upright:
    image = tf.cond(number > 1, lambda: turned(image, number), lambda: image)
  return tf.ensure_shape(image, [None, None, 3])


def turned(image: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
  """Rotates an image [H, W, 3] according to its EXIF orientation, 1 ... 8."""
  order = tf.constant([[0, 1, 2]] * 5 + [[1, 0, 2]] * 4)
  # Whether rows and columns are reversed afterwards.
  flips = tf.constant([[rows == 'r', columns == 'c', False] for rows, columns in (
      '--', '--', '-c', 'rc', 'r-', '--', '-c', 'rc', 'r-')])
  return tf.raw_ops.Reverse(tensor=tf.transpose(image, tf.gather(order, number)),
                            dims=tf.gather(flips, number))


def _bytes(content) -> bytes:
  """The bytes of a string in a Python function of TensorFlow: outside of a graph it is an array."""
  return content if isinstance(content, bytes) else content.item()


def _by_pillow(encoded: tf.Tensor, upright: bool) -> tf.Tensor:
  def pixels(content):
    try:
      return image_files.decode(_bytes(content), upright=upright)
    except ValueError:
      # An error raised here would print a traceback on the screen.
      return np.zeros((0, 0, 3), np.uint8)

  image = tf.numpy_function(pixels, [encoded], tf.uint8, stateful=False)
  check = tf.raw_ops.Assert(condition=tf.size(image) > 0, data=['no image that can be decoded'])
  # Needed only in a graph, where nothing else would wait for the check.
  with tf.control_dependencies([check] if check is not None else []):
    return tf.identity(image)


def random_resized_crop(image: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float],
                        aspect: tuple[float, float], size: int, resize: str) -> tf.Tensor:
  """A random window of an image, resized without antialiasing.

  Args:
    image: uint8 [H, W, 3].
    seed: int32 [2], seed of this draw.
    area: smallest and largest share of the image's area, drawn uniformly.
    aspect: smallest and largest width / height, drawn log-uniformly.
    size: side of the result in pixels.
    resize: a key of RESIZE.

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
  return _resize(window, [size, size], RESIZE[resize])


def crops(image: tf.Tensor, seed: tf.Tensor, *, policies: Sequence[Mapping[str, Any]],
          size: int, resize: str) -> dict[str, tf.Tensor]:
  """One crop for each view policy: `crop1`, `crop2`, ..., uint8, square.

  Args:
    image: uint8 [H, W, 3].
    seed: int32 [2], seed of this sample; each view folds in its own number.
    policies: one policy for each view, with `crop_area` and `crop_aspect`.
    size: side in pixels of the crops whose policy has no `image_size` of its own.
    resize: a key of RESIZE.
  """
  return {f'crop{number}': random_resized_crop(
      image, tf.random.experimental.stateless_fold_in(seed, number),
      area=policy['crop_area'], aspect=policy['crop_aspect'],
      size=policy.get('image_size', size), resize=resize)
          for number, policy in enumerate(policies, 1)}


def center_view(image: tf.Tensor, *, size: int, share: float, order: str) -> tf.Tensor:
  """`crops.center_view` of an image uint8 [H, W, 3], uint8 [size, size, 3]."""
  height, width = tf.unstack(tf.shape(image)[:2])
  short = tf.minimum(height, width)
  if order == 'resize_first':
    # Only the middle of a long, narrow image is resized: all of it could fill the memory.
    height, width = (tf.minimum(side, LONGEST * short) for side in (height, width))
    image = _middle(image, height, width)
    scale = round(size / share) / short
    shape = [tf.cast(tf.round(tf.cast(side, tf.float64) * scale), tf.int32)
             for side in (height, width)]
    image, side = tf.image.resize(image, shape, tf.image.ResizeMethod.BICUBIC), size
  else:
    side = tf.maximum(1, tf.cast(share * tf.cast(short, tf.float64), tf.int32))
  return _resize(_middle(image, side, side), [size, size], RESIZE['bicubic'])


def resized_window(image: tf.Tensor, window: Sequence[float], size: int, resize: str) -> tf.Tensor:
  """Resizes a window (top, left, height, width in shares of the sides) to uint8 [size, size, 3]."""
  shape = tf.cast(tf.shape(image)[:2], tf.float32)
  corner, extent = (tf.cast(tf.round(shape * tf.constant(part, tf.float32)), tf.int32)
                    for part in (window[:2], window[2:]))
  cut = tf.image.crop_to_bounding_box(image, *tf.unstack(tf.minimum(
      corner, tf.shape(image)[:2] - extent)), *tf.unstack(tf.maximum(extent, 1)))
  return _resize(cut, [size, size], RESIZE[resize])


def _middle(image: tf.Tensor, height, width) -> tf.Tensor:
  """The middle rows and columns; the extra row or column of an odd margin comes before them."""
  top, left = ((length - side + 1) // 2
               for length, side in zip(tf.unstack(tf.shape(image)[:2]), (height, width)))
  return tf.image.crop_to_bounding_box(image, top, left, height, width)


def _resize(image: tf.Tensor, shape, method) -> tf.Tensor:
  resized = tf.image.resize(image, shape, method)
  return tf.cast(tf.round(tf.clip_by_value(resized, 0., 255.)), tf.uint8)
