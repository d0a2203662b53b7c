"""Any data set that TensorFlow Datasets has prepared as TFRecord files.

Images for validation are a split of their own, the first or the last of the training
split, or as many of each class; of the others a balanced subset can be taken. What is
drawn by classes takes one pass over the labels. How records are read: tfrecords.py.
"""

from collections.abc import Callable, Sequence
import math
import posixpath

import numpy as np

from byol_jax import ranges
from byol_jax.input_pipeline import prepared, splits, tfrecords
from byol_jax.input_pipeline.records import TOGETHER, DataError, Files, Shards, Stream, check_labels
from byol_jax.input_pipeline.tfrecords import Chosen

LOCATION_OPTIONS = ('data_dir', 'download', 'cache_dir')
_OR_EMPTY = ranges.or_empty(ranges.TEXT)
RANGES = dict(
    name=ranges.TEXT, data_dir=ranges.optional(ranges.PATH), train_split=ranges.TEXT,
    validation_split=_OR_EMPTY, test_split=_OR_EMPTY,
    held_out=ranges.OneOf(('first', 'last', 'per_class')), held_out_images=ranges.whole(0),
    held_out_share=ranges.number(0, 1, '[)'), held_out_per_class=ranges.whole(0),
    validation_name=_OR_EMPTY, image_id_key=_OR_EMPTY, **splits.RANGES, image_key=ranges.TEXT,
    label_key=_OR_EMPTY, ignored_label_key=_OR_EMPTY, shuffle_buffer=ranges.whole(1),
    download=ranges.FLAG, cache_dir=ranges.optional(ranges.PATH))


def check_options(*, held_out: str, held_out_per_class: int = 0, **_) -> None:
  """Raises DataError for options of `load` that cannot be together."""
  if held_out == 'per_class' and not held_out_per_class:
    raise DataError("data.options.held_out_per_class is 0; held_out='per_class' needs 1 or more.")


def load(split: str, *, shards: Shards, name: str, train_split: str, validation_split: str,
         test_split: str, held_out: str, held_out_images: int, held_out_share: float,
         image_key: str, label_key: str, shuffle_buffer: int, data_dir: str | None = None,
         download: bool = False, cache_dir: str | None = None, held_out_per_class: int = 0,
         subset_share: float = 1., subset_seed: int = 0, ignored_label_key: str = '',
         validation_name: str = '', image_id_key: str = '') -> Stream:
  """Opens a split.

  Args:
    split: 'train', 'validation', 'test' or 'train+validation'.
    shards: the records this host owns.
    name: as TFDS has it, with config and version if wanted: 'imagenette/160px-v2'.
    data_dir: folder of the prepared sets; None takes TFDS's own ($TFDS_DATA_DIR, or
      ~/tensorflow_datasets).
    train_split: in TFDS syntax: 'train', 'train[:50%]', 'train+unlabelled'.
    validation_split: the same; '' holds images of `train_split` out.
    test_split: the same; '' where there is none.
    held_out: 'last' (paper) or 'first' (reference) images of `train_split`, or
      'per_class': as many of each class, drawn by a hash.
    held_out_images: how many; 10,009 in the paper, 10,000 in the reference.
    held_out_share: at most this share of the split, rounded up; decides for small sets.
    image_key: the feature that is the image.
    label_key: the feature that is the label; '' for unlabelled data. Where it is a
      sequence of classes the labels are int32 [C]: 1 for those in it, 0 for others.
    shuffle_buffer: encoded records that a virtual shard keeps to draw from.
    download: prepare the set first, if TFDS can.
    cache_dir: folder on this host into which it copies the files of its shards.
    held_out_per_class: images of each class, with held_out 'per_class'.
    subset_share: of the training images that are not held out; below 1 a class-balanced
      subset (input_pipeline/splits.py), which the Stream names.
    subset_seed: draws the subset; the held-out images do not depend on it.
    ignored_label_key: a sequence of classes: those that only this one has are -1.
    validation_name: the set of which `validation_split` is; '' for `name`.
    image_id_key: a feature, such as the file's name, by which images for validation
      that are in `train_split` too are left out; '' leaves none out.

  Raises:
    DataError: no such set, split or feature, or it has not been prepared; a class
      without images where they are drawn by classes.
  """
  keys = image_key, label_key, ignored_label_key
  builder = prepared.open_set(name, data_dir, download)
  holder = prepared.open_set(validation_name, data_dir, download) if validation_name else builder
  form = _same_form(builder, holder, keys)
  prepared.check_apart((builder, 'train', train_split), (holder, 'validation', validation_split),
                       (builder, 'test', test_split))
  parts, subset = [], None
  if split == 'test':
    parts.append(_all(prepared.slices(builder, test_split, split)))
  if split in ('train', TOGETHER) or split == 'validation' and not validation_split:
    slices = prepared.slices(builder, train_split, 'train')
    labels = lambda: _labels(form, name, data_dir, train_split, label_key)
    names = prepared.class_names(builder.info.features, label_key)
    held = np.arange(0) if validation_split else _held_out(
        tfrecords.count(slices), labels, form.num_classes, held_out, held_out_images,
        held_out_share, held_out_per_class, names)
    rows, subset = splits.of_training(split, np.arange(tfrecords.count(slices)), held, labels,
                                      form.num_classes, subset_share, subset_seed, names)
    parts.append(Chosen(slices, rows))
  if validation_split and split in ('validation', TOGETHER):
    part = _all(prepared.slices(holder, validation_split, 'validation'))
    parts.append(_not_in_training(part, data_dir, (name, train_split), (
        validation_name or name, validation_split), image_id_key))
  chosen = tfrecords.together(parts)
  if not len(chosen.rows):
    wanted = dict(train=train_split, validation=validation_split or train_split, test=test_split)
    raise DataError(f'{name}: the {split} split is empty (data.options: {wanted.get(split)!r}, '
                    f'held_out_images {held_out_images}, held_out_share {held_out_share}).')
  tfrecords.check_files(name, tfrecords.holding(*chosen))
  read = prepared.parser(builder.info.features, *keys, form)
  return tfrecords.stream(
      chosen, shards, read=read, shuffle_buffer=shuffle_buffer, cache_dir=cache_dir,
      num_classes=form.num_classes, multi_label=form.multi_label, subset=subset,
      class_names=prepared.class_names(builder.info.features, label_key))._replace(
          origin=lambda: _files((builder, train_split, 'train'),
                                (holder, validation_split, 'validation')))


