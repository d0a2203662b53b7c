"""The frozen encoder of a pretraining run."""

from collections.abc import Callable
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import build, checkpoint, tensors
from byol_jax.distributed import devices
from byol_jax.errors import InputError


class Encoder(NamedTuple):
  """A callable frozen encoder.

  encode: pure function of (variables, images) -> embeddings [B, D].
  variables: its parameters and BatchNorm statistics.
  image_size: side length in pixels of the images it was trained on.
  embedding_size: D.
  image_mean: per-channel mean of images in [0, 1]; `encode` subtracts it.
  image_std: per-channel standard deviation; `encode` divides by it afterwards.
  """

  encode: Callable[..., jax.Array]
  variables: Any
  image_size: int
  embedding_size: int
  image_mean: tuple[float, ...]
  image_std: tuple[float, ...]

  def __call__(self, images) -> jax.Array:
    """Maps images [B, H, W, 3], floats in [0, 1], to float32 embeddings [B, D].

    Sizes other than `image_size` work, but the encoder was not trained on them.

    Raises:
      InputError: the images have another shape, are integers, or have values outside [0, 1].
    """
    try:
      images = np.asarray(images)
    except ValueError as error:
      raise InputError(f'Images must be one array [B, H, W, 3]: {error}') from error
    if images.ndim != 4 or images.shape[-1] != 3:
      raise InputError(f'Images must be [B, H, W, 3], not {list(images.shape)}.')
    if images.dtype.kind != 'f':
      raise InputError(f'Images must be floats in [0, 1], not {images.dtype}; divide uint8 by 255.')
    if images.size and not (images.min() >= 0 and images.max() <= 1):
      raise InputError(f'Images must lie in [0, 1]; these run from {images.min():g} to '
                       f'{images.max():g}.')
    return self.encode(self.variables, images.astype(np.float32))


def load_encoder(path: str | os.PathLike, step: int | None = None) -> Encoder:
  """Loads the online encoder of a pretraining workdir, with BatchNorm in evaluation mode.

  Args:
    path: workdir of a pretraining run.
    step: step of the checkpoint; the newest valid one if None.

  Raises:
    InputError: the checkpoint is missing, damaged, or of another architecture.
  """
  devices.check_platforms()
  trees, meta = checkpoint.restore_trees(path, ('online', 'state'), step)
  config = meta['config']
  networks = build.build_model(config['model'], meta['resolved']['num_classes'])
  size = config['data']['image_size']
  # Only shapes: real images of a large size would fill the memory.
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  shapes, _ = jax.eval_shape(networks.init, jax.random.key(0), images)
  tensors.check(tensors.describe(trees['online']), tensors.describe(shapes),
                f'{path}, step {meta["step"]}')
  variables = (trees['online'], trees['state']['online'])
  encode = jax.jit(lambda variables, images: networks.encode(*variables, images))
  embedding = jax.eval_shape(encode, variables, images)
  return Encoder(encode, variables, size, embedding.shape[-1],
                 tuple(config['model']['image_mean']), tuple(config['model']['image_std']))
