"""Images from NumPy files: an .npz archive, or a pair of .npy files."""

import functools
import pathlib
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from byol_jax import ranges
from byol_jax.distributed import parallel
from byol_jax.errors import counted
from byol_jax.input_pipeline import file_kinds, splits
from byol_jax.input_pipeline.memory import Arrays
from byol_jax.input_pipeline.records import DataError, Files, Records

LOCATION_OPTIONS = ('images', 'labels', 'test_images', 'test_labels')

# A value of `labels`: the data set is read as unlabelled, whatever its files contain.
UNLABELLED = 'none'
NEEDED = ('Give an .npz with `images` and, if there are any, `labels`; or an .npy of images and '
          'one of labels (data.options).')
NUMBERING = 'np.unique(labels, return_inverse=True)[1] numbers them'
NUMBERED = f'Labels must number the classes from 0; {NUMBERING}.'


class _Labels(NamedTuple):
  """Labels as they are stored in a file.

  values: whole numbers [N], of any dtype.
  num_classes: the width of one-hot labels; 0 if the labels are not one-hot.
  file: the file's path, for messages.
  """

  values: np.ndarray
  num_classes: int
  file: str


OPTIONS = dict(
    images='images.npz',  # .npz with `images` and optionally `labels`, or an .npy; a path
    # .npy of integers if `images` is an .npy. None: the labels in `images`, if there are any.
    # 'none': training and test images are read as unlabelled; a path or None
    labels=None,
    # Like `images`; a path or None
    test_images=None,
    # Like `labels`; a path or None
    test_labels=None,
    validation_share=0.1,  # share of the images held out from training; a number in [0, 1)
    # 0: the largest training label + 1, at most the number of images; a whole number of 0 or more
    num_classes=0,
)
RANGES = dict(
    images=ranges.PATH, labels=ranges.optional(ranges.PATH),
    test_images=ranges.optional(ranges.PATH), test_labels=ranges.optional(ranges.PATH),
    num_classes=ranges.whole(0), **splits.SHARE)


def records(part: str, *, images: str, labels: str | None, test_images: str | None,
            test_labels: str | None, num_classes: int) -> Records | None:
  """Lists the images of a part.

  Args:
    part: 'train' comes from `images`, 'test' from `test_images`; there is no 'validation'.
    images: path of an .npz with `images` and, optionally, `labels`; or of an .npy of
      images, uint8 [N, H, W, 3].
    labels: path of an .npy (or .npz) of labels [N], which takes precedence over the labels in
      `images`; None uses the labels in `images`, if there are any; 'none' reads training,
      validation and test images as unlabelled. Labels are whole numbers from 0, as [N], [N, 1] or
      one-hot [N, num_classes]; if all are -1, the images are unlabelled.
    test_images: like `images`, for the test part; None if there is no test part.
    test_labels: like `labels`, for the test part.
    num_classes: number of classes; 0 takes the largest training label + 1 (or the width of
      one-hot labels), which can be at most the number of images.

  Raises:
    DataError: a file is missing, is of another kind, or is damaged; the images are not uint8
      [N, H, W, 3]; the labels are not one class per image, or are out of range.
  """
  if part == 'validation':
    return None
  if part == 'test':
    _check_there(test_images)
    own = test_images, UNLABELLED if labels == UNLABELLED else test_labels
  else:
    own = images, labels
  all_images, found = _read(*own)
  if found is not None:
    inferred = not num_classes
    if inferred:
      num_classes = _count_classes(_read(images, labels)[1] if part == 'test' else found, images)
    _check_range(found, num_classes, f'in the training labels of {images}' if inferred else '')
  return Records(
      own[0], Arrays(all_images.__getitem__, len(all_images)),
      labels=None if found is None else found.values.astype(np.int32),
      num_classes=0 if found is None else num_classes,
      files=lambda: _files(images=own[0], labels=None if own[1] == UNLABELLED else own[1]))


def _files(**paths: str | None) -> Files:
  found = {name: str(pathlib.Path(path).expanduser()) for name, path in paths.items() if path}
  return Files(list(found), list(found.values()))


