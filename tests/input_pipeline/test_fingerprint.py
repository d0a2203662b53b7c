"""Records of files: what counts as a change, on real files."""

import os

from etils import epath
import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.input_pipeline import fingerprint
from byol_jax.input_pipeline.records import Files

SECOND = 10 ** 9


def text(name):
  return f'the content of {name}'


def write_all(root, names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text(name))
    os.utime(root / name, ns=(SECOND, SECOND))


def files(root, **fields):
  paths = sorted(path for path in root.rglob('*') if not path.is_dir())
  return Files([str(path.relative_to(root)) for path in paths], list(map(str, paths)), **fields)


def record(root, seed=0, **fields):
  found = files(root, **fields)
  return fingerprint.with_checksums(fingerprint.observe(found), seed, found.packed)


def touch(path, seconds=2):
  os.utime(path, ns=(seconds * SECOND, seconds * SECOND))


def overwrite(path, same_time=False):
  """Other content of the same size."""
  path.write_text(path.read_text()[::-1])
  touch(path, 1 if same_time else 2)


@pytest.fixture
def few(tmp_path):
  """Files of which all are drawn."""
  root = tmp_path / 'few'
  write_all(root, ('a/1', 'a/2', 'b/1'))
  return root


@pytest.fixture
def many(tmp_path, monkeypatch):
  """Six files of which the first two by their drawn order have checksums."""
  monkeypatch.setattr(fingerprint, 'DRAWN', 2)
  root = tmp_path / 'many'
  write_all(root, (f'a/{number}' for number in range(6)))
  return root


def changes(added=(), gone=(), changed=(), retimed=(), reordered=False):
  return fingerprint.Changes(*map(list, (added, gone, changed, retimed)), reordered)


def after(root, change):
  before = record(root)
  change(root)
  return fingerprint.compare(before, fingerprint.observe(files(root)))


@pytest.mark.parametrize('change, expected', [
    (lambda root: None, changes()),
    (lambda root: write_all(root, ['c/3']), changes(added=['c/3'])),
    (lambda root: (root / 'a/2').unlink(), changes(gone=['a/2'])),
    (lambda root: (root / 'a/2').rename(root / 'a/3'), changes(added=['a/3'], gone=['a/2'])),
    (lambda root: (root / 'a').rename(root / 'c'),
     changes(added=['c/1', 'c/2'], gone=['a/1', 'a/2'])),
    (lambda root: (root / 'b/1').write_text('half'), changes(changed=['b/1'])),
    (lambda root: overwrite(root / 'a/1'), changes(changed=['a/1'])),
    # Its content is known to be the same.
    (lambda root: touch(root / 'a/1'), changes()),
    (lambda root: ((root / 'a/1').unlink(), (root / 'a/1').symlink_to(root / 'none')),
     changes(changed=['a/1'])),
], ids=['nothing', 'added', 'gone', 'renamed', 'class renamed', 'cut', 'overwritten', 'touched',
        'dead link'])
def test_what_is_a_change_under_the_same_path(few, change, expected):
  assert after(few, change) == expected


def test_files_that_are_swapped_have_changed(few):
  def swap(root):
    (root / 'a/1').rename(root / 'x')
    (root / 'a/2').rename(root / 'a/1')
    (root / 'x').rename(root / 'a/2')
    touch(root / 'a/1'), touch(root / 'a/2')
  assert after(few, swap) == changes(changed=['a/1', 'a/2'])


def test_another_time_of_a_file_that_is_not_drawn_is_a_change(many):
  drawn = record(many).checksums
  others = [name for name in files(many).names if name not in drawn]
  assert len(drawn) == 2
  found = after(many, lambda root: [touch(root / name) for name in files(root).names])
  assert found == changes(changed=others, retimed=others)
  assert str(found) == (
      f'4 changed ({", ".join(others[:3])}, ...), 4 of which differ only in their '
      'modification times, as after touch or a copy that does not keep them')


def test_under_another_path_names_sizes_and_drawn_contents_decide(many, tmp_path):
  before = record(many)
  moved = many.rename(tmp_path / 'moved')
  compare = lambda: fingerprint.compare(before, fingerprint.observe(files(moved)))
  for name in files(moved).names:
    touch(moved / name, 9)
  assert compare() == changes()
  drawn = sorted(before.checksums)
  other = next(name for name in before.names if name not in drawn)
  overwrite(moved / other)
  assert compare() == changes()
  overwrite(moved / drawn[0])
  assert compare() == changes(changed=drawn[:1])
  (moved / other).write_text('cut')
  assert compare() == changes(changed=sorted([drawn[0], other]))


