"""Files are written whole, or not at all."""

import concurrent.futures
import os
import re

import pytest

from byol_jax import files
from byol_jax.errors import InputError


def test_the_content_appears_under_its_name_and_nothing_beside_it(tmp_path):
  with files.atomic_write(tmp_path / 'a.txt') as file:
    file.write('größer\n')
    assert not (tmp_path / 'a.txt').exists()
  assert (tmp_path / 'a.txt').read_bytes() == 'größer\n'.encode()
  assert os.listdir(tmp_path) == ['a.txt']


def test_bytes_replace_what_was_there(tmp_path):
  (tmp_path / 'a').write_bytes(b'old, and longer')
  with files.atomic_write(tmp_path / 'a', 'wb') as file:
    file.write(b'new')
  assert (tmp_path / 'a').read_bytes() == b'new'


def test_an_error_leaves_what_was_there_and_no_part(tmp_path):
  (tmp_path / 'a').write_text('old')
  with pytest.raises(ZeroDivisionError), files.atomic_write(tmp_path / 'a') as file:
    file.write('half')
    1 / 0  # noqa: B018
  assert (tmp_path / 'a').read_text() == 'old'
  assert os.listdir(tmp_path) == ['a']


def test_many_writers_of_one_file_leave_one_whole_content(tmp_path):
  def write(number):
    with files.atomic_write(tmp_path / 'a') as file:
      file.write(f'{number}\n' * 1000)

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(write, range(200)))
  lines = (tmp_path / 'a').read_text().splitlines()
  assert len(lines) == 1000 and len(set(lines)) == 1
  assert os.listdir(tmp_path) == ['a']


@pytest.mark.parametrize('path, message', [
    ('', '--workdir is empty, as a shell variable is that is not set; give a path, . for this'),
    ('s3://bucket/x', '--workdir is s3://bucket/x; of object stores and URLs only gs://BUCKET/'),
    ('https://host/x', '--workdir is https://host/x; of object stores and URLs only'),
    ('file:///x', '--workdir is file:///x; of object stores and URLs only'),
    ('S3:/x', '--workdir is S3:/x; of object stores and URLs only'),
    ('gs:/bucket/x', '--workdir is gs:/bucket/x; an object store is gs://BUCKET/..., with two'),
    ('gs://', '--workdir is gs://; an object store is gs://BUCKET/...'),
    ('gs:///x', '--workdir is gs:///x; an object store is gs://BUCKET/...'),
    ('runs\n', r"--workdir is 'runs\n', with white space at an end"),
    (' runs', "--workdir is ' runs', with white space at an end"),
    ('C:\\runs', '--workdir is C:\\runs, a path of Windows; under WSL the drive C: is /mnt/c.'),
    ('c:/runs', '--workdir is c:/runs, a path of Windows'),
    ('\\\\host\\runs', '--workdir is \\\\host\\runs, a path of Windows'),
    ('~no.such.user/x', '--workdir is ~no.such.user/x, and there is no user no.such.user; give')])
def test_paths_of_no_possible_form_are_refused(path, message):
  with pytest.raises(InputError, match=re.escape(message)):
    files.checked_path(path, '--workdir')


@pytest.mark.parametrize('path, expanded', [
    ('runs/a b', 'runs/a b'), ('gs://bucket/x', 'gs://bucket/x'), ('~/x', '/home/me/x'),
    ('a:b/c', 'a:b/c'), ('images-train[:90%]', 'images-train[:90%]')])
def test_other_paths_are_taken_with_the_home_folder_filled_in(path, expanded, monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  assert files.checked_path(path) == expanded
