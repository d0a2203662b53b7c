"""One record -> crops: TensorFlow functions of one image, for the tf.data path.

An image is decoded once and cropped as often as there are views. The crops follow
the distribution of `crops.random_window`; the draws differ, because TensorFlow's
generator is another one.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf

from byol_jax import image_files

# How training crops are resized; an evaluation's are always bicubic.
RESIZE = dict(bicubic=tf.image.ResizeMethod.BICUBIC, bilinear=tf.image.ResizeMethod.BILINEAR)
# Times the shorter side: what is looked at of a strip, before the middle is cut out.
LONGEST = 8


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """The bytes of an image file -> uint8 [H, W, 3].

  JPEG, PNG, GIF (its first frame), BMP, WebP. Gray and CMYK become RGB, transparency
  is dropped, 16 bits become 8. Animated WebP and BMP with a palette are refused.
  """
  padded = tf.strings.join([tf.strings.substr(encoded, 0, 32), bytes(32)])
  head = tf.io.decode_raw(padded, tf.uint8)
  starts = lambda at, text: tf.reduce_all(head[at:at + len(text)] == list(text))
  webp = starts(0, b'RIFF') & starts(8, b'WEBP')
  animated = webp & starts(12, b'VP8X') & (tf.bitwise.bitwise_and(head[20], 2) > 0)
  # With TensorFlow 2.21 the one can end the process, the other gives wrong colours.
  palette = starts(0, b'BM') & (head[28] <= 8)
  check = tf.debugging.Assert(~(animated | palette), ['animated WebP or BMP with a palette'])
  # In a graph nothing else would keep the decoder from starting before the check ends;
  # it is None outside of one.
  with tf.control_dependencies([check] if check is not None else []):
    encoded = tf.identity(encoded)
  # A WebP with transparency decodes to its own four channels only.
  image = tf.cond(
      webp, lambda: tf.io.decode_image(encoded, expand_animations=False)[..., :3],
      lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False))
  return tf.ensure_shape(image, [None, None, 3])


def decode_file(encoded: tf.Tensor, *, upright: bool) -> tf.Tensor:
  """The bytes of an image file of any kind that `image_files` reads -> uint8 [H, W, 3].

  What a file is stands in its first bytes. JPEG and PNG decode as with `decode`, and call no
  Python unless they have EXIF. Of the others `image_files.route` says whether TensorFlow decodes
  them as well.

  Args:
    encoded: of the file.
    upright: turned as the EXIF orientation says; otherwise as it is stored.
  """
  padded = tf.strings.join([tf.strings.substr(encoded, 0, 24), bytes(24)])
  head = tf.io.decode_raw(tf.strings.substr(padded, 0, 24), tf.uint8)
  jpeg, png = (tf.reduce_all(head[:3] == list(start)) for start in (b'\xff\xd8\xff', b'\x89PN'))
  number = tf.cond(
      jpeg, lambda: _of_jpeg(encoded, head) if upright else tf.constant(1),
      lambda: tf.cond(png, lambda: _of_png(encoded, padded, upright),
                      lambda: _number(image_files.route, encoded, upright)))
  # Few operations, as those of branches that are not taken cost time too.
  image = tf.cond(
      number > 0, lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
      lambda: _by_pillow(encoded, upright))
  return tf.ensure_shape(tf.cond(number > 1, lambda: turned(image, number), lambda: image),
                         [None, None, 3])


def turned(image: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
  """An image [H, W, 3] as its EXIF orientation says, 1 ... 8."""
  swapped = tf.transpose(image, tf.where(number > 4, [1, 0, 2], [0, 1, 2]))
  # Of rows and of columns.
  flips = [[], [], [0, 1], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]]
  flips = tf.constant([bool(part) and list(map(bool, part)) + [False] or [False] * 3
                       for part in flips])
  return tf.raw_ops.Reverse(tensor=swapped, dims=tf.gather(flips, number))


def _of_jpeg(encoded: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
  """The orientation of a JPEG, int32 []."""
  # JFIF's segment of 18 bytes can stand before that of EXIF; before the tables, with which an
  # image without EXIF goes on, there is a marker from 0xE0 on.
  at = tf.where(tf.reduce_all(head[2:6] == [0xFF, 0xE0, 0, 16]), 20, 2)
  first = tf.strings.substr(encoded, 0, image_files.SEARCHED)
  found = tf.cond(head[at + 1] >= 0xE0, lambda: _contains(first, b'Exif\0\0'),
                  lambda: tf.constant(False))
  return tf.cond(found, lambda: _number(image_files.jpeg_orientation, first, True),
                 lambda: tf.constant(1))


def _of_png(encoded: tf.Tensor, padded: tf.Tensor, upright: bool) -> tf.Tensor:
  """The orientation of a PNG, int32 []; 0 where it is too large."""
  sides = tf.io.decode_raw(tf.strings.substr(padded, 16, 8), tf.int32, little_endian=False)
  fits = tf.reduce_prod(tf.cast(sides, tf.float32)) <= image_files.MOST_PIXELS
  if not upright:
    return tf.cast(fits, tf.int32)
  has_exif = _contains(encoded, b'eXIf') | _contains(encoded, b'Raw profile type exif')
  return tf.cond(has_exif, lambda: _number(image_files.orientation, encoded, True),
                 lambda: tf.constant(1)) * tf.cast(fits, tf.int32)


def _contains(text: tf.Tensor, part: bytes) -> tf.Tensor:
  """Whether a part occurs in a string of bytes, bool []."""
  return tf.size(tf.strings.split(text[None], part, maxsplit=1).flat_values) > 1


def _number(function: Callable[..., int], encoded: tf.Tensor, upright: bool) -> tf.Tensor:
  """A Python function of an image file's bytes, int32 []."""
  number = lambda content: np.int32(function(content) if upright else min(function(content), 1))
  return tf.ensure_shape(tf.numpy_function(number, [encoded], tf.int32, stateful=False), [])


