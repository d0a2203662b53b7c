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
    ('', '--workdir is empty: is a shell variable not set? Give a path, . for this'),
    ('s3://bucket/x', '--workdir is s3://bucket/x; of object stores and URLs, only gs://BUCKET/'),
    ('https://host/x', '--workdir is https://host/x; of object stores and URLs, only'),
    ('file:///x', '--workdir is file:///x; of object stores and URLs, only'),
    ('S3:/x', '--workdir is S3:/x; of object stores and URLs, only'),
    ('gs:/bucket/x', '--workdir is gs:/bucket/x; an object store is gs://BUCKET/..., with two'),
    ('gs:bucket/x', '--workdir is gs:bucket/x; an object store is gs://BUCKET/..., with two'),
    ('${RUN}/x', '--workdir is ${RUN}/x, the name of a shell variable instead of its value'),
    ('gs://', '--workdir is gs://; an object store is gs://BUCKET/...'),
    ('gs:///x', '--workdir is gs:///x; an object store is gs://BUCKET/...'),
    ('runs\n', r"--workdir is 'runs\n', with leading or trailing white space"),
    (' runs', "--workdir is ' runs', with leading or trailing white space"),
    ('C:\\runs', '--workdir is C:\\runs, a Windows path; under WSL the drive C: is /mnt/c.'),
    ('c:/runs', '--workdir is c:/runs, a Windows path'),
    ('\\\\host\\runs', '--workdir is \\\\host\\runs, a Windows path'),
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


def test_a_writer_that_wants_a_path_gets_one_of_its_own(tmp_path):
  with files.atomic_path(tmp_path / 'a') as one, files.atomic_path(tmp_path / 'a') as other:
    one.write_text('one')
    other.write_text('other')
    assert one != other and not (tmp_path / 'a').exists()
  assert (tmp_path / 'a').read_text() == 'one' and os.listdir(tmp_path) == ['a']


def test_what_killed_writers_left_goes_with_the_next_write_in_the_folder(tmp_path):
  left, written = (tmp_path / f'a.{digit * 32}.partial' for digit in '12')
  own = tmp_path / 'mine.partial'
  for path in (left, written, own):
    path.write_text('half')
  for path in (left, own):
    os.utime(path, (1, 1))
  with files.atomic_write(tmp_path / 'b') as file:
    file.write('whole')
  assert sorted(os.listdir(tmp_path)) == sorted(['b', written.name, own.name])


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
  with pytest.raises(FileNotFoundError), files.atomic_write(tmp_path / 'none' / 'a') as file:
    file.write('')


def test_what_can_be_written_is_known_before_and_stays_as_it_was(tmp_path):
  (tmp_path / 'a').write_text('old')
  files.check_writable(tmp_path / 'a')
  files.check_writable(tmp_path / 'b')
  assert os.listdir(tmp_path) == ['a'] and (tmp_path / 'a').read_text() == 'old'
  for path, error in ((tmp_path, IsADirectoryError), (tmp_path / 'no' / 'a', FileNotFoundError),
                      (tmp_path / 'a' / 'b', NotADirectoryError)):
    with pytest.raises(error):
      files.check_writable(path)
