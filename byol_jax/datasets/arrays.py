"""Images from NumPy files: an .npz archive, or a pair of .npy files."""

import pathlib
import zipfile
import zlib

import numpy as np

from byol_jax import hashing, ranges
from byol_jax.datasets import TOGETHER, DataError, Shards, Split

RANGES = dict(
    images=ranges.PATH, labels=ranges.optional(ranges.PATH),
    test_images=ranges.optional(ranges.PATH), test_labels=ranges.optional(ranges.PATH),
    validation_share=ranges.number(0, 1, '[)'), num_classes=ranges.whole(0))


def load(split: str, *, shards: Shards, images: str, labels: str | None,
         test_images: str | None, test_labels: str | None, validation_share: float,
         num_classes: int) -> Split:
  """Loads a split.

  Args:
    split: 'train', 'validation' and both together come from `images`, 'test' from
      `test_images`.
    shards: the records this host owns.
    images: path of an .npz with `images` and, optionally, `labels`; or of an .npy of
      images, uint8 [N, H, W, 3].
    labels: path of an .npy of integer labels [N]; None for unlabelled data or an .npz.
    test_images: the same for the test split; None where there is none.
    test_labels: the same for the test split.
    validation_share: in [0, 1); ceil(share * N) images of `images`, drawn by a hash
      of their number, are the validation split, the others the training split.
    num_classes: number of classes; 0 takes the largest training label + 1.

  Raises:
    DataError: a file is missing, unreadable, empty or of the wrong shape.
  """
  if split == 'test':
    check_split(split, test_images=test_images)
    if num_classes == 0 and _has_labels(test_images, test_labels):
      num_classes = _count_classes(_read(images, labels)[1], images)
    all_images, all_labels = _read(test_images, test_labels)
    rows = np.arange(len(all_images))
  else:
    all_images, all_labels = _read(images, labels)
    held_out = int(np.ceil(validation_share * len(all_images)))
    # Drawn, since the last images of a file are often those of the last classes.
    order = hashing.permutation(len(all_images), 0)
    rows = np.sort({'train': order[held_out:], 'validation': order[:held_out],
                    TOGETHER: order}[split])
    if num_classes == 0 and all_labels is not None:
      num_classes = _count_classes(all_labels, images)
  if not len(rows):
    raise DataError(f'{images}: the {split} split is empty with {len(all_images)} images '
                    f'and data.options.validation_share {validation_share}.')
  ids = shards.sample_ids(len(rows))
  return Split(ids, np.ascontiguousarray(all_images[rows[ids]]),
               None if all_labels is None else all_labels[rows[ids]].astype(np.int32),
               num_examples=len(rows),
               num_classes=0 if all_labels is None else num_classes)


def check_split(split: str, *, test_images: str | None, **_) -> None:
  """Raises DataError if a split cannot exist, without reading it."""
  if split == 'test' and test_images is None:
    raise DataError('There is no test split: set data.options.test_images.')
  if split == 'test' and not pathlib.Path(test_images).expanduser().is_file():
    raise DataError(f'{test_images}: no such file (data.options.test_images).')


def _read(images: str, labels: str | None) -> tuple[np.ndarray, np.ndarray | None]:
  """Images and labels of one file pair, checked against each other."""
  arrays = _open(images, 'images')
  if 'images' not in arrays:
    raise DataError(f'{images} has no array `images`; it has {", ".join(arrays) or "none"}.')
  image_array = arrays['images']
  label_array = arrays.get('labels') if labels is None else _open(labels, 'labels').get('labels')
  if image_array.ndim != 4 or image_array.shape[-1] != 3 or image_array.dtype != np.uint8:
    raise DataError(f'{images}: images must be uint8 [N, H, W, 3], not {image_array.dtype} '
                    f'{list(image_array.shape)}.')
  if not len(image_array):
    raise DataError(f'{images} has no images.')
  if labels is not None and label_array is None:
    raise DataError(f'{labels} has no array `labels`.')
  if label_array is not None and (label_array.shape != image_array.shape[:1]
                                  or label_array.dtype.kind not in 'iu'):
    raise DataError(f'{labels or images}: labels must be integers [{len(image_array)}], one per '
                    f'image, not {label_array.dtype} {list(label_array.shape)}.')
  if label_array is not None and np.abs(label_array).max() > np.iinfo(np.int32).max:
    raise DataError(f'{labels or images}: label {label_array.max()} does not fit 32 bits.')
  return image_array, label_array


def _open(path: str, name: str) -> dict[str, np.ndarray]:
  """The arrays `images` and `labels` of an .npz, or an .npy under the given name."""
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise DataError(f'{path}: no such file (data.options).')
  try:
    # Mapped, not read: a host that owns a part does not load the whole.
    content = np.load(file, mmap_mode='r', allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
      return {name: content}
    with content:
      wanted = [key for key in content if key in ('images', 'labels')]
      return {key: content[key] for key in wanted or list(content)}
  except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
    raise DataError(f'{path} is no readable .npy or .npz file: {error}') from error


def _has_labels(images: str, labels: str | None) -> bool:
  return _read(images, labels)[1] is not None


def _count_classes(labels: np.ndarray | None, where: str) -> int:
  if labels is None:
    raise DataError(f'{where} has no labels, the test split has: set data.options.num_classes.')
  return int(labels.max()) + 1
