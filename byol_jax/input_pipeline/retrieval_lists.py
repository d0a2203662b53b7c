"""Lists of images with identities and cameras: your CSV files and folders, VeRi-776, VERI-Wild.

The benchmarks have the layouts that fast-reid reads (its veri.py and veriwild.py). For VERI-Wild,
lists with identity and camera in each line, which other code reads, also work.
"""

from collections.abc import Mapping
import csv
import os
import posixpath
import re
from typing import NamedTuple

from etils import epath
import numpy as np

from byol_jax.input_pipeline import file_kinds, folders
from byol_jax.input_pipeline.records import DataError

FORMATS = ('csv', 'folders', 'veri', 'veri_wild')
PARTS = ('query', 'gallery', 'train')
# Columns of CSV files.
COLUMNS = {'path', 'id', 'camera'}
TEST_SIZES = (3000, 5000, 10000)
# A value of `train` for your own lists: the images of the gallery.
GALLERY = 'gallery'
# '0002_c002_00030600_0.jpg' is vehicle 2 in camera 2.
VERI_NAME = re.compile(r'(\d+)_c(\d+)_')
VERI_FOLDERS = dict(query='image_query', gallery='image_test', train='image_train')


class Listed(NamedTuple):
  """The images of a list.

  paths: object [N] of str.
  identities: object [N] of str; '' if not known.
  cameras: object [N] of str; '' if not known.
  places: object [N] of str, where each image is listed, for messages.
  left_out: for a folder, a line on the files that are not images.
  """

  paths: np.ndarray
  identities: np.ndarray
  cameras: np.ndarray
  places: np.ndarray
  left_out: str = ''

  def chosen(self, rows: np.ndarray) -> 'Listed':
    """The images in these rows."""
    return Listed(*(field[rows] for field in self[:4]), self.left_out)


class Roles(NamedTuple):
  """Which of a test split's N images are queries, by their ids 0 ... N - 1.

  query: bool [N]; the others are the gallery.
  camera: int32 [N], -1 if it is not known.
  image: int32 [N], equal for an image that is in both lists.
  label: int32 [N], the number of the identity.
  names: object [N] of str, the paths of the images.
  cameras: object [N] of str, the names in the lists; '' if not known.
  """

  query: np.ndarray
  camera: np.ndarray
  image: np.ndarray
  label: np.ndarray
  names: np.ndarray
  cameras: np.ndarray


def read(part: str, *, format: str, root: str | None, query: str | None, gallery: str | None,
         train: str | None, test_size: int) -> Listed:
  """Reads one of the lists, without checking that the images exist.

  Args:
    part: 'query', 'gallery' or 'train'.
    format: one of FORMATS.
    root: folder of a benchmark; not used for your own lists.
    query: CSV file, or folder with a subfolder for each identity, according to the format.
    gallery: like `query`.
    train: like `query`, but identities can be missing; or 'gallery' for the gallery's images.
    test_size: number of identities in the VERI-Wild test set: 3000, 5000 or 10000.

  Raises:
    DataError: a file is missing, a list is empty or has an image twice, or a line does not follow
      the format; the message has the file, the line and its content.
  """
  if format in ('veri', 'veri_wild'):
    if not root:
      raise DataError(f'data.options.root is not given; set it to the folder of {format} images.')
    return _veri(part, root) if format == 'veri' else _veri_wild(part, root, test_size)
  if part == 'train' and train == GALLERY:
    part = 'gallery'
  source = dict(query=query, gallery=gallery, train=train)[part]
  if not source:
    hint = (" of training images or, for an evaluation, to 'gallery', whose images are then "
            'used without their identities') if part == 'train' else ''
    raise DataError(f'data.options.{part} is not given; set it to a '
                    f'{"CSV file" if format == "csv" else "folder"}{hint}.')
  return (_csv if format == 'csv' else _folders)(part, source)


