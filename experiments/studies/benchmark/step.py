"""The training step alone, on random crops that are already on the device."""

import functools
import time

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import train_step
from byol_jax.distributed import parallel
from byol_jax.encoders import convolution
from experiments.studies.benchmark import random_data, timing
from experiments.studies.scaling import arithmetic, shapes

# The size of the two matrices of the bound.
MATRIX = 2048
STEPS = 4
CLASSES, EXAMPLES = 1000, 1_281_167


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """The step, its two views alone, and a matrix product as the bound of all arithmetic.

  The share of the bound counts only the networks' operations (model-FLOP utilisation): the
  passes of both networks, without the augmentations.
  """
  del workdir  # Uses random images.
  devices = jax.local_devices()
  recipe, state, batch = inputs(config, devices)
  views, images = jax.pmap(recipe.views, devices=devices), config.train.batch_size
  work = operations(recipe, config.data.image_size)
  return [_matrix_product(config.model.compute_dtype, devices), _views(views, batch, images),
          _step(recipe, state, batch, devices, images, work)]


def inputs(config: ml_collections.ConfigDict, devices):
  """The recipe of a config, its first state and a random batch, both on the devices."""
  with config.unlocked():
    # Full learning rate from the first step, so that the loss visibly falls.
    config.train.warmup_epochs = 0.
  recipe, size = shapes.recipe(config, EXAMPLES, CLASSES), config.data.image_size
  state = jax.jit(lambda key: train_step.init_state(key, jnp.zeros((2, size, size, 3)), recipe))(
      jax.random.key(config.seed))
  batch = random_data.batch(config.train.batch_size, size, CLASSES,
                            whole=config.data.pipeline != 'tf_data')
  return recipe, parallel.replicate(state, devices), parallel.shard_batch(batch, devices)


def _matrix_product(dtype: str, devices) -> timing.Case:
  keys = jax.random.split(jax.random.key(0), len(devices))
  matrices = jax.pmap(lambda key: jax.random.normal(key, (MATRIX, MATRIX), jnp.dtype(dtype)),
                      devices=devices)(keys)
  product = jax.pmap(lambda x: x @ x, devices=devices)

  def run():
    jax.block_until_ready(product(matrices))
    return 2. * MATRIX ** 3 * len(devices)

  return timing.Case('matrix product', run, unit='operations')


def _views(views, batch, batch_size: int) -> timing.Case:
  def run():
    jax.block_until_ready(views(batch))
    return float(batch_size)

  return timing.Case('views', run)


def _step(recipe: train_step.Recipe, state, batch, devices, images: int, work: float
          ) -> timing.Case:
  """The case of the step; `work` is the number of operations per image."""
  held = [state]
  step = parallel.pmap_step(functools.partial(train_step.train_step, recipe=recipe), devices)
  facts, losses = {}, []
  started = time.perf_counter()
  held[0], scalars = step(held[0], batch)
  losses.append(scalars['byol_loss'])
  jax.block_until_ready(losses)
  facts['compile_seconds'] = time.perf_counter() - started

  def run():
    for _ in range(STEPS):
      held[0], scalars = step(held[0], batch)
    losses.append(scalars['byol_loss'])
    jax.block_until_ready(held[0])
    return float(STEPS * images)

  def known():
    first, last = (float(parallel.fetch(losses[i])) for i in (0, -1))
    stats = devices[0].memory_stats() or {}
    return facts | dict(first_loss=first, last_loss=last,
                        peak_device_bytes=stats.get('peak_bytes_in_use'),
                        gigaflops_per_image=work / 1e9)

  return timing.Case('step', run, bound='matrix product', bound_work=work,
                     facts=known)


def operations(recipe: train_step.Recipe, size: int) -> float:
  """Floating-point operations of the networks in a step, per image.

  Each view goes forward through both networks, and backward through the online network, which
  costs twice a forward pass.
  """
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  variables = jax.eval_shape(recipe.model.init, jax.random.key(0), images)
  # Evaluation mode needs no device axis, and the layers are the same.
  forward = jax.jit(lambda variables, images: recipe.model.apply(*variables, images, False)[0])
  with convolution.no_products():
    flops = forward.lower(variables, images).cost_analysis()['flops']
  return flops / 2 * (arithmetic.FORWARDS + 2 * arithmetic.BACKWARDS)
