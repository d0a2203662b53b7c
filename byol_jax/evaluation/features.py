"""Computes the embeddings of a whole split, each image exactly once, on all hosts together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools

import chex
import jax
import numpy as np

from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.evaluation.contract import Features

Batch = Mapping[str, np.ndarray]
Encode = Callable[[chex.ArrayTree, Batch], chex.Array]


def extract(encode: Encode, variables: chex.ArrayTree, batches: Iterable[Batch], *,
            batch_size: int, devices: Sequence[jax.Device]) -> Features:
  """Encodes every image of `batches` on all `devices`.

  The compiled function is cached for each `encode` and `devices`, and `variables` is one of its
  arguments: if the same function object is passed in every call, with new parameters, nothing
  is compiled again.

  Args:
    encode: pure function of (variables, batch) giving embeddings [b, D], where
      batch holds images in one of the forms of `augment.views`; an image's embedding must
      not depend on the other images of its batch.
    variables: the parameters and state of the encoder, not replicated.
    batches: batches from `Batches.evaluation_batches`: `sample_id`, pixels and, if
      there are any, `labels`; at most `batch_size` images each.
    batch_size: images in one step over all devices; rounded up to a multiple
      of the number of devices.
    devices: devices of this host.

  Returns:
    Features of the images of all hosts, n in total, in the order of their ids:
    embeddings float32 [n, D], labels [n] or [n, num_classes] and ids [n]; they are the same on
    every host.

  Raises:
    InputError: the batch size is below one or there are no devices.
  """
  if batch_size < 1 or not devices:
    raise InputError(f'batch_size is {batch_size} on {len(devices)} devices; '
                     'give at least one image and one device.')
  shape = len(devices), -(-batch_size // len(devices))
  encode_batch = _compiled(encode, tuple(devices))
  parts, labels, ids = [], [], []
  for batch in batches:
    pixels = {name: _spread(array, shape) for name, array in batch.items()
              if name not in ('sample_id', 'labels')}
    embeddings = np.asarray(encode_batch(variables, pixels), np.float32)
    chex.assert_shape(embeddings, (*shape, None))
    count = len(batch['sample_id'])
    parts.append(embeddings.reshape(shape[0] * shape[1], -1)[:count])
    ids.append(batch['sample_id'])
    labels.append(batch.get('labels'))
  return _of_all_hosts(parts, labels, ids)


def _of_all_hosts(parts, labels, ids) -> Features:
  """The features of all hosts, in the order of the ids."""
  empty = np.zeros(0, np.int32)
  # With a small split, a host may own no image; it gets the sizes from the other hosts.
  labelled = bool(parts) and labels[0] is not None
  width, labelled, classes = parallel.gather_rows(np.array(
      [[parts[0].shape[1] if parts else 0, labelled,
        labels[0].shape[1] if labelled and labels[0].ndim == 2 else 0]])).max(axis=0)
  if not width:
    raise InputError('There is no readable image to encode.')
  gathered = [parallel.gather_rows(np.concatenate([first, *rest])) for first, rest in (
      (np.zeros((0, width), np.float32), parts), (empty, ids),
      (np.zeros((0, classes), np.int32) if classes else empty, labels if labelled else []))]
  order = np.argsort(gathered[1], kind='stable')
  return Features(gathered[0][order], gathered[2][order] if labelled else None,
                  gathered[1][order])


def _spread(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Images uint8 [n, H, W, 3] -> [devices, b, H, W, 3], for `shape` (devices, b)."""
  chex.assert_rank(pixels, 4)
  chex.assert_type(pixels, np.uint8)
  chex.assert_axis_dimension_lteq(pixels, 0, shape[0] * shape[1])
  # The last batch is filled up with copies of its last image, so that only one
  # shape is compiled.
  index = np.minimum(np.arange(shape[0] * shape[1]), len(pixels) - 1)
  return pixels[index].reshape(*shape, *pixels.shape[1:])


# Limited in size, because every entry keeps its `encode` and compiled code alive.
@functools.lru_cache(maxsize=8)
def _compiled(encode: Encode, devices: tuple[jax.Device, ...]) -> Callable[..., chex.Array]:
  """Compiles `encode` for batches [devices, b, ...], with one slice on each device."""
  return parallel.pmap_evaluation(encode, devices)