def check_images(listed: Listed) -> None:
  """Raises DataError if images of a list are missing; counts them and names the first."""
  # Each folder is listed once, instead of looking for each file: object stores are slow.
  there = {}
  for folder in set(map(posixpath.dirname, listed.paths)):
    path = epath.Path(folder)
    there[folder] = {file.name for file in path.iterdir()} if path.is_dir() else set()
  missing = [row for row, path in enumerate(listed.paths)
             if posixpath.basename(path) not in there[posixpath.dirname(path)]]
  if missing:
    raise DataError(f'{listed.places[missing[0]]}: there is no image {listed.paths[missing[0]]}; '
                    f'{len(missing)} of the {len(listed.paths)} images of this list are missing.')


def location(path: str) -> str:
  """Normalises the spellings of a path: './a.jpg', 'b/../a.jpg' and '/here/a.jpg' are equal."""
  return path if '://' in path else os.path.abspath(path)


def _listed(source: str, rows: list[tuple[str, str, str, str]]) -> Listed:
  if not rows:
    raise DataError(f'{source} lists no images.')
  listed = Listed(*(np.array(column, object) for column in zip(*rows)))
  _, first = np.unique(list(map(location, listed.paths)), return_index=True)
  if len(first) < len(rows):
    row = int(np.setdiff1d(np.arange(len(rows)), first)[0])
    raise DataError(f'{listed.places[row]}: {listed.paths[row]} is listed a second time.')
  return listed


def _lines(path: str) -> list[str]:
  """The lines of a text file."""
  file = epath.Path(os.path.expanduser(path))
  if not file.exists():
    raise DataError(f'{path}: no such file (data.options).')
  kind = file_kinds.kind(path)
  if kind not in (file_kinds.TEXT, file_kinds.EMPTY, file_kinds.UNKNOWN):
    raise DataError(f'{path} is {kind}. The list of images must be a text file in UTF-8 '
                    '(data.options).')
  try:
    # Spreadsheet programs write a byte order mark first.
    return file.read_text().removeprefix('\ufeff').splitlines()
  except UnicodeDecodeError as error:
    raise DataError(f'{path} is not a text file in UTF-8 ({error}).') from error


def _csv(part: str, file: str) -> Listed:
  """Reads the columns `path`, `id` and `camera`, named in the first line, in any order.

  Paths are relative to the file's folder. `camera` can be missing; for training images, `id` too.
  """
  lines = _lines(file)
  (first, names), *records = _records(file, lines) or [(1, [])]
  wanted = {'path', 'id'} if part != 'train' else {'path'}
  if not wanted <= set(names) <= COLUMNS or len(set(names)) < len(names):
    raise DataError(f'{file}, line {first}: {"".join(lines[first - 1:first])!r}; the first line '
                    'must name the columns: path,id,camera, where camera is optional'
                    f'{", and so is id for training images" if part == "train" else ""}.')
  home = posixpath.dirname(os.path.expanduser(file))
  rows = []
  for number, values in records:
    if len(values) != len(names) or not all(values):
      raise DataError(f'{file}, line {number}: {lines[number - 1]!r}; each line must have '
                      f'{", ".join(names)}, none of them empty.')
    row = dict(zip(names, values))
    rows.append((posixpath.join(home, os.path.expanduser(row['path'])), row.get('id', ''),
                 row.get('camera', ''), f'{file}, line {number}'))
  return _listed(file, rows)


def _records(file: str, lines: list[str]) -> list[tuple[int, list[str]]]:
  """(line number, values) of the lines of a CSV file that are not empty."""
  reader = csv.reader(lines)
  try:
    return [(reader.line_num, [value.strip() for value in values]) for values in reader if values]
  except csv.Error as error:
    raise DataError(f'{file}, line {reader.line_num}: {error}.') from error


