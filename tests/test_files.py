"""Files are written whole, or not at all."""

import concurrent.futures
import os

import pytest

from byol_jax import files


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
