"""The unavoidable parts of a tf.data pipeline, and the work of the published pipeline."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from byol_jax.input_pipeline import preprocess
from byol_jax.input_pipeline.records import DataError, Shards
from byol_jax.input_pipeline.streams import Stream

PARTS = ('read', 'decode', 'crops', 'published')


def batches(part: str, stream: Stream, shards: Shards, *, policies: Sequence[Mapping[str, Any]],
            image_size: int, resize: str, workers: int, batch_size: int) -> Iterator[Any]:
  """Endless batches of the output of one part on the training records.

  Args:
    part: 'read' reads the encoded bytes; 'decode' decodes each image once and keeps its
      shape; 'crops' makes the pipeline's crops of one image repeatedly; 'published'
      decodes each view's window separately and resizes it with bicubic
      interpolation, float32 [b, image_size, image_size, 3] for each view.
    stream: the training images; JPEG for 'published'.
    shards: this host's part.
    policies: one for each view.
    image_size: side length of the views in pixels.
    resize: how 'crops' resizes, a key of `preprocess.RESIZE`.
    workers: images decoded at once; 0 lets tf.data decide.
    batch_size: images per batch.

  Raises:
    DataError: an image cannot be read; the message names it.
  """
  decode = stream.decode or preprocess.decode

  def published(encoded):
    shape = tf.image.extract_jpeg_shape(encoded)
    return [_partial_decode(encoded, shape, policy, image_size) for policy in policies]

  def crops(encoded):
    seed = tf.stack([0, tf.strings.length(encoded)])
    return preprocess.crops(first, seed, policies=policies, size=image_size, resize=resize)

  process = dict(read=tf.strings.length, decode=lambda encoded: tf.shape(decode(encoded)),
                 crops=crops, published=published)[part]
  try:
    if part == 'crops':
      first = decode(next(iter(_encoded(stream, shards))))
    yield from _encoded(stream, shards).map(
        process, num_parallel_calls=workers or tf.data.AUTOTUNE).batch(batch_size).prefetch(
            2).as_numpy_iterator()
  except tf.errors.InvalidArgumentError as error:
    raise DataError(_unreadable(part, stream, shards, decode)) from error


def _unreadable(part: str, stream: Stream, shards: Shards, decode) -> str:
  """A sentence about the first image that cannot be decoded, found by decoding them one by one."""
  for record in _records(stream, shards):
    try:
      decode(stream.read(record)['encoded'])
    except tf.errors.InvalidArgumentError:
      return (f'{stream.unreadable(int(record["sample_id"]))}. The parts of the benchmark need '
              'all images to be readable: replace or remove it.')
  return (f'The part {part!r} cannot read an image that can be decoded, for example a file that '
          'is not JPEG among JPEG files; give a folder of one kind.')


def all_jpeg(stream: Stream, shards: Shards, images: int = 64) -> bool:
  """Whether the first images are JPEG files."""
  found = _encoded(stream, shards).take(images).map(tf.io.is_jpeg)
  return all(found.as_numpy_iterator())


def _encoded(stream: Stream, shards: Shards) -> tf.data.Dataset:
  return _records(stream, shards).repeat().map(lambda record: stream.read(record)['encoded'])


def _records(stream: Stream, shards: Shards) -> tf.data.Dataset:
  seed = tf.constant([0, 0])
  return tf.data.Dataset.from_tensor_slices(tf.constant(shards.owned, tf.int64)).interleave(
      lambda shard: stream.records(shard, seed), cycle_length=len(shards.owned),
      num_parallel_calls=len(shards.owned))


def _partial_decode(encoded: tf.Tensor, shape: tf.Tensor, policy: Mapping[str, Any], size: int
                    ) -> tf.Tensor:
  """A random window, decoded alone and resized, float32 [size, size, 3] in [0, 1]."""
  begin, extent, _ = tf.image.sample_distorted_bounding_box(
      shape, tf.zeros([1, 0, 4]), min_object_covered=0., aspect_ratio_range=policy['crop_aspect'],
      area_range=policy['crop_area'], max_attempts=10, use_image_if_no_bounding_boxes=True)
  window = tf.concat([begin[:2], extent[:2]], 0)
  image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
  resized = tf.image.resize(image, [size, size], tf.image.ResizeMethod.BICUBIC)
  return tf.clip_by_value(resized / 255., 0., 1.)
