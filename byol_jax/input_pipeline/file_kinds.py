"""Identifies files by their bytes and not by their names, for helpful error messages."""

import codecs
from collections.abc import Sequence
import os
import shlex
import stat
from typing import BinaryIO
import zipfile

from etils import epath

FOLDER = 'a folder'
EMPTY = 'an empty file'
LFS = 'a Git LFS pointer; `git lfs pull` fetches the file that it stands for'
TEXT = 'a text file'
NPY = 'a NumPy array (.npy)'
NPZ = 'a NumPy archive (.npz)'
SAFETENSORS = 'a safetensors file'
TORCH = 'a file of torch.save'
TORCHSCRIPT = 'a TorchScript archive'
PICKLE = 'a Python pickle'
UNKNOWN = 'a file of an unknown kind'

HEAD = 4096
# No safetensors file has a longer header than this (the library's own limit).
LONGEST_HEADER = 100_000_000
# Files of torch.save before PyTorch 1.6 start with a pickle of this number.
TORCH_MAGIC = 0x1950a86a20f9469cfc6c.to_bytes(10, 'little')

STARTS = (
    (b'\x93NUMPY', NPY), (b'\xff\xd8\xff', 'a JPEG image'), (b'\x89PNG\r\n', 'a PNG image'),
    (b'GIF8', 'a GIF image'), (b'BM', 'a BMP image'), (b'II*\0', 'a TIFF image'),
    (b'MM\0*', 'a TIFF image'), (b'\x89HDF\r\n', 'an HDF5 file, as from Keras or MATLAB 7.3'),
    (b'MATLAB 5.0 MAT-file', 'a MATLAB file'), (b'PAR1', 'a Parquet file'),
    (b'ARROW1', 'an Arrow file'), (b'\x1f\x8b', 'a gzip archive; unpack it first'),
    (b'BZh', 'a bzip2 archive; unpack it first'), (b'\xfd7zXZ\0', 'an xz archive; unpack it first'),
    (b'(\xb5/\xfd', 'a zstd archive; unpack it first'),
    (b'7z\xbc\xaf\x27\x1c', 'a 7z archive; unpack it first'),
    (b'Rar!', 'a RAR archive; unpack it first'), (b'%PDF', 'a PDF file'),
    (b'8BPS', 'a Photoshop file'), (b'\0\0\0\x0cjP  ', 'a JPEG 2000 image'),
    (b'\xff\x4f\xff\x51', 'a JPEG 2000 image'), (b'\xff\x0a', 'a JPEG XL image'),
    (b'\0\0\0\x0cJXL ', 'a JPEG XL image'), (b'\x1aE\xdf\xa3', 'a video'),
    (b'SQLite format 3\0', 'an SQLite database'), (b'\x7fELF', 'a program'),
    (b'\xff\xfe', 'a text file in UTF-16'), (b'\xfe\xff', 'a text file in UTF-16'))
TEXT_STARTS = (
    ('version https://git-lfs', LFS), ('%pdf', 'a PDF file'),
    *((start, 'an HTML page, as a server sends it instead of a file')
      for start in ('<!doctype html', '<html', '<head', '<body')),
    ('<', 'an XML file'), ('model_checkpoint_path:', 'the list of TensorFlow checkpoints'))
# The end of a table, which is the format of the .index file of a TensorFlow checkpoint.
TABLE_END = 0xdb4775248b80fb57.to_bytes(8, 'little')


def kind(path: str | os.PathLike) -> str:
  """Describes a path in words that can follow 'is': 'a JPEG image', 'a folder'.

  Args:
    path: an existing file or folder, local or in an object store.

  Raises:
    OSError: the path cannot be read.
  """
  file = epath.Path(os.path.expanduser(os.fspath(path)))
  if file.is_dir():
    return FOLDER
  # Opening a pipe would block until something writes to it.
  if '://' not in str(file) and not stat.S_ISREG(os.stat(file).st_mode):
    return 'a pipe or a device, not a file'
  with file.open('rb') as opened:
    return kind_of(opened)


