import sys

import numpy as np
import pytest

from byol_jax import plugins
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import DataError, Shards, Split, one_host

NAME = 'own_data.four'
GOOD = Split(sample_id=np.arange(4, dtype=np.int32), images=np.zeros((4, 2, 3, 3), np.uint8),
             labels=np.array([0, 2, 1, 2], np.int32), num_examples=4, num_classes=3)


@pytest.fixture
def own_data(tmp_path, monkeypatch):
  """A data set outside of byol_jax, whose `load` returns `result` and notes its arguments."""
  package = tmp_path / 'own_data'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'four.py').write_text(
      'def load(split, *, shards, **options):\n'
      '  calls.append((split, shards, options))\n'
      '  return result\n')
  monkeypatch.syspath_prepend(tmp_path)
  module = plugins.load('datasets', NAME)
  module.calls, module.result = [], GOOD
  yield module
  for name in (NAME, 'own_data'):
    del sys.modules[name]


def read(split='train', **options):
  return splits.read(NAME, split, purpose='a test', **(dict(options={}) | options))


def test_read_passes_split_shards_and_options_on(own_data):
  assert read('validation', shards=Shards(8, (2, 3)), options=dict(size=5)) is GOOD
  assert own_data.calls == [('validation', Shards(8, (2, 3)), dict(size=5))]


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_every_access_is_logged_once(own_data, split):
  records = []
  read(split, access_log=records.append)
  assert records == [dict(dataset=NAME, split=split, purpose='a test', examples=4)]


def test_a_failed_read_is_not_logged(own_data):
  records = []
  own_data.result = GOOD._replace(images=GOOD.images[:0])
  with pytest.raises(DataError):
    read(access_log=records.append)
  assert records == []


@pytest.mark.parametrize('split', ['training', '', 'Test'])
def test_an_unknown_split_lists_the_splits(own_data, split):
  with pytest.raises(DataError, match=f"Unknown split '{split}'; the splits are train, "
                                      'validation, test'):
    read(split)
  assert own_data.calls == []


@pytest.mark.parametrize('changes, message', [
    (dict(images=GOOD.images.astype(np.float32)),
     r'images must be uint8 \[N, H, W, 3\], not float32 \[4, 2, 3, 3\]'),
    (dict(images=GOOD.images[0]), r'images must be uint8 .*, not uint8 \[2, 3, 3\]'),
    (dict(images=GOOD.images[..., :2]), r'not uint8 \[4, 2, 3, 2\]'),
    (dict(images=GOOD.images[:0]), 'has no images'),
    (dict(labels=GOOD.labels[:3]), r'4 images but labels of shape \[3\]; give one integer'),
    (dict(labels=GOOD.labels[:, None]), r'labels of shape \[4, 1\]'),
    (dict(labels=GOOD.labels - 1), r'labels run from -1 to 1, outside 0 \.\.\. 2'),
    (dict(num_classes=2), r'labels run from 0 to 2, outside 0 \.\.\. 1'),
])
def test_wrong_arrays_name_data_set_and_split(own_data, changes, message):
  own_data.result = GOOD._replace(**changes)
  with pytest.raises(DataError, match=f"^Data set '{NAME}', split 'test'.*{message}"):
    read('test')


def test_ids_must_match_the_images(own_data):
  own_data.result = GOOD._replace(sample_id=GOOD.sample_id[:3])
  with pytest.raises(AssertionError):
    read()


def test_images_of_several_classes_have_a_row_of_labels(own_data):
  rows = np.array([[1, 0, -1], [0, 0, 0], [1, 1, 1], [-1, -1, 0]], np.int32)
  own_data.result = GOOD._replace(labels=rows)
  assert read().multi_label and not GOOD.multi_label
  own_data.result = GOOD._replace(labels=rows + 1)
  with pytest.raises(DataError, match=r'several classes run from 0 to 2; they can be 1 \(present'):
    read()
  own_data.result = GOOD._replace(labels=rows[:, :2])
  with pytest.raises(DataError, match=r'labels of shape \[4, 2\]; give .* or 3 for several'):
    read()


def test_unlabelled_data_passes(own_data):
  own_data.result = GOOD._replace(labels=None, num_classes=0)
  assert read().labels is None


@pytest.mark.parametrize('shards, expected', [
    (Shards(), range(10)), (Shards(4, (1,)), [1, 5, 9]), (Shards(4, (0, 3)), [0, 3, 4, 7, 8]),
    (Shards(12, (11,)), [])])
def test_shards_own_the_ids_of_their_residues(shards, expected):
  ids = shards.sample_ids(10)
  assert ids.dtype == np.int32 and ids.tolist() == list(expected)


@pytest.mark.parametrize('count', [1, 2, 4, 8])
def test_hosts_share_the_virtual_shards_in_order(count):
  hosts = [one_host(i, count, 8) for i in range(count)]
  assert all(host.total == 8 and len(host.owned) == 8 // count for host in hosts)
  assert [shard for host in hosts for shard in host.owned] == list(range(8))
  assert sorted(np.concatenate([host.sample_ids(21) for host in hosts])) == list(range(21))


def test_hosts_that_do_not_divide_the_virtual_shards_are_an_error():
  with pytest.raises(DataError, match='data.virtual_shards is 8, which 3 hosts cannot share '
                                      'equally; set it to a multiple of 3'):
    one_host(0, 3, 8)