def _files(*splits: tuple) -> Files:
  """The files of (builder, split, what) where a split is given, named by set and version."""
  found = {f'{builder.info.full_name}/{posixpath.basename(s.file)}': s.file
           for builder, split, what in splits if split
           for s in prepared.slices(builder, split, what)}
  return Files(list(found), list(found.values()), packed=True)


def check_split(split: str, *, name: str, data_dir: str | None, download: bool, test_split: str,
                **_) -> None:
  """Raises DataError if a split cannot be read, without opening a record."""
  if split != 'test':
    return
  slices = prepared.slices(prepared.open_set(name, data_dir, download), test_split, split)
  if not slices:
    raise DataError(f'{name}: the test split is empty (data.options.test_split: {test_split!r}).')
  tfrecords.check_files(name, slices)


def _same_form(builder, holder, keys: tuple[str, str, str]) -> prepared.Form:
  """What the labels are; raises DataError where two sets differ in it."""
  form, other = (prepared.form(one, *keys) for one in (builder, holder))
  if form != other:
    raise DataError(f'{builder.name} and {holder.name} (data.options.validation_name) have '
                    f'{form.num_classes} and {other.num_classes} classes; take sets of the same.')
  return form


def _labels(form: prepared.Form, name: str, data_dir: str | None, train_split: str, label_key: str
            ) -> np.ndarray:
  """The labels of the whole training split, int [N]."""
  if not label_key or form.multi_label:
    raise DataError(f"data.options.held_out='per_class' and subset_share need one label for each "
                    f"image; {name} has {'several' if label_key else 'none'} (label_key "
                    f'{label_key!r}).')
  labels = prepared.column(name, data_dir, train_split, label_key)
  check_labels(f'{name}, {train_split!r}', labels, form.num_classes)
  return labels


def _held_out(total: int, labels: Callable[[], np.ndarray], num_classes: int, held_out: str,
              images: int, share: float, per_class: int, class_names: Sequence[str]) -> np.ndarray:
  """The rows of the training split that are held out."""
  if held_out == 'per_class':
    return splits.held_out(labels(), num_classes, per_class, class_names)
  count = min(images, math.ceil(share * total))
  return np.arange(count) if held_out == 'first' else np.arange(total - count, total)


def _all(slices: list[tfrecords.Slice]) -> Chosen:
  return Chosen(slices, np.arange(tfrecords.count(slices)))


def _not_in_training(part: Chosen, data_dir: str | None, train: tuple[str, str],
                     validation: tuple[str, str], key: str) -> Chosen:
  """The images of the validation split that the training split has not.

  Args:
    part: the validation split.
    data_dir: of the prepared sets.
    train: name and split.
    validation: the same.
    key: the feature that tells images apart; '' leaves none out.
  """
  if not key:
    return part
  taken, own = (prepared.column(name, data_dir, split, key).tolist()
                for name, split in (train, validation))
  return part._replace(rows=np.flatnonzero(~np.isin(own, list(set(taken)))))