def kind_of(opened: BinaryIO) -> str:
  """Like `kind`, for an open file."""
  head = opened.read(HEAD)
  size = opened.seek(0, os.SEEK_END)
  if head.startswith((b'PK\x03\x04', b'PK\x05\x06')):
    return _zip(opened)
  opened.seek(max(size - 8, 0))
  return _of_bytes(head, size, opened.read(8))


def no_run(path: str | os.PathLike) -> str:
  """A sentence for a file that is given instead of a run's workdir; '' if it is no file."""
  file = epath.Path(path)
  if file.is_dir() or not file.exists():
    return ''
  found = kind(file)
  command = {TORCH: 'from_torch', TORCHSCRIPT: 'from_torch', SAFETENSORS: 'from_torch',
             PICKLE: 'from_deepmind'}.get(found)
  if command is None:
    return (f'{file} is {found}, not the folder of a run; give the --workdir of a pretraining. '
            'To use other weights, convert them first: python -m experiments.convert reads '
            'safetensors files, files of torch.save and pickles from DeepMind.')
  new = file.parent / f'{file.name.partition(".")[0]}_run'
  return (f'{file} is {found}, not the folder of a run. Convert it, then give the new folder: '
          f'python -m experiments.convert {command} --input={shlex.quote(str(file))} '
          f'--workdir={shlex.quote(str(new))}')


def _of_bytes(head: bytes, size: int, end: bytes) -> str:
  # Text is checked first, because a list of images named BMW begins like a bitmap.
  text = _text(head, size)
  if text is not None:
    start = text.removeprefix('\ufeff').lstrip()[:100].lower()
    return next((words for first, words in TEXT_STARTS if start.startswith(first)),
                TEXT if head else EMPTY)
  header = int.from_bytes(head[:8], 'little')
  pickled = head[:1] == b'\x80' and 2 <= head[1] <= 5
  tests = (
      *((head.startswith(start), words) for start, words in STARTS),
      (head[:4] == b'RIFF' and head[8:12] == b'WEBP', 'a WebP image'),
      # This also matches a file that is cut off within the header.
      (head[8:9] == b'{' and header <= LONGEST_HEADER, SAFETENSORS),
      (pickled and TORCH_MAGIC in head[:32], TORCH), (pickled, PICKLE),
      (head[257:262] == b'ustar', 'a tar archive; unpack it first'),
      (end == TABLE_END, 'the index of a TensorFlow checkpoint'),
      # The version of the format, followed by the program that wrote the file.
      (head[:1] == b'\x08' and head[2:3] in (b'\x12', b':'), 'an ONNX model'))
  return next((words for found, words in tests if found), UNKNOWN)


def _text(head: bytes, size: int) -> str | None:
  """The bytes as text; None if they are not text."""
  try:
    # The head of a longer file can end in the middle of a character.
    text = codecs.getincrementaldecoder('utf-8')().decode(head, final=size <= HEAD)
  except UnicodeDecodeError:
    return None
  return None if any(ord(c) < 32 and c not in '\t\n\r\f' for c in text) else text


def _zip(opened) -> str:
  try:
    names = zipfile.ZipFile(opened).namelist()
  except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
    return 'a zip archive whose end is missing or damaged; fetch it again'
  return _of_members(names)


def _of_members(names: Sequence[str]) -> str:
  last = [name.rpartition('/')[2] for name in names]
  if names and all(name.endswith('.npy') for name in names):
    return NPZ
  if 'data.pkl' in last:
    return TORCHSCRIPT if 'constants.pkl' in last else TORCH
  if any(name.lower().endswith(('.jpg', '.jpeg', '.png')) for name in last):
    return 'a zip archive of images; unpack it first'
  return f'a zip archive with {names[0]!a} in it' if names else 'an empty zip archive'
