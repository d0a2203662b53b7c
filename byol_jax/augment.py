"""The view policy, on the device: flips, colour, blur and solarization of the crops.

Every operation is a deterministic function of one image [H, W, 3] with values in
[0, 1] and of its parameters, in the reference's semantics. `random_view` draws the
parameters from the image's own key and applies the operations in the paper's order
(Table 6). `two_views` does so for a batch, by vmap.
"""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import crops
from byol_jax.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.2989, 0.5870, 0.1140)

Policy = Mapping[str, Any]


def brightness(image: jax.Array, delta: jax.Array) -> jax.Array:
  """Adds delta (torchvision multiplies)."""
  return image + delta


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Scales the distance from the mean of each channel."""
  mean = jnp.mean(image, axis=(0, 1), keepdims=True)
  return factor * (image - mean) + mean


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies the HSV saturation, which stays in [0, 1].

  Hue and value do not change, so each channel moves along the line to the value:
  no conversion to HSV is needed.
  """
  value = jnp.max(image, axis=-1, keepdims=True)
  chroma = value - jnp.min(image, axis=-1, keepdims=True)
  old = jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1.), 0.)
  new = jnp.clip(old * factor, 0., 1.)
  scale = jnp.where(old > 0, new / jnp.where(old > 0, old, 1.), 0.)
  return value - (value - image) * scale


def hue(image: jax.Array, delta: jax.Array) -> jax.Array:
  """Shifts the HSV hue by delta turns."""
  value = jnp.max(image, axis=-1)
  chroma = value - jnp.min(image, axis=-1)
  red, green, blue = image[..., 0], image[..., 1], image[..., 2]
  safe = jnp.where(chroma > 0, chroma, 1.)
  sextant = jnp.where(red == value, (green - blue) / safe,
                      jnp.where(green == value, (blue - red) / safe + 2.,
                                (red - green) / safe + 4.))
  sextant = jnp.where(chroma > 0, sextant, 0.) + 6. * delta
  offsets = jnp.array([5., 3., 1.], image.dtype)
  distance = jnp.mod(sextant[..., None] + offsets, 6.)
  ramp = jnp.clip(jnp.minimum(distance, 4. - distance), 0., 1.)
  return value[..., None] - chroma[..., None] * ramp


def grayscale(image: jax.Array) -> jax.Array:
  """The luma of each pixel in all three channels."""
  gray = image @ jnp.array(LUMA, image.dtype)
  return jnp.broadcast_to(gray[..., None], image.shape)


def gaussian_blur(image: jax.Array, sigma: jax.Array, kernel_size: float) -> jax.Array:
  """Gaussian blur with zeros outside the image.

  Args:
    image: [H, W, 3].
    sigma: standard deviation in pixels.
    kernel_size: the radius of the kernel is int(kernel_size / 2) pixels.

  Both passes are products with a banded matrix: on CPU and TPU they take a
  fraction of the time of a depthwise convolution with one kernel per image.
  """
  radius = int(kernel_size / 2)
  taps = jnp.exp(-jnp.square(jnp.arange(-radius, radius + 1, dtype=image.dtype))
                 / (2. * jnp.square(sigma)))
  taps = taps / jnp.sum(taps)

  def band(size):
    distance = np.arange(size)[:, None] - np.arange(size)[None, :] + radius
    inside = (distance >= 0) & (distance <= 2 * radius)
    return jnp.where(inside, taps[np.clip(distance, 0, 2 * radius)], 0.)

  rows = jnp.einsum('yh,hwc->ywc', band(image.shape[0]), image)
  return jnp.einsum('xw,ywc->yxc', band(image.shape[1]), rows)


def solarize(image: jax.Array, threshold: float) -> jax.Array:
  """Inverts the values at or above the threshold."""
  return jnp.where(image < threshold, image, 1. - image)