def test_a_link_to_the_folder_is_the_same_path(many, tmp_path, monkeypatch):
  before = record(many)
  (tmp_path / 'link').symlink_to(many)
  linked = fingerprint.observe(files(tmp_path / 'link'))
  assert linked.paths == before.paths
  monkeypatch.chdir(many)
  names = list(before.names)
  assert fingerprint.observe(Files(names, names)).paths == before.paths


def test_the_seed_draws_the_files_whatever_their_order(many):
  one, other = (set(record(many, seed).checksums) for seed in (0, 1))
  assert one != other
  found = files(many)
  backwards = fingerprint.observe(Files(found.names[::-1], found.paths[::-1]))
  assert set(fingerprint.with_checksums(backwards, 0, False).checksums) == one


def test_of_packed_files_names_and_sizes_count(few):
  before = record(few, packed=True)
  assert before.checksums == {} and set(before.times) == {fingerprint.UNKNOWN}
  overwrite(few / 'a/1')
  (few / 'a/2').write_text('short')
  assert fingerprint.compare(before, fingerprint.observe(files(few, packed=True))) == changes(
      changed=['a/2'])


def test_another_order_of_a_list_is_a_change(few):
  before = record(few, order='one')
  found = fingerprint.compare(before, fingerprint.observe(files(few, order='two')))
  assert found == changes(reordered=True)
  assert str(found) == 'a different order or different labels in the list'


def test_of_object_stores_names_and_sizes_count(monkeypatch):
  lengths = {f'gs://b/{number}': number for number in range(9)}

  class Remote:
    def __init__(self, path):
      self.path = path

    def stat(self):
      return type('Stat', (), dict(length=lengths[self.path]))

  monkeypatch.setattr(epath, 'Path', Remote)
  there = lambda: fingerprint.observe(Files([path[7:] for path in lengths], list(lengths)))
  before = fingerprint.with_checksums(there(), 0, False)
  assert before.sizes.tolist() == list(range(9)) and before.checksums == {}
  assert before.paths == list(lengths)
  lengths['gs://b/3'] = 30
  assert fingerprint.compare(before, there()) == changes(changed=['3'])
  # Each size is a request.
  monkeypatch.setattr(fingerprint, 'MOST_ASKED', 4)
  assert np.sum(there().sizes == fingerprint.UNKNOWN) == 5


def test_long_files_are_read_in_blocks_over_their_whole_length(tmp_path, monkeypatch):
  monkeypatch.setattr(fingerprint, 'MOST_BYTES', 40)
  monkeypatch.setattr(fingerprint, 'BLOCK', 10)
  path = tmp_path / 'long'
  path.write_bytes(bytes(range(100)))
  checksum = lambda: record(tmp_path).checksums['long']
  whole = checksum()
  for place, counts in ((0, True), (99, True), (15, False)):
    content = bytearray(range(100))
    content[place] = 255
    path.write_bytes(content)
    assert (checksum() != whole) == counts


def test_a_record_comes_back_as_it_was_written(few, tmp_path):
  write_all(few, ['new\nline', 'sp ace/ä'])
  before = record(few, order='a digest')
  fingerprint.write(epath.Path(tmp_path), before)
  found = fingerprint.read(epath.Path(tmp_path))
  for name in ('names', 'paths', 'order', 'checksums'):
    assert getattr(found, name) == getattr(before, name)
  np.testing.assert_array_equal(found.sizes, before.sizes)
  np.testing.assert_array_equal(found.times, before.times)
  assert str(changes(added=['new\nline'])) == "1 added ('new\\nline')"


def test_no_record_and_a_damaged_one(few, tmp_path):
  workdir = epath.Path(tmp_path)
  assert fingerprint.read(workdir) is None
  fingerprint.write(workdir, record(few))
  path = tmp_path / fingerprint.RECORD
  whole = path.read_bytes()
  for damaged in (whole[:len(whole) // 2], b'', whole[:100] + b'x' * 40 + whole[140:]):
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=f'^{path}, the record of the data files .* is damaged .*'
                                         'data.changed_files=accept'):
      fingerprint.read(workdir)


def test_files_that_an_option_names_are_called_by_their_paths_too(few):
  now = lambda *names: fingerprint.observe(Files(names, [str(few / 'a/1'), str(few / 'b/1')]))
  before = fingerprint.with_checksums(now('images', 'b/1'), 0, False)
  overwrite(few / 'a/1')
  overwrite(few / 'b/1')
  changed = [f'images: {few}/a/1', 'b/1']
  assert fingerprint.compare(before, now('images', 'b/1')) == changes(changed=changed[::-1])
  assert fingerprint.compare(before, now('labels', 'b/1')) == changes(
      added=[f'labels: {few}/a/1'], gone=changed[:1], changed=changed[1:])
