"""Images with identities: training images, and a test split of queries and a gallery.

`retrieval_lists` reads the lists. In the test part the queries come first. Identities are
numbered over all lists together, because training and test have different identities.
"""

import hashlib
import json
import posixpath

import numpy as np

from byol_jax import ranges
from byol_jax.datasets import image_folder
from byol_jax.errors import counted
from byol_jax.input_pipeline import retrieval_lists, splits
from byol_jax.input_pipeline.listed_files import ImageFiles
from byol_jax.input_pipeline.records import DataError, Files, Records
from byol_jax.input_pipeline.retrieval_lists import Listed, Roles

LABELS = ('identities', 'none')
LOCATION_OPTIONS = ('root', 'query', 'gallery', 'train')
OPTIONS = dict(
    # 'csv': files with the columns path,id,camera; 'folders': a subfolder per identity;
    # 'veri': VeRi-776; 'veri_wild': VERI-Wild; 'csv', 'folders', 'veri' or 'veri_wild'
    format='csv',
    # Folder of the benchmark, for 'veri' and 'veri_wild'; a path or None
    root=None,
    # CSV file or folder with the queries, for 'csv' and 'folders'; a path or None
    query=None,
    # The same with the gallery; a path or None
    gallery=None,
    # The same with the training images, whose identities are not needed. In an evaluation
    # 'gallery' uses the images of the gallery; a path or None
    train=None,
    test_size=3000,  # identities in the VERI-Wild test set; 3000, 5000 or 10000
    labels='identities',  # 'none' for pretraining; 'identities' or 'none'
    validation_share=0.1,  # share of the training images held out; a number in [0, 1)
    # Rotate images according to their EXIF tag; True or False
    exif_orientation=True,
)
RANGES = dict(
    format=ranges.OneOf(retrieval_lists.FORMATS), root=ranges.optional(ranges.PATH),
    query=ranges.optional(ranges.PATH), gallery=ranges.optional(ranges.PATH),
    train=ranges.optional(ranges.PATH), test_size=ranges.OneOf(retrieval_lists.TEST_SIZES),
    labels=ranges.OneOf(LABELS), exif_orientation=ranges.FLAG, **splits.SHARE)


def records(part: str, *, format: str, root: str | None, query: str | None, gallery: str | None,
            train: str | None, test_size: int, labels: str, exif_orientation: bool = True
            ) -> Records | None:
  """Lists the images of a part without opening any of them.

  Args:
    part: 'train' or 'test'; there is no 'validation'.
    format: as in `retrieval_lists.read`.
    root: as in `retrieval_lists.read`.
    query: as in `retrieval_lists.read`.
    gallery: as in `retrieval_lists.read`.
    train: as in `retrieval_lists.read`.
    test_size: as in `retrieval_lists.read`.
    labels: 'identities', or 'none' for pretraining, which reads only the training list.
    exif_orientation: whether to rotate images according to their EXIF tag; otherwise they are
      used as stored.

  Raises:
    DataError: a list cannot be read, an image is missing, or a training image is also in a
      test list.
  """
  if part == 'validation':
    return None
  lists = dict(format=format, root=root, query=query, gallery=gallery, train=train,
               test_size=test_size)
  names, numbers = (('query', 'gallery') if part == 'test' else ('train',)), {}
  if labels == 'identities':
    found = _all(lists)
    numbers = _numbers(found)
    if train != retrieval_lists.GALLERY:
      _check_apart(found)
  else:
    found = {name: retrieval_lists.read(name, **lists) for name in names}
  own = [found[name] for name in names]
  for listed in own:
    retrieval_lists.check_images(listed)
  paths, identities = (np.concatenate([listed[field] for listed in own]) for field in (0, 1))
  # What is fitted to training images must not learn the identities of the gallery.
  known = numbers and all(identities) and (part == 'test' or train != retrieval_lists.GALLERY)
  return Records(
      f'The {" and ".join(names)} list', ImageFiles(paths, exif_orientation),
      np.array([numbers[name] for name in identities], np.int32) if known else None,
      len(numbers), class_names=tuple(numbers),
      left_out='; '.join(dict.fromkeys(listed.left_out for listed in own if listed.left_out)),
      files=(lambda: _files(found['train'], lists, numbers)) if part == 'train' else None)


def _files(listed: Listed, lists, numbers: dict[str, int]) -> Files:
  """The training images, with names relative to the folder of the images or of their list."""
  source = lists['gallery' if lists['train'] == retrieval_lists.GALLERY else 'train']
  folder = {'csv': posixpath.dirname(source or ''), 'folders': source}.get(
      lists['format'], lists['root'])
  found = image_folder.named('train', folder, listed.paths)
  # A list can give the same files another order or other identities.
  order = json.dumps([list(found), [numbers.get(name) for name in listed.identities]])
  return Files(list(found), list(found.values()), hashlib.sha256(order.encode()).hexdigest())


def roles(*, labels: str, exif_orientation: bool = True, **lists) -> Roles:
  """Which images of the test part are queries, and which cameras took the images."""
  del labels, exif_orientation
  found = _all(lists)
  query, gallery = found['query'], found['gallery']
  paths, cameras, identities = (np.concatenate([getattr(query, field), getattr(gallery, field)])
                                for field in ('paths', 'cameras', 'identities'))
  numbers = _numbers(found)
  camera = np.unique(cameras.astype(str), return_inverse=True)[1].astype(np.int32)
  return Roles(
      query=np.arange(len(paths)) < len(query.paths),
      camera=np.where(cameras == '', -1, camera).astype(np.int32),
      image=np.unique(list(map(retrieval_lists.location, paths)), return_inverse=True)[1].astype(
          np.int32),
      label=np.array([numbers[name] for name in identities], np.int32),
      names=paths, cameras=cameras)


def _all(lists) -> dict[str, Listed]:
  found = {part: retrieval_lists.read(part, **lists) for part in retrieval_lists.PARTS}
  known = {part: any(found[part].cameras) for part in ('query', 'gallery')}
  if known['query'] != known['gallery']:
    # No image of a query's own camera would be left out, and the scores would be too good.
    has, lacks = sorted(known, key=known.get, reverse=True)
    raise DataError(f'The {has} list has cameras and the {lacks} list has none, so images '
                    "from a query's camera cannot be left out; give cameras in both or in neither.")
  return found


def _numbers(found: dict[str, Listed]) -> dict[str, int]:
  """The number of each identity; identities are numbered in the order of their names."""
  names = {name for listed in found.values() for name in listed.identities if name}
  return {name: number for number, name in enumerate(sorted(names))}


def _check_apart(found: dict[str, Listed]) -> None:
  train = set(map(retrieval_lists.location, found['train'].paths))
  for part in ('query', 'gallery'):
    both = [path for path in found[part].paths if retrieval_lists.location(path) in train]
    if both:
      raise DataError(f'The {part} list and the training list share '
                      f'{counted(len(both), "image")}, the first {both[0]}; no image may be both '
                      'trained on and evaluated, so remove what is shared from one of them.')