def _by_pillow(encoded: tf.Tensor, upright: bool) -> tf.Tensor:
  def pixels(content):
    try:
      return image_files.decode(content, upright=upright)
    except ValueError:
      # An error from here would come with a traceback on the screen.
      return np.zeros((0, 0, 3), np.uint8)

  image = tf.numpy_function(pixels, [encoded], tf.uint8, stateful=False)
  check = tf.debugging.Assert(tf.size(image) > 0, ['no image that can be decoded'])
  with tf.control_dependencies([check] if check is not None else []):
    return tf.identity(image)


def random_resized_crop(image: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float],
                        aspect: tuple[float, float], size: int, resize: str) -> tf.Tensor:
  """A random window of an image, resized without antialiasing.

  Args:
    image: uint8 [H, W, 3].
    seed: int32 [2], the draw's own.
    area: least and largest share of the image's area, drawn uniformly.
    aspect: least and largest width / height, drawn log-uniformly.
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
    seed: int32 [2], the sample's own; each view folds its number in.
    policies: with `crop_area` and `crop_aspect`.
    size: side of the crops in pixels, of those whose policy has no `image_size` of its own.
    resize: a key of RESIZE.
  """
  return {f'crop{number}': random_resized_crop(
      image, tf.random.experimental.stateless_fold_in(seed, number),
      area=policy['crop_area'], aspect=policy['crop_aspect'],
      size=policy.get('image_size', size), resize=resize)
          for number, policy in enumerate(policies, 1)}


def center_view(image: tf.Tensor, *, size: int, share: float, order: str) -> tf.Tensor:
  """`crops.center_view` of a uint8 image [H, W, 3], uint8 [size, size, 3]."""
  height, width = tf.unstack(tf.shape(image)[:2])
  short = tf.minimum(height, width)
  if order == 'resize_first':
    # Of a strip only the middle is resized: the whole could fill the memory.
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
  """A window (top, left, height, width), in shares of the image's sides, uint8 [size, size, 3]."""
  shape = tf.cast(tf.shape(image)[:2], tf.float32)
  corner, extent = (tf.cast(tf.round(shape * tf.constant(part, tf.float32)), tf.int32)
                    for part in (window[:2], window[2:]))
  cut = tf.image.crop_to_bounding_box(image, *tf.unstack(tf.minimum(
      corner, tf.shape(image)[:2] - extent)), *tf.unstack(tf.maximum(extent, 1)))
  return _resize(cut, [size, size], RESIZE[resize])


def _middle(image: tf.Tensor, height, width) -> tf.Tensor:
  """The middle rows and columns; the extra one of an odd margin is before them."""
  top, left = ((length - side + 1) // 2
               for length, side in zip(tf.unstack(tf.shape(image)[:2]), (height, width)))
  return tf.image.crop_to_bounding_box(image, top, left, height, width)


def _resize(image: tf.Tensor, shape, method) -> tf.Tensor:
  resized = tf.image.resize(image, shape, method)
  return tf.cast(tf.round(tf.clip_by_value(resized, 0., 255.)), tf.uint8)