def normalize(images: jax.Array, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> jax.Array:
  """(images - mean) / std per channel, [..., 3]."""
  return (images - jnp.array(mean, images.dtype)) / jnp.array(std, images.dtype)


def random_color_jitter(key: jax.Array, image: jax.Array, *, brightness_delta: float,
                        contrast_delta: float, saturation_delta: float,
                        hue_delta: float) -> jax.Array:
  """The four colour operations in random order, each clipped to [0, 1].

  Brightness and hue move by U[-delta, delta]; contrast and saturation are scaled
  by U[1 - delta, 1 + delta].
  """
  order_key, *keys = jax.random.split(key, 5)
  deltas = (brightness_delta, contrast_delta, saturation_delta, hue_delta)
  parameters = [crops.uniform(k, centre - delta, centre + delta).astype(image.dtype)
                for k, delta, centre in zip(keys, deltas, (0., 1., 1., 0.))]
  operations = [lambda image, op=op, parameter=parameter: jnp.clip(op(image, parameter), 0., 1.)
                for op, parameter in zip((brightness, contrast, saturation, hue), parameters)]
  order = jax.random.permutation(order_key, len(operations))
  for index in order:
    image = jax.lax.switch(index, operations, image)
  return image


def random_view(key: jax.Array, image: jax.Array, policy: Policy) -> jax.Array:
  """One view of one image: flip, jitter, grayscale, blur, solarize (Table 6).

  Args:
    key: the key of this image and view.
    image: [H, W, 3] in [0, 1], already cropped.
    policy: `config.view1` or `config.view2`. Operations of probability 0 are left out.

  Returns:
    [H, W, 3] in [0, 1], in the dtype of the image.
  """
  keys = iter(jax.random.split(key, 5))

  def maybe(operation, image, probability, *arguments):
    choice_key, parameter_key = jax.random.split(next(keys))
    if probability == 0:
      return image
    changed = operation(parameter_key, image, *arguments)
    return jnp.where(crops.uniform(choice_key, 0., 1.) < probability, changed, image)

  image = maybe(lambda _, x: x[:, ::-1], image, policy['flip_probability'])
  image = maybe(lambda k, x: random_color_jitter(
      k, x, brightness_delta=policy['brightness'], contrast_delta=policy['contrast'],
      saturation_delta=policy['saturation'], hue_delta=policy['hue']),
      image, policy['jitter_probability'])
  image = maybe(lambda _, x: grayscale(x), image, policy['grayscale_probability'])
  image = maybe(lambda k, x: gaussian_blur(
      x, crops.uniform(k, *policy['blur_sigma']).astype(x.dtype),
      x.shape[0] / policy['blur_divider']), image, policy['blur_probability'])
  image = maybe(lambda _, x: solarize(x, policy['solarize_threshold']),
                image, policy['solarize_probability'])
  return jnp.clip(image, 0., 1.)


def check_policy(name: str, policy: Policy) -> None:
  """Raises InputError, with the key, unless the values of a policy are possible."""
  for key, value in policy.items():
    where = f'{name}.{key} is {value}'
    if key.endswith('_probability') and not 0 <= value <= 1:
      raise InputError(f'{where}; a probability lies in [0, 1].')
    if key in ('crop_area', 'crop_aspect', 'blur_sigma') and not (
        isinstance(value, tuple) and len(value) == 2 and 0 < value[0] <= value[1]):
      raise InputError(f'{where}; it must be two ascending positive numbers (low, high).')
    if key == 'blur_divider' and value <= 0:
      raise InputError(f'{where}; it must be positive.')
  if policy['crop_area'][1] > 1:
    raise InputError(f'{name}.crop_area is {policy["crop_area"]}; a share is at most 1.')


def sample_keys(seed: int, epoch: jax.Array, sample_id: jax.Array) -> jax.Array:
  """The augmentation keys of a batch: fold_in(fold_in(seed, epoch), sample_id), [B].

  No device or host index enters, so a view depends only on the seed, the epoch
  and the image.
  """
  chex.assert_equal_shape([epoch, sample_id])
  fold = lambda e, i: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), e), i)
  return jax.vmap(fold)(epoch, sample_id)


def two_views(batch: Mapping[str, jax.Array], *, seed: int, view1: Policy, view2: Policy,
              image_size: int, dtype) -> tuple[jax.Array, jax.Array]:
  """The two augmented views of a batch, each [B, image_size, image_size, 3] in [0, 1].

  Args:
    batch: `sample_id` and `epoch`, int32 [B], and either `images`, uint8
      [B, H, W, 3], which are cropped here, or `crop1` and `crop2`, uint8
      [B, image_size, image_size, 3], which the input pipeline has cropped.
    seed: the run's seed.
    view1: policy of the first view.
    view2: policy of the second view.
    image_size: side of the views in pixels.
    dtype: of the arithmetic and the result.
  """
  def view(number, key, record, policy):
    crop_key, view_key = jax.random.split(jax.random.fold_in(key, number))
    return random_view(
        view_key, _cropped(crop_key, record, number, policy, image_size, dtype), policy)

  keys = sample_keys(seed, batch['epoch'], batch['sample_id'])
  return tuple(jax.vmap(lambda key, record, n=number, p=policy: view(n, key, record, p))(
      keys, _pixels(batch)) for number, policy in ((1, view1), (2, view2)))


def crop_and_flip(batch: Mapping[str, jax.Array], *, seed: int, policy: Policy,
                  image_size: int) -> jax.Array:
  """One randomly cropped and flipped view, float32 [B, image_size, image_size, 3] in [0, 1].

  Args:
    batch: as in `two_views`, with `images` or `crop1`.
    seed: the run's seed.
    policy: `crop_area`, `crop_aspect` and `flip_probability`.
    image_size: side of the view in pixels.
  """
  def view(key, record):
    crop_key, flip_key = jax.random.split(key)
    image = _cropped(crop_key, record, 1, policy, image_size, jnp.float32)
    flip = crops.uniform(flip_key, 0., 1.) < policy['flip_probability']
    return jnp.where(flip, image[:, ::-1], image)

  keys = sample_keys(seed, batch['epoch'], batch['sample_id'])
  return jax.vmap(view)(keys, _pixels(batch))


def _pixels(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  return {name: batch[name] for name in ('images', 'crop1', 'crop2') if name in batch}


def _cropped(key, record, number: int, policy: Policy, size: int, dtype) -> jax.Array:
  """A record's crop for the view `number`, taken here or by the input pipeline."""
  if 'images' in record:
    image = record['images'].astype(dtype) / 255
    window = crops.random_window(key, *image.shape[:2], area=policy['crop_area'],
                                 aspect=policy['crop_aspect'])
    return crops.crop_and_resize(image, window, size)
  image = record[f'crop{number}'].astype(dtype) / 255
  chex.assert_shape(image, (size, size, 3))
  return image


def center_views(batch: Mapping[str, jax.Array], *, image_size: int, share: float, order: str
                 ) -> jax.Array:
  """The views for evaluation, float32 [B, image_size, image_size, 3] in [0, 1].

  Args:
    batch: `images`, uint8 [B, H, W, 3], of which `crops.center_view` is taken, or `crop1`,
      uint8 [B, image_size, image_size, 3], which the input pipeline has taken.
    image_size: side of the views in pixels.
    share: of `crops.center_view`.
    order: of `crops.center_view`.
  """
  if 'images' not in batch:
    chex.assert_shape(batch['crop1'], (None, image_size, image_size, 3))
    return batch['crop1'].astype(jnp.float32) / 255
  return jax.vmap(lambda image: crops.center_view(
      image.astype(jnp.float32) / 255, image_size, share, order))(batch['images'])