def _folders(part: str, folder: str) -> Listed:
  """Reads a folder with a subfolder for each identity; training images can be anywhere in it."""
  root = os.path.expanduser(folder).rstrip('/')
  listing = folders.read(folder)
  if part == 'train':
    folders.check_one_split(listing, labelled=False, options=('train',))
  rows = []
  for path in listing.paths:
    inside = path[len(root) + 1:].split('/')
    if len(inside) == 1 and part != 'train':
      raise DataError(f'{path} is not in the folder of an identity; the {part} folder must have '
                      'one subfolder per identity.')
    rows.append((path, inside[0] if len(inside) > 1 else '', '', folder))
  return _listed(folder, rows)._replace(left_out=listing.left_out())


def _veri(part: str, root: str) -> Listed:
  """Reads VeRi-776, in which the images' names contain identity and camera."""
  folder = posixpath.join(os.path.expanduser(root), VERI_FOLDERS[part])
  rows, listing = [], folders.read(folder)
  for path in listing.paths:
    found = VERI_NAME.match(posixpath.basename(path))
    if not found:
      raise DataError(f'{path}: files of VeRi-776 are named <id>_c<camera>_<...>.jpg, such as '
                      '0002_c002_00030600_0.jpg.')
    rows.append((path, str(int(found[1])), str(int(found[2])), folder))
  return _listed(folder, rows)._replace(left_out=listing.left_out())


def _veri_wild(part: str, root: str, test_size: int) -> Listed:
  """Reads VERI-Wild: lists of <vehicle>/<image>; cameras in vehicle_info.txt or in each line."""
  root = os.path.expanduser(root)
  names = dict(train=('train_list.txt', 'train_list_start0.txt'),
               gallery=(f'test_{test_size}.txt', f'test_{test_size}_id.txt'),
               query=(f'test_{test_size}_query.txt', f'test_{test_size}_id_query.txt'))[part]
  file = _list_file(root, names)
  cameras: Mapping[str, str] | None = None
  rows = []
  for number, line in enumerate(_lines(file), 1):
    fields = line.split()
    if not fields:
      continue
    place = f'{file}, line {number}: {line!r}'
    inside = fields[0].split('/')
    if len(inside) != 2 or not all(inside) or len(fields) not in (1, 3):
      raise DataError(f'{place}; it must be <vehicle>/<image>, optionally followed by the '
                      'vehicle and the camera.')
    name = fields[0].removesuffix('.jpg')
    if len(fields) == 1 and part != 'train':
      cameras = _vehicle_info(root) if cameras is None else cameras
      if name not in cameras:
        raise DataError(f'{place}; vehicle_info.txt has no camera for this image.')
    # Training images need no camera.
    camera = fields[2] if len(fields) == 3 else (cameras or {}).get(name, '')
    rows.append((posixpath.join(root, 'images', f'{name}.jpg'), inside[0], camera, place))
  return _listed(file, rows)


def _list_file(root: str, names: tuple[str, ...]) -> str:
  """The first of the files that exists, in `root` or its train_test_split."""
  paths = [posixpath.join(root, folder, name) for name in names
           for folder in ('train_test_split', '')]
  found = [path for path in paths if epath.Path(path).exists()]
  if not found:
    raise DataError(f'{root} has no {" or ".join(names)}, and neither has its '
                    'subfolder train_test_split (data.options.root).')
  return found[0]


def _vehicle_info(root: str) -> Mapping[str, str]:
  """'<vehicle>/<image>' -> camera, from lines like 00001/000001;1;... after a header line."""
  file = _list_file(root, ('vehicle_info.txt',))
  found = {}
  for number, line in enumerate(_lines(file), 1):
    fields = line.strip().split(';')
    if number == 1 or not line.strip():
      continue
    if len(fields) < 2 or fields[0].count('/') != 1 or not fields[1].strip().isdigit():
      raise DataError(f'{file}, line {number}: {line!r}; it must begin with '
                      '<vehicle>/<image>;<camera>; where the camera is a number.')
    found[fields[0].removesuffix('.jpg')] = fields[1].strip()
  return found
