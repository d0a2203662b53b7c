"""Any data set that TensorFlow Datasets has prepared as TFRecord files.

Drawing images by their classes takes one pass over the labels. tfrecords.py reads the records.
"""

import functools
import posixpath

import numpy as np

from byol_jax import ranges
from byol_jax.input_pipeline import prepared, splits, tfrecords
from byol_jax.input_pipeline.records import DataError, Files, Records
from byol_jax.input_pipeline.tfrecords import Chosen, RecordFiles

LOCATION_OPTIONS = ('data_dir', 'download', 'cache_dir')
_OR_EMPTY = ranges.or_empty(ranges.TEXT)
OPTIONS = dict(
    # Config and version may follow, as in 'imagenette/160px-v2'; a text
    name='imagenet2012',
    # None: TFDS's default folder; a path or None
    data_dir=None,
    # In TFDS syntax, like the next two keys; a text
    train_split='train',
    validation_split='',  # '': held out from train_split; a text or ''
    # '': none. For ImageNet the public validation set serves as test set; a text or ''
    test_split='validation',
    # Which images of train_split are held out: the 'last' (appendix D.1), the 'first'
    # (reference), or 'per_class' the same number of each class, selected by a hash
    # (appendix D.1: SUN397, Pets, Caltech-101); 'first', 'last' or 'per_class'
    held_out='last',
    # Number held out (appendix C.1; reference 10,000); a whole number of 0 or more
    held_out_images=10_009,
    # Upper limit as a share of train_split, for small data sets; a number in [0, 1)
    held_out_share=0.1,
    # Number held out of each class; 'per_class' needs 1 or more; a whole number of 0 or more
    held_out_per_class=0,
    # Data set that contains validation_split and has the same classes ('': `name`);
    # a text or ''
    validation_name='',
    # Feature that identifies images, such as 'file_name': images that are in train_split too
    # are left out of the validation ('': none are left out); a text or ''
    image_id_key='',
    # Share of the images not held out that is used for training; below 1 it is a
    # class-balanced subset (appendix C.1, Figure 4: 0.01 to 1). With the same seed, a larger
    # subset contains the smaller ones; a number in (0, 1]
    subset_share=1.0,
    subset_seed=0,  # selects the subset; a whole number of 0 or more
    image_key='image',  # feature with the image; a text
    # Feature with the label ('': unlabelled). If it is a sequence of classes, an image can
    # have several labels; a text or ''
    label_key='label',
    # Feature with a sequence of classes. Those that are not also in label_key are ignored in
    # training and scoring, like VOC2007's difficult objects ('': none are ignored);
    # a text or ''
    ignored_label_key='',
    # Encoded records that each virtual shard buffers for shuffling; with 64 shards that is
    # 16,384 over all hosts; a whole number of 1 or more
    shuffle_buffer=256,
    download=False,  # download and prepare the data set first, if TFDS can; True or False
    # For slow storage: a folder on this host (local disk or /dev/shm) into which the files of
    # its shards are copied before the first step (None: no copy);
    # a path or None
    cache_dir=None,
)
RANGES = dict(
    name=ranges.TEXT, data_dir=ranges.optional(ranges.PATH), train_split=ranges.TEXT,
    validation_split=_OR_EMPTY, test_split=_OR_EMPTY, **splits.HELD_OUT,
    validation_name=_OR_EMPTY, image_id_key=_OR_EMPTY, **splits.SUBSET, image_key=ranges.TEXT,
    label_key=_OR_EMPTY, ignored_label_key=_OR_EMPTY, shuffle_buffer=ranges.whole(1),
    download=ranges.FLAG, cache_dir=ranges.optional(ranges.PATH))


def records(part: str, *, name: str, train_split: str, validation_split: str, test_split: str,
            image_key: str, label_key: str, shuffle_buffer: int, data_dir: str | None = None,
            download: bool = False, cache_dir: str | None = None, ignored_label_key: str = '',
            validation_name: str = '', image_id_key: str = '') -> Records | None:
  """Lists the images of a part.

  Args:
    part: 'train', 'validation' or 'test'.
    name: TFDS name of the data set, optionally with config and version: 'imagenette/160px-v2'.
    data_dir: folder of the prepared data sets; None for the default of TFDS ($TFDS_DATA_DIR, or
      ~/tensorflow_datasets).
    train_split: split in TFDS syntax: 'train', 'train[:50%]', 'train+unlabelled'.
    validation_split: split in TFDS syntax; '' if held-out images are taken from `train_split`.
    test_split: split in TFDS syntax; '' if there is none.
    image_key: the feature with the image.
    label_key: the feature with the label; '' for unlabelled data. If it is a sequence of
      classes, the labels are int32 [C]: 1 for the classes in it, 0 for the others.
    shuffle_buffer: number of encoded records that each virtual shard buffers for shuffling.
    download: whether to prepare the data set first, if TFDS can.
    cache_dir: folder on this host into which the host copies the files of its shards.
    ignored_label_key: the feature with a sequence of classes; classes that are in it but not in
      `label_key` are -1.
    validation_name: the data set that has `validation_split`; '' for `name`.
    image_id_key: a feature that identifies images, such as the file name; validation images
      that are also in `train_split` are left out. '' leaves none out.

  Raises:
    DataError: there is no such data set, split or feature, or the set has not been prepared.
  """
  keys = image_key, label_key, ignored_label_key
  builder = prepared.open_set(name, data_dir, download)
  holder = prepared.open_set(validation_name, data_dir, download) if validation_name else builder
  spec = _same_labels(builder, holder, keys)
  texts = dict(train=train_split, validation=validation_split, test=test_split)
  sets = dict(train=(builder, name), validation=(holder, validation_name or name),
              test=(builder, name))
  prepared.check_apart(*((sets[one][0], one, text) for one, text in texts.items()))
  (own, own_name), text = sets[part], texts[part]
  if part == 'validation' and not text:
    return None
  slices = prepared.slices(own, text, part)
  if not slices:
    raise DataError(f'{name}: the {part} split is empty (data.options.{part}_split: {text!r}).')
  feature = functools.partial(prepared.read_feature, own_name, data_dir, text)
  return Records(
      name, RecordFiles(Chosen(slices, np.arange(tfrecords.count(slices))), name,
                        prepared.parser(builder.info.features, *keys, spec), shuffle_buffer,
                        cache_dir),
      labels=None, num_classes=spec.num_classes, multi_label=spec.multi_label,
      class_names=prepared.class_names(builder.info.features, label_key),
      read_labels=(lambda: feature(label_key)) if label_key and not spec.multi_label else None,
      image_ids=(lambda: feature(image_id_key)) if image_id_key else None,
      files=lambda: _files(own.info.full_name, slices))


def _files(set_name: str, slices: list[tfrecords.Slice]) -> Files:
  """The files, with names made from data set and version."""
  found = {f'{set_name}/{posixpath.basename(s.file)}': s.file for s in slices}
  return Files(list(found), list(found.values()), packed=True)


def _same_labels(builder, holder, keys: tuple[str, str, str]) -> prepared.LabelSpec:
  """The kind of the labels; raises DataError if two data sets have different kinds."""
  spec, other = (prepared.label_spec(one, *keys) for one in (builder, holder))
  if spec != other:
    differing = [f'{name} {one} and {two}' for name, one, two in zip(spec._fields, spec, other)
                 if one != two]
    raise DataError(f'{builder.name} and {holder.name} (data.options.validation_name) have labels '
                    f'of different kinds: {", ".join(differing)}. Both must have the same.')
  return spec
