"""The augmentation policy on the device, alone."""

import functools

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax.augment import ops
from byol_jax.augment.views import READY, WHOLE, random_views
from experiments.studies.benchmark import random_data, timing

# The operations that a case leaves out, by the keys of a policy.
LEFT_OUT = dict(blur=('blur',), jitter=('jitter',),
                colours=('jitter', 'grayscale', 'blur', 'solarize'))


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """Both views of a batch, also without each of the costlier operations, and the blur alone.

  `blur by convolution` is a depthwise convolution with one kernel for each image, as in the
  published implementation.
  """
  del workdir  # Uses random images.
  size, policies = config.data.image_size, (config.view1.to_dict(), config.view2.to_dict())
  form = READY if config.data.pipeline == 'tf_data' else WHOLE
  batch = jax.device_put(random_data.batch(
      config.train.batch_size, size, 10, whole=form is WHOLE))
  views = functools.partial(random_views, form=form, seed=config.seed, image_size=size,
                            dtype=jnp.float32)
  found = [timing.jitted('views', functools.partial(views, policies=policies), batch)]
  for name, operations in LEFT_OUT.items():
    less = [dict(policy, **{f'{operation}_probability': 0. for operation in operations})
            for policy in policies]
    found.append(timing.jitted(f'views without {name}', functools.partial(
        views, policies=less), batch))
  return found + _blurs(config, batch['images' if form is WHOLE else 'crop1'])


def _blurs(config, pixels) -> list[timing.Case]:
  images = ops.to_planes(pixels.astype(jnp.float32) / 255)
  sigmas = jnp.linspace(*config.view1.blur_sigma, len(pixels))
  kernel_size = config.data.image_size / config.view1.blur_divider
  return [timing.jitted(name, lambda inputs, blur=blur: jax.vmap(
      lambda image, sigma: blur(image, sigma, kernel_size))(*inputs), (images, sigmas))
          for name, blur in (('blur', ops.gaussian_blur),
                             ('blur by convolution', convolution_blur))]


def convolution_blur(image: ops.Planes, sigma: jax.Array, kernel_size: float
                     ) -> ops.Planes:
  """`augment.ops.gaussian_blur` as two depthwise convolutions."""
  radius = int(kernel_size / 2)
  taps = jnp.exp(-jnp.square(jnp.arange(-radius, radius + 1.)) / (2. * jnp.square(sigma)))
  taps = jnp.tile((taps / jnp.sum(taps))[:, None, None], (1, 1, 3))
  convolve = functools.partial(
      jax.lax.conv_general_dilated, window_strides=(1, 1), padding='SAME', feature_group_count=3,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  rows = convolve(ops.from_planes(image)[None], taps[:, None])
  return ops.to_planes(convolve(rows, taps[None])[0])
