"""Crops a view from an image and resizes it, on the device.

Windows are drawn or placed on whole pixels. Resizing is Keys' bicubic interpolation,
written as two products with a weight matrix, which vmap over images and run on matrix
units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Window(NamedTuple):
  """A crop in whole pixels: rows top ... top + height - 1, and the same for columns."""

  top: jax.Array
  left: jax.Array
  height: jax.Array
  width: jax.Array


def random_window(key: jax.Array, height: int, width: int, *, area: tuple[float, float],
                  aspect: tuple[float, float]) -> Window:
  """Draws a window of an image [height, width] (paper, appendix B).

  Args:
    key: this draw's own key.
    height: rows of the image.
    width: columns of the image.
    area: least and largest share of the image's area, drawn uniformly.
    aspect: least and largest width / height, drawn log-uniformly.

  The window is drawn once and clipped to the image, as in the reference.
  """
  area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
  wanted = height * width * uniform(area_key, *area)
  ratio = jnp.exp(uniform(aspect_key, np.log(aspect[0]), np.log(aspect[1])))
  rows = jnp.clip(jnp.round(jnp.sqrt(wanted / ratio)), 1, height).astype(jnp.int32)
  columns = jnp.clip(jnp.round(jnp.sqrt(wanted * ratio)), 1, width).astype(jnp.int32)
  return Window(top=jax.random.randint(top_key, (), 0, height - rows + 1, jnp.int32),
                left=jax.random.randint(left_key, (), 0, width - columns + 1, jnp.int32),
                height=rows, width=columns)


def crop_and_resize(image: jax.Array, window: Window, size: int) -> jax.Array:
  """Resizes the window to [size, size, 3] with bicubic interpolation, clipped to [0, 1].

  Uses Keys' cubic with a = -0.5 at half-pixel centres, without antialiasing, and
  renormalises the weights at the border of the window, like `tf.image.resize`.
  """
  rows = _cubic_weights(image.shape[0], window.top, window.height, size, image.dtype)
  columns = _cubic_weights(image.shape[1], window.left, window.width, size, image.dtype)
  resized = jnp.einsum('xw,ywc->yxc', columns, jnp.einsum('yh,hwc->ywc', rows, image))
  return jnp.clip(resized, 0., 1.)


def center_view(image: jax.Array, size: int, share: float, order: str) -> jax.Array:
  """The centre of an image [H, W, 3] as [size, size, 3]; the evaluation view.

  Args:
    image: values in [0, 1].
    size: side length of the view in pixels.
    share: side of the centre square divided by the image's shorter side; 0.875 for
      ImageNet, 1 for the whole square.
    order: 'resize_first' resizes the shorter side to size / share pixels, then crops the
      centre size x size pixels (paper, appendix B); 'crop_first' crops the centre square,
      then resizes it to `size` (reference).
  """
  height, width, _ = image.shape
  short = min(height, width)
  if order == 'resize_first':
    scale = round(size / share) / short
    rows, columns = (_middle_weights(length, round(length * scale), size, image.dtype)
                     for length in (height, width))
    resized = jnp.einsum('xw,ywc->yxc', columns, jnp.einsum('yh,hwc->ywc', rows, image))
    return jnp.clip(resized, 0., 1.)
  side = max(1, int(share * short))
  return crop_and_resize(
      image, Window((height - side + 1) // 2, (width - side + 1) // 2, side, side), size)


def uniform(key: jax.Array, low: float, high: float) -> jax.Array:
  """Draws from U[low, high), float32 []."""
  # float32 even for float64 images, so both get the same draws.
  return jax.random.uniform(key, (), jnp.float32, low, high)


def _middle_weights(in_size: int, resized: int, size: int, dtype) -> jax.Array:
  """Weights of a resize to `resized` pixels that keeps only the middle `size` pixels."""
  start = (resized - size + 1) // 2
  return _cubic_weights(in_size, 0, in_size, resized, dtype)[start:start + size]


def _cubic_weights(in_size: int, start, extent, out_size: int, dtype) -> jax.Array:
  """[out_size, in_size] interpolation weights of pixels start ... start + extent - 1."""
  scale = jnp.asarray(extent, dtype) / out_size
  centres = (jnp.arange(out_size, dtype=dtype) + .5) * scale + start - .5
  pixels = jnp.arange(in_size, dtype=dtype)
  x = jnp.abs(centres[:, None] - pixels[None, :])
  near = (1.5 * x - 2.5) * x * x + 1.
  far = ((-.5 * x + 2.5) * x - 4.) * x + 2.
  weights = jnp.where(x < 1, near, jnp.where(x < 2, far, 0.))
  weights = jnp.where((pixels >= start) & (pixels < start + extent), weights, 0.)
  return weights / jnp.sum(weights, axis=1, keepdims=True)
