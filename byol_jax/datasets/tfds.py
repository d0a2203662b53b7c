"""Any data set that TensorFlow Datasets has prepared as TFRecord files.

What is drawn by classes takes one pass over the labels. How records are read: tfrecords.py.
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
  """Lists a part.

  Args:
    part: 'train', 'validation' or 'test'.
    name: as TFDS has it, with config and version if wanted: 'imagenette/160px-v2'.
    data_dir: folder of the prepared sets; None takes TFDS's own ($TFDS_DATA_DIR, or
      ~/tensorflow_datasets).
    train_split: in TFDS syntax: 'train', 'train[:50%]', 'train+unlabelled'.
    validation_split: the same; '' where held-out images come from `train_split`.
    test_split: the same; '' where there is none.
    image_key: the feature that is the image.
    label_key: the feature that is the label; '' for unlabelled data. Where it is a
      sequence of classes the labels are int32 [C]: 1 for those in it, 0 for others.
    shuffle_buffer: encoded records that a virtual shard keeps to draw from.
    download: prepare the set first, if TFDS can.
    cache_dir: folder on this host into which it copies the files of its shards.
    ignored_label_key: a sequence of classes: those that only this one has are -1.
    validation_name: the set of which `validation_split` is; '' for `name`.
    image_id_key: a feature, such as the file's name, by which images for validation
      that are in `train_split` too are left out; '' leaves none out.

  Raises:
    DataError: no such set, split or feature, or it has not been prepared.
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
  """The files, named by set and version."""
  found = {f'{set_name}/{posixpath.basename(s.file)}': s.file for s in slices}
  return Files(list(found), list(found.values()), packed=True)


def _same_labels(builder, holder, keys: tuple[str, str, str]) -> prepared.LabelSpec:
  """What the labels are; raises DataError where two sets differ in it."""
  spec, other = (prepared.label_spec(one, *keys) for one in (builder, holder))
  if spec != other:
    raise DataError(f'{builder.name} and {holder.name} (data.options.validation_name) have '
                    f'{spec.num_classes} and {other.num_classes} classes; take sets of the same.')
  return spec