def _check_there(test_images: str | None) -> None:
  if test_images is None:
    raise DataError('There is no test split: set data.options.test_images.')
  if not pathlib.Path(test_images).expanduser().exists():
    raise DataError(f'{test_images}: no such file (data.options.test_images).')


def _read(images: str, labels: str | None) -> tuple[np.ndarray, _Labels | None]:
  """Images and labels of one file pair, checked against each other."""
  arrays = _open(images, 'images')
  if 'images' not in arrays:
    raise DataError(f'{images} has no array `images`; it has {", ".join(arrays) or "none"}. Save '
                    "them under these names: np.savez('FILE.npz', images=..., labels=...).")
  image_array = arrays['images']
  _check_images(image_array, images)
  if labels == UNLABELLED:
    return image_array, None
  given = arrays if labels is None else _open(labels, 'labels')
  if labels is not None and 'labels' not in given:
    raise DataError(f'{labels} has no array `labels`; it has {", ".join(given) or "none"} '
                    '(data.options.labels).')
  if 'labels' not in given:
    return image_array, None
  return image_array, _classes(given['labels'], len(image_array), labels or images)


def _open(path: str, name: str) -> dict[str, np.ndarray]:
  """Opens the arrays `images` and `labels` of an .npz, or an .npy under the given name."""
  file = pathlib.Path(path).expanduser()
  if not file.exists():
    raise DataError(f'{path}: no such file (data.options).')
  kind = file_kinds.kind(file)
  if kind == file_kinds.FOLDER:
    raise DataError(f'{path} is a folder; folders of image files are read with '
                    f'experiments/configs/image_folder.py. {NEEDED}')
  if kind not in (file_kinds.NPY, file_kinds.NPZ):
    raise DataError(f'{path} is {kind}. {NEEDED}')
  key = name
  try:
    # Memory-mapped, not read: a host that owns a part of the images does not load all of them.
    content = np.load(file, mmap_mode='r', allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
      return {name: content}
    with content:
      found = {}
      for key in [key for key in content if key in ('images', 'labels')] or content:
        found[key] = content[key]
        if not isinstance(found[key], np.ndarray):
          raise DataError(f'{path}: `{key}` is not a NumPy array; write the file again. {NEEDED}')
      return found
  except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
    # NumPy raises one error for everything it cannot read, and its text suggests unpickling.
    if isinstance(error, ValueError) and 'object' in str(error).lower():
      raise DataError(f'{path}: `{key}` holds Python objects, which are not loaded from a file; '
                      'save numbers: images of one size as uint8 [N, H, W, 3], labels as integers '
                      '[N].') from error
    raise DataError(f'{path} is damaged or truncated ({error}); save or copy it again.') from error


def _check_images(images: np.ndarray, file: str) -> None:
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
    raise DataError(f'{file}: images must be uint8 [N, H, W, 3], not {images.dtype} '
                    f'{list(images.shape)}{_conversion(images)}.')
  if not images.size:
    raise DataError(f'{file} has no images: the array has shape {list(images.shape)}.')


def _conversion(images: np.ndarray) -> str:
  """How to convert an array into images, as far as its shape and values show this."""
  code = 'images'
  if images.ndim == 4 and images.shape[1] == 1 and images.shape[-1] != 1:
    code = f'np.repeat({code}, 3, axis=1).transpose(0, 2, 3, 1)'
  elif images.ndim == 3 and images.shape[-1] == 3:
    code += '[None]'
  elif images.ndim == 3:
    code = f'np.repeat({code}[..., None], 3, axis=-1)'
  elif images.ndim == 4 and images.shape[-1] == 1:
    code = f'np.repeat({code}, 3, axis=-1)'
  elif images.ndim == 4 and images.shape[-1] == 4:
    code += '[..., :3]'
  elif images.ndim == 4 and images.shape[1] == 3 != images.shape[-1]:
    code += '.transpose(0, 2, 3, 1)'
  elif images.ndim != 4 or images.shape[-1] != 3:
    return ''
  if images.dtype == np.uint8:
    return f'; {code} has that shape'
  if not images.size or images.dtype.kind not in 'iuf':
    return ''
  low, high = images.min(), images.max()
  numbers = f', from {low:.6g} to {high:.6g}'
  if not (low >= 0 and high <= (65535 if images.dtype == np.uint16 else 255)):
    return numbers
  scale = ' * 255' if images.dtype.kind == 'f' and high <= 1 else ' / 257' if high > 255 else ''
  return f'{numbers}; np.round({code}{scale}).astype(np.uint8) converts them'


def _classes(labels: np.ndarray, count: int, file: str) -> _Labels | None:
  """One class per image; None if all labels are -1, which marks an image without a label."""
  if labels.dtype.kind in 'US':
    raise DataError(f'{file}: labels must be integers [{count}], not text such as '
                    f'{labels.flat[:1].tolist()}; {NUMBERING}.')
  if labels.dtype.kind not in 'iufb' or labels.shape[:1] != (count,) or labels.ndim > 2:
    raise DataError(f'{file}: labels must be integers [{count}], one per image, not '
                    f'{labels.dtype} {list(labels.shape)}.')
  values, width = labels, 0
  if labels.ndim == 2 and labels.shape[1] == 1:
    values = labels[:, 0]
  elif labels.ndim == 2:
    if not (((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
      raise DataError(f'{file}: labels {labels.dtype} {list(labels.shape)} are not one-hot (one 1 '
                      f'in each row); give integers [{count}], one class per image.')
    values, width = labels.argmax(axis=1), labels.shape[1]
  if values.dtype.kind == 'f':
    broken = values[~(np.isfinite(values) & (values == np.round(values)))]
    if len(broken):
      raise DataError(f'{file}: {len(broken)} of {count} labels are not whole numbers; the first '
                      f'is {broken[0]:g}. {NUMBERED}')
  if (values < 0).all() and not (values == -1).all():
    raise DataError(f'{file}: all {count} labels are negative, from {_shown(values.min())} to '
                    f'{_shown(values.max())}. {NUMBERED} For unlabelled images, set all to -1.')
  missing = int((values == -1).sum())
  if missing == count:
    _note(f'{file}: all labels are -1, so the images are read as unlabelled.')
    return None
  if missing:
    raise DataError(f'{file}: {missing} of {count} labels are -1, which marks an image without a '
                    'label. Leave those images out, or read the set as unlabelled with '
                    f'--config.data.options.labels={UNLABELLED}.')
  return _Labels(values, width, file)


def _shown(label) -> str:
  """Formats a label for an error message: 1e300 would have 300 digits."""
  return f'{int(label):,}' if abs(float(label)) < 1e21 else f'{label:g}'


def _count_classes(labels: _Labels | None, images: str) -> int:
  """Infers the number of classes from training labels; prints the classes without images."""
  if labels is None:
    raise DataError(f'{images} has no labels, but the test split has; set '
                    'data.options.num_classes.')
  found = labels.num_classes or int(labels.values.max()) + 1
  count = len(labels.values)
  if found > count and not labels.num_classes:
    many = (f'; if there are that many classes, give --config.data.options.num_classes={found}'
            if found <= ranges.LARGEST else '')
    raise DataError(f'{labels.file}: the largest label is {_shown(found - 1)}, which would mean '
                    f'{_shown(found)} classes for {counted(count, "image")}. If labels are ids or '
                    f'time stamps, {NUMBERING}{many}.')
  unused = np.setdiff1d(np.arange(found), labels.values)
  if len(unused):
    shown = ', '.join(map(str, unused[:10])) + (', ...' if len(unused) > 10 else '')
    _note(f'{labels.file}: {len(unused)} of the {found} classes have no image: {shown}')
  return found


def _check_range(labels: _Labels, num_classes: int, source: str) -> None:
  low, high = int(labels.values.min()), int(labels.values.max())
  if low < 0 or high >= num_classes:
    raise DataError(f'{labels.file}: labels run from {_shown(low)} to {_shown(high)}, but the '
                    f'classes {source or "set by data.options.num_classes"} are '
                    f'0 ... {num_classes - 1:,}; number the classes from 0, or '
                    'give --config.data.options.num_classes.')


@functools.cache
def _note(text: str) -> None:
  """Prints a message once, however many splits are read from a file."""
  parallel.print_once(text)
