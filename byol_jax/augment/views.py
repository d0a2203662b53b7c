"""The augmentation policy on the device: makes the views of a batch of images.

`random_view` draws the parameters of the operations from the image's own key and applies
them in the paper's order (Table 6). `random_views` does so for a batch, by vmap. `Form` says
how the batches of a pipeline hold their images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from byol_jax import ranges
from byol_jax.augment import crops, ops


def _pair(low: float, high: float) -> ranges.Several:
  return ranges.Several(ranges.number(low, high), exactly=2, order='ascending')


# Random crop and flip in supervised training (appendix C.1).
CROP_OPTIONS = dict(
    # Share of the image's area, uniform; two numbers in [0.0001, 1], ascending
    crop_area=(0.08, 1.0),
    # Width / height, log-uniform; two numbers in [0.01, 100], ascending
    crop_aspect=(3 / 4, 4 / 3),
    flip_probability=0.5,  # a number in [0, 1]
)
# Of the policy of a crop, ...
CROP_RANGES = dict(
    # Narrower crops contain no pixel.
    crop_area=_pair(1e-4, 1), crop_aspect=_pair(.01, 100), flip_probability=ranges.SHARE)
# ... and of a view's policy.
RANGES = CROP_RANGES | dict(
    jitter_probability=ranges.SHARE, brightness=ranges.SHARE,
    # Above 1 a factor could be negative.
    contrast=ranges.SHARE, saturation=ranges.SHARE, hue=ranges.number(0, 0.5),
    grayscale_probability=ranges.SHARE, blur_probability=ranges.SHARE,
    # At 0.5 the kernel reaches from any pixel to every other.
    blur_divider=ranges.number(0.5, 1000), blur_sigma=_pair(.01, 1000),
    solarize_probability=ranges.SHARE, solarize_threshold=ranges.SHARE)
SMALL_RANGES = RANGES | dict(count=ranges.whole(0, 100), image_size=ranges.SIDE)
Policy = Mapping[str, Any]


def random_color_jitter(key: jax.Array, image: ops.Planes, *, brightness_delta: float,
                        contrast_delta: float, saturation_delta: float,
                        hue_delta: float) -> ops.Planes:
  """Applies the four colour operations in random order, each clipped to [0, 1].

  Brightness and hue move by U[-delta, delta]; contrast and saturation are scaled
  by U[1 - delta, 1 + delta].
  """
  order_key, *keys = jax.random.split(key, 5)
  jitter = (ops.brightness, ops.contrast, ops.saturation, ops.hue)
  deltas = (brightness_delta, contrast_delta, saturation_delta, hue_delta)
  parameters = [crops.uniform(k, centre - delta, centre + delta).astype(image[0].dtype)
                for k, delta, centre in zip(keys, deltas, (0., 1., 1., 0.))]
  operations = [lambda image, op=op, parameter=parameter: ops.clipped(op(image, parameter))
                for op, parameter in zip(jitter, parameters)]
  order = jax.random.permutation(order_key, len(operations))
  for index in order:
    image = jax.lax.switch(index, operations, image)
  return image


def random_view(key: jax.Array, image: jax.Array, policy: Policy) -> jax.Array:
  """One view of one image: flip, jitter, grayscale, blur, solarize (Table 6).

  Args:
    key: the key of this image and view.
    image: [H, W, 3] in [0, 1], already cropped.
    policy: `config.view1` or `config.view2`. Operations with probability 0 are left out.

  Returns:
    [H, W, 3] in [0, 1], in the dtype of the image.
  """
  keys = iter(jax.random.split(key, 5))
  planes = ops.to_planes(image)

  def maybe(operation, planes, probability, *arguments):
    choice_key, parameter_key = jax.random.split(next(keys))
    if probability == 0:
      return planes
    changed = operation(parameter_key, planes, *arguments)
    chosen = crops.uniform(choice_key, 0., 1.) < probability
    return tuple(jnp.where(chosen, new, old) for new, old in zip(changed, planes))

  planes = maybe(lambda _, x: tuple(plane[:, ::-1] for plane in x), planes,
                 policy['flip_probability'])
  planes = maybe(lambda k, x: random_color_jitter(
      k, x, brightness_delta=policy['brightness'], contrast_delta=policy['contrast'],
      saturation_delta=policy['saturation'], hue_delta=policy['hue']),
      planes, policy['jitter_probability'])
  planes = maybe(lambda _, x: ops.grayscale(x), planes, policy['grayscale_probability'])
  planes = maybe(lambda k, x: ops.gaussian_blur(
      x, crops.uniform(k, *policy['blur_sigma']).astype(image.dtype),
      image.shape[0] / policy['blur_divider']), planes, policy['blur_probability'])
  planes = maybe(lambda _, x: ops.solarize(x, policy['solarize_threshold']),
                 planes, policy['solarize_probability'])
  return ops.from_planes(ops.clipped(planes))


def sample_keys(seed: int, epoch: jax.Array, sample_id: jax.Array) -> jax.Array:
  """The augmentation keys of a batch: fold_in(fold_in(seed, epoch), sample_id), [B].

  They do not depend on a device or host index, so a view depends only on the seed, the
  epoch and the image.
  """
  chex.assert_equal_shape([epoch, sample_id])
  fold = lambda e, i: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), e), i)
  return jax.vmap(fold)(epoch, sample_id)


class Form(NamedTuple):
  """How the batches of a pipeline hold their images.

  pixels: batch -> arrays [B, ...], of which each image has its part.
  crop: (key, pixels of an image, number, policy, size, dtype) -> its crop for the view `number`,
    counted from 1, [size, size, 3] in [0, 1].
  center: (pixels of an image, size, share, order) -> its view for evaluation, as
    `crops.center_view`.
  """

  pixels: Callable[[Mapping[str, jax.Array]], Any]
  crop: Callable[..., jax.Array]
  center: Callable[..., jax.Array]


def _crop_of_whole(key, image, number: int, policy: Policy, size: int, dtype) -> jax.Array:
  del number  # The key is that of the view.
  image = image.astype(dtype) / 255
  window = crops.random_window(key, *image.shape[:2], area=policy['crop_area'],
                               aspect=policy['crop_aspect'])
  return crops.crop_and_resize(image, window, size)


def _ready_crop(key, ready, number: int, policy: Policy, size: int, dtype) -> jax.Array:
  del key, policy
  image = ready[f'crop{number}'].astype(dtype) / 255
  chex.assert_shape(image, (size, size, 3))
  return image


# `images`, uint8 [B, H, W, 3], which are cropped here, ...
WHOLE = Form(lambda batch: batch['images'], _crop_of_whole,
             lambda image, *how: crops.center_view(image.astype(jnp.float32) / 255, *how))
# ... such images as `row`, int32 [B], picks out of `resident`, uint8 [n, H, W, 3], ...
RESIDENT = WHOLE._replace(pixels=lambda batch: batch['resident'][batch['row']])
# ... or `crop1`, `crop2`, ..., uint8 [B, size, size, 3], which the input pipeline has cropped.
READY = Form(
    lambda batch: {name: array for name, array in batch.items() if name.startswith('crop')},
    _ready_crop, lambda ready, size, *_: _ready_crop(None, ready, 1, {}, size, jnp.float32))
# By `data.pipeline`.
FORMS = dict(memory=WHOLE, device=RESIDENT, tf_data=READY)


def random_views(batch: Mapping[str, jax.Array], *, form: Form, seed: int,
                 policies: Sequence[Policy], image_size: int, dtype) -> tuple[jax.Array, ...]:
  """The augmented views of a batch, one for each policy, each [B, size, size, 3] in [0, 1].

  Args:
    batch: `sample_id` and `epoch`, int32 [B], and images as the form says.
    form: one of FORMS.
    seed: the run's seed.
    policies: one for each view; what the first ones draw does not depend on the number of others.
    image_size: side in pixels of the views whose policy has none of its own.
    dtype: of the arithmetic and the result.
  """
  def view(number, key, pixels, policy):
    crop_key, view_key = jax.random.split(jax.random.fold_in(key, number))
    return random_view(view_key, form.crop(
        crop_key, pixels, number, policy, policy.get('image_size', image_size), dtype), policy)

  keys = sample_keys(seed, batch['epoch'], batch['sample_id'])
  return tuple(jax.vmap(lambda key, pixels, n=number, p=policy: view(n, key, pixels, p))(
      keys, form.pixels(batch)) for number, policy in enumerate(policies, 1))


def crop_and_flip(batch: Mapping[str, jax.Array], *, form: Form, seed: int, policy: Policy,
                  image_size: int) -> jax.Array:
  """One randomly cropped and flipped view, float32 [B, image_size, image_size, 3] in [0, 1].

  Args:
    batch: as in `random_views`.
    form: one of FORMS.
    seed: the run's seed.
    policy: `crop_area`, `crop_aspect` and `flip_probability`.
    image_size: side of the view in pixels.
  """
  def view(key, pixels):
    crop_key, flip_key = jax.random.split(key)
    image = form.crop(crop_key, pixels, 1, policy, image_size, jnp.float32)
    flip = crops.uniform(flip_key, 0., 1.) < policy['flip_probability']
    return jnp.where(flip, image[:, ::-1], image)

  keys = sample_keys(seed, batch['epoch'], batch['sample_id'])
  return jax.vmap(view)(keys, form.pixels(batch))


def center_views(batch: Mapping[str, jax.Array], *, form: Form, image_size: int, share: float,
                 order: str) -> jax.Array:
  """The views for evaluation, float32 [B, image_size, image_size, 3] in [0, 1].

  Args:
    batch: images as the form says.
    form: WHOLE, or READY, whose `crop1` is the view for evaluation then.
    image_size: side of the views in pixels.
    share: of `crops.center_view`.
    order: of `crops.center_view`.
  """
  return jax.vmap(lambda pixels: form.center(pixels, image_size, share, order))(
      form.pixels(batch))
