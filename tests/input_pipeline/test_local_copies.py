import os
import shutil
import types

import pytest

from byol_jax.errors import InputError
from byol_jax.input_pipeline import local_copies


@pytest.fixture
def files(tmp_path):
  """Two files of one name in different folders, and one more."""
  paths = [tmp_path / folder / name for folder, name in (('a', 'x'), ('b', 'x'), ('b', 'y'))]
  for number, path in enumerate(paths):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes([number]) * 100)
  return [str(path) for path in paths]


@pytest.fixture
def folder(tmp_path):
  return str(tmp_path / 'copies')


def read(paths):
  return [open(path, 'rb').read() for path in paths]


def test_copies_are_whole_and_apart(files, folder):
  copies = local_copies.copies(files, folder)
  assert list(copies) == files and len(set(copies.values())) == 3
  assert read(copies.values()) == read(files)
  assert all(copy.startswith(folder) for copy in copies.values())


def test_a_copy_is_made_once_and_again_when_the_file_changes(files, folder):
  copies = local_copies.copies(files, folder)
  before = [os.stat(copy).st_ino for copy in copies.values()]
  os.utime(files[1], (1, 1))
  with open(files[2], 'ab') as file:
    file.write(b'more')
  assert local_copies.copies(files, folder) == copies
  after = [os.stat(copy).st_ino for copy in copies.values()]
  assert [old == new for old, new in zip(before, after)] == [True, False, False]
  assert read(copies.values()) == read(files)


def test_what_a_kill_left_behind_goes_and_what_is_being_written_stays(files, folder):
  copy = local_copies.copies(files[:1], folder)[files[0]]
  left, written = (f'{copy}.{digit * 32}.partial' for digit in '12')
  for path in (left, written):
    open(path, 'wb').close()
  os.utime(left, (1, 1))
  assert read(local_copies.copies(files[:1], folder).values()) == read(files[:1])
  assert not os.path.exists(left) and os.path.exists(written)


def test_a_copy_of_another_length_is_none(files, folder):
  copy = local_copies.copies(files[:1], folder)[files[0]]
  os.truncate(copy, 50)
  assert read(local_copies.copies(files[:1], folder).values()) == read(files[:1])


def test_the_same_relative_path_elsewhere_is_another_file(files, folder, monkeypatch):
  found = []
  for parent in ('a', 'b'):
    monkeypatch.chdir(os.path.join(os.path.dirname(folder), parent))
    found += read(local_copies.copies(['x'], folder).values())
  assert found == read(files[:2])


def test_a_copy_that_fails_leaves_nothing(files, folder, monkeypatch):
  import tensorflow as tf

  def fail(_, target, **__):
    open(target, 'wb').close()
    raise tf.errors.UnavailableError(None, None, 'gone')

  monkeypatch.setattr(tf.io.gfile, 'copy', fail)
  with pytest.raises(InputError, match='gone'):
    local_copies.copies(files, folder)
  assert not [path for _, _, names in os.walk(folder) for path in names]


def test_copies_are_local(files):
  with pytest.raises(InputError, match='gs://bucket/c is in an object store'):
    local_copies.copies(files, 'gs://bucket/c')


def test_no_room_is_said_with_the_numbers(files, folder, monkeypatch):
  os.makedirs(folder)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=2 << 20))
  os.truncate(files[0], 3 << 20)
  with pytest.raises(InputError, match='2 MiB free; the 3 files that this host needs take 3 MiB'):
    local_copies.copies(files, folder)


@pytest.mark.parametrize('missing', ['file', 'folder'])
def test_what_cannot_be_read_or_written_is_named(files, folder, missing):
  if missing == 'file':
    os.remove(files[1])
  else:
    open(folder, 'w').close()
  with pytest.raises(InputError, match=f'data.options.cache_dir {folder}: .*{folder}|{files[1]}'):
    local_copies.copies(files, folder)
