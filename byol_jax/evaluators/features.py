"""Embeddings of a whole split, each image exactly once."""

from collections.abc import Callable, Iterator, Sequence
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import parallel
from byol_jax.datasets import Split
from byol_jax.errors import InputError
from byol_jax.evaluators import Features

Encode = Callable[[chex.ArrayTree, chex.Array], chex.Array]


def extract(encode: Encode, variables: chex.ArrayTree, split: Split, *, batch_size: int,
            devices: Sequence[jax.Device]) -> Features:
  """Encodes every image of `split` on all `devices`.

  The compiled function is kept per `encode` and `devices`, and `variables` is
  an argument of it: pass the same function object at every call, with new
  parameters, and nothing is compiled again.

  Args:
    encode: pure function of (variables, images float32 [b, H, W, 3] in [0, 1])
      giving embeddings [b, D]; an image's embedding must not depend on the
      other images of its batch.
    variables: the parameters and state of the encoder, not replicated.
    split: n images, uint8 [n, H, W, 3], held by this host.
    batch_size: images in one step over all devices; rounded up to a multiple
      of the number of devices.
    devices: devices of this host.

  Returns:
    Features of the n images in the order of `split`: embeddings float32 [n, D]
    on the host, labels and ids as in `split`.

  Raises:
    InputError: the batch size is below one or there are no devices.
  """
  if batch_size < 1 or not devices:
    raise InputError(f'batch_size is {batch_size} on {len(devices)} devices; '
                     'give at least one image and one device.')
  chex.assert_shape(split.images, (len(split.sample_id), None, None, 3))
  chex.assert_type(split.images, np.uint8)
  shape = len(devices), -(-batch_size // len(devices))
  encode_batch = _compiled(encode, tuple(devices))
  parts = []
  for images in _batches(split.images, shape):
    embeddings = np.asarray(encode_batch(variables, images), np.float32)
    chex.assert_shape(embeddings, (*shape, None))
    parts.append(embeddings.reshape(shape[0] * shape[1], -1))
  return Features(np.concatenate(parts)[:len(split.images)], split.labels, split.sample_id)


def _batches(images: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
  """The images in order, uint8 [devices, b, H, W, 3], for `shape` (devices, b)."""
  step = shape[0] * shape[1]
  for start in range(0, len(images), step):
    # The last batch is filled up with copies of the last image, so that there
    # is one shape to compile.
    index = np.minimum(np.arange(start, start + step), len(images) - 1)
    yield images[index].reshape(*shape, *images.shape[1:])


# Bounded, since every entry keeps its `encode` and compiled code alive.
@functools.lru_cache(maxsize=8)
def _compiled(encode: Encode, devices: tuple[jax.Device, ...]) -> Callable[..., chex.Array]:
  """`encode` of uint8 images [devices, b, H, W, 3], one slice on each device."""

  # The images travel as bytes, a quarter of the float32 traffic.
  def encode_bytes(variables: chex.ArrayTree, images: chex.Array) -> chex.Array:
    return encode(variables, images.astype(jnp.float32) / 255)

  return parallel.pmap_evaluation(encode_bytes, devices)
