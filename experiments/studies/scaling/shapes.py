"""The functions, state shapes and batch shapes of a run, without creating any arrays."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import build, train_step
from byol_jax.input_pipeline.memory import Split


def recipe(config: ml_collections.ConfigDict, num_examples: int, num_classes: int
           ) -> train_step.Recipe:
  """The functions of a run on a labelled data set of this size; no data are read."""
  data = Split(np.zeros(0, np.int32), np.zeros((0, 1, 1, 3), np.uint8),
               np.zeros(0, np.int32), num_examples, num_classes)
  return build.build_recipe(config, build.resolve(config, data))


def state(of: train_step.Recipe, image_size: int) -> train_step.TrainState:
  """The shapes of a run's state; `image_size` in pixels."""
  images = jnp.zeros((2, image_size, image_size, 3))
  return jax.eval_shape(lambda key: train_step.init_state(key, images, of), jax.random.key(0))


def batch(size: int, image_size: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a batch of `size` labelled images as the tf_data pipeline gives them."""
  ids = jax.ShapeDtypeStruct((size,), jnp.int32)
  crop = jax.ShapeDtypeStruct((size, image_size, image_size, 3), jnp.uint8)
  return dict(sample_id=ids, epoch=ids, labels=ids, crop1=crop, crop2=crop)
