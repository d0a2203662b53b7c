"""Copies a prepared TFDS data set with smaller images, which are faster to read and decode.

The copy has the same name, version, files and order, so that only
`data.options.data_dir` must be changed in a config.
"""

from collections.abc import Callable
import json
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.input_pipeline import preprocess

NOTE = 'byol_jax_prepared.json'
INFO = 'dataset_info.json'


def shrink(source: pathlib.Path, target: pathlib.Path, *, short_side: int, quality: int,
           image_key: str, progress: Callable[[str], None]) -> dict[str, int]:
  """Copies a data set and limits the shorter sides of its images to `short_side` pixels.

  Larger images are resized with antialiased bicubic interpolation and encoded as JPEG;
  other images are copied unchanged. Existing files of an earlier call with the same numbers
  are kept. `dataset_info.json`, without which TFDS does not open a data set, is written last.

  Args:
    source: folder of the data set's version, DATA/NAME/VERSION, with TFRecord files.
    target: folder of the copy's version; made if it does not exist.
    short_side: largest shorter side in pixels.
    quality: quality of the JPEG files, 1 to 100.
    image_key: feature with the image.
    progress: called with a line for each file.

  Returns:
    Counts over the files that were written: records, shrunk, bytes_before, bytes_after.

  Raises:
    InputError: there is no data set in `source`, or `target` has one made with other settings.
  """
  info = source / INFO
  if not info.is_file() or json.loads(info.read_text()).get('fileFormat', '') != 'tfrecord':
    raise InputError(f'{source} is not a TFDS set of TFRecord files: its {INFO} is missing or '
                     'names another format.')
  if not 1 <= quality <= 100 or short_side < 1:
    raise InputError(f'--quality is {quality} and --short_side is {short_side}; set --quality to '
                     '1 ... 100 and --short_side to 1 or more.')
  note = dict(source=str(source), short_side=short_side, quality=quality)
  _begin(target, note)
  counts = dict(records=0, shrunk=0, bytes_before=0, bytes_after=0)
  for path in sorted(source.iterdir()):
    if '.tfrecord' not in path.name:
      if path.name != INFO and path.is_file():
        # The mode is not copied: a copy of a read-only file could not be overwritten later.
        with files.atomic_path(target / path.name) as partial:
          shutil.copyfile(path, partial)
    elif not (target / path.name).exists():
      try:
        done = _copy(path, target / path.name, short_side, quality, image_key)
      except tf.errors.OpError as error:
        raise InputError(f'{path}, or an image in it under the key {image_key!r}, cannot be read: '
                         f'{error.message.splitlines()[0][:300]}') from error
      counts = {name: value + done[name] for name, value in counts.items()}
      progress(f'{target / path.name}: {done["shrunk"]} of {done["records"]} images shrunk')
  with files.atomic_path(target / INFO) as partial:
    shutil.copyfile(info, partial)
  return counts


def _begin(target: pathlib.Path, note: dict) -> None:
  path = target / NOTE
  if target.exists() and any(target.iterdir()) and not path.exists():
    raise InputError(f'{target} holds other files; give an empty --output.')
  if path.exists() and json.loads(path.read_text()) != note:
    raise InputError(f'{target} was made with other options ({path.read_text().strip()}); give '
                     'another --output.')
  target.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path) as file:
    file.write(json.dumps(note) + '\n')


def _copy(source: pathlib.Path, target: pathlib.Path, short_side: int, quality: int,
          image_key: str) -> dict[str, int]:
  """Copies one file; the copy gets its final name when it is complete."""
  def shrunk(serialized):
    feature = tf.io.parse_single_example(
        serialized, {image_key: tf.io.FixedLenFeature([], tf.string)})[image_key]
    image = preprocess.decode(feature)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64))
    scale = short_side / tf.minimum(height, width)
    shape = [tf.cast(tf.round(side * scale), tf.int32) for side in (height, width)]

    def smaller():
      resized = tf.image.resize(image, shape, tf.image.ResizeMethod.BICUBIC, antialias=True)
      return tf.io.encode_jpeg(tf.cast(tf.round(tf.clip_by_value(resized, 0., 255.)), tf.uint8),
                               quality=quality)

    return serialized, tf.cond(scale < 1, smaller, lambda: tf.constant(b'')), feature

  counts = dict(records=0, shrunk=0, bytes_before=0, bytes_after=0)
  records = tf.data.TFRecordDataset(str(source)).map(shrunk, num_parallel_calls=tf.data.AUTOTUNE)
  with files.atomic_path(target) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
    for serialized, encoded, feature in records.prefetch(16).as_numpy_iterator():
      counts['records'] += 1
      counts['bytes_before'] += len(feature)
      counts['bytes_after'] += len(encoded or feature)
      if encoded:
        counts['shrunk'] += 1
        example = tf.train.Example.FromString(serialized)
        example.features.feature[image_key].bytes_list.value[:] = [encoded]
        serialized = example.SerializeToString()
      writer.write(serialized)
  return counts


def differences(source: pathlib.Path, target: pathlib.Path, *, image_key: str, size: int = 224,
                images: int = 64) -> dict[str, float]:
  """How far random views of a copy are from bicubic crops of the original.

  Args:
    source: folder of the data set's version.
    target: folder of its copy.
    image_key: feature with the image.
    size: side of the views in pixels.
    images: number of images that are compared, from the first files.

  Returns:
    The mean absolute difference, out of 255, for the same windows of the original resized with
    bilinear interpolation ('original, bilinear') and of the copy ('copy, bicubic', 'copy,
    bilinear').
  """
  random, found = np.random.default_rng(0), {}
  paths = [str(path) for path in sorted(source.iterdir()) if '.tfrecord' in path.name]
  pairs = tf.data.Dataset.zip(*(tf.data.TFRecordDataset(
      [str(folder / pathlib.Path(path).name) for path in paths]) for folder in (source, target)))
  parse = {image_key: tf.io.FixedLenFeature([], tf.string)}
  for records in pairs.take(images):
    decoded = [preprocess.decode(tf.io.parse_single_example(record, parse)[image_key])
               for record in records]
    side = np.sqrt(random.uniform(.08, 1))
    top, left = random.uniform(0, 1 - side, 2)
    views = {(name, method): tf.cast(preprocess.resized_window(
        image, (top, left, side, side), size, method), tf.float32)
             for name, image in zip(('original', 'copy'), decoded) for method in preprocess.RESIZE}
    exact = views.pop(('original', 'bicubic'))
    for name, view in views.items():
      found.setdefault(', '.join(name), []).append(float(tf.reduce_mean(tf.abs(view - exact))))
  return {name: float(np.mean(values)) for name, values in found.items()}
