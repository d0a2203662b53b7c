"""Image files given by their paths: their store, and the stream that reads them."""

import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np

from byol_jax.input_pipeline import image_files, streams
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import Selected, Shards
from byol_jax.input_pipeline.streams import Stream


class ImageFiles(NamedTuple):
  """A store of image files.

  paths: object [N] of str.
  upright: whether to rotate images according to their EXIF orientation; otherwise they are used
    as stored.
  """

  paths: np.ndarray
  upright: bool

  @property
  def count(self) -> int:
    """The number of images."""
    return len(self.paths)

  def take(self, rows: np.ndarray) -> 'ImageFiles':
    """As in `records.Store`."""
    return self._replace(paths=self.paths[rows])

  def followed_by(self, other: 'ImageFiles') -> 'ImageFiles':
    """As in `records.Store`."""
    return self._replace(paths=np.concatenate([self.paths, other.paths]))

  def check(self) -> None:
    """As in `records.Store`; does nothing, since the listing has found the files."""

  def open(self, selected: Selected, shards: Shards) -> Stream:
    """As in `records.Store`."""
    return stream(self.paths, selected.labels, shards, upright=self.upright)._replace(
        **selected.about())

  def in_memory(self, selected: Selected, shards: Shards, workers: int) -> Split:
    """As in `records.Store`."""
    return streams.decoded(self, selected, shards, workers)


def stream(paths: np.ndarray, labels: np.ndarray | None, shards: Shards, *, upright: bool
           ) -> Stream:
  """Streams the image files; virtual shard v has the paths whose index is v modulo the shards.

  Args:
    paths: object [N] of str.
    labels: int32 [N]; None for unlabelled images.
    shards: the shards that this host owns.
    upright: as in `ImageFiles`.
  """
  import tensorflow as tf

  from byol_jax.input_pipeline import preprocess

  total = len(paths)
  all_paths = tf.constant(paths)

  def records(shard: Any, seed: Any):
    # With a small split, some shards may be empty.
    ids = tf.range(tf.minimum(tf.cast(shard, tf.int32), total), total, shards.total)
    if seed is not None:
      ids = tf.random.experimental.stateless_shuffle(ids, seed)
    return tf.data.Dataset.from_tensor_slices(dict(sample_id=ids))

  def read(record):
    result = dict(encoded=tf.io.read_file(tf.gather(all_paths, record['sample_id'])))
    if labels is not None:
      result['labels'] = tf.gather(tf.constant(labels), record['sample_id'])
    return result

  def reason(sample_id: int) -> str:
    return image_files.reason(tf.io.gfile.GFile(paths[sample_id], 'rb').read())

  sizes = np.array([len(range(v, total, shards.total)) for v in range(shards.total)])
  return Stream(records, read, sizes, lambda sample_id: str(paths[sample_id]), lambda: '', total,
                num_classes=0, files=paths, identity=_identity(paths, labels, upright),
                reason=reason, labels=labels, labelled=labels is not None,
                decode=functools.partial(preprocess.decode_file, upright=upright))


def _identity(paths: np.ndarray, labels: np.ndarray | None, upright: bool) -> str:
  """A digest of the files in their order, of their labels, and of how they are read."""
  digest = hashlib.sha256('\n'.join(paths).encode())
  digest.update(b'' if labels is None else labels.tobytes())
  digest.update(b'' if upright else b'as stored')
  return digest.hexdigest()
