"""A store of image files; their batches: test_tf_pipeline.py."""

import numpy as np
from PIL import Image
import pytest

from byol_jax.input_pipeline import listed_files
from byol_jax.input_pipeline.listed_files import ImageFiles
from byol_jax.input_pipeline.records import Selected, Shards


@pytest.fixture
def paths(tmp_path):
  """Seven images of one colour each: of image i, 30 i."""
  found = [str(tmp_path / f'{i}.png') for i in range(7)]
  for i, path in enumerate(found):
    Image.new('RGB', (3, 2), (30 * i, 0, 9)).save(path)
  return np.array(found, object)


def selected(store, labels=None):
  return Selected('a split', store, labels, 9, False, (), None, None, '', '')


def test_rows_of_two_stores_one_after_the_other(paths):
  store = ImageFiles(paths, True).take(np.array([6, 0])).followed_by(
      ImageFiles(paths, True).take(np.array([3])))
  assert store.count == 3 and store.paths.tolist() == paths[[6, 0, 3]].tolist()
  stream = store.open(selected(store, np.array([1, 2, 8], np.int32)), Shards(2, (1,)))
  assert [stream.source(i) for i in range(3)] == paths[[6, 0, 3]].tolist()
  assert stream.shard_sizes.tolist() == [2, 1]
  (record,) = stream.records(1, None)
  assert record['sample_id'] == 1 and stream.read(record)['labels'] == 2
  assert stream.known().labels.tolist() == [1, 2, 8] and stream.labelled


@pytest.mark.parametrize('owned', [(0, 1, 2), (2,)])
def test_in_memory_a_host_has_the_images_of_its_ids(paths, owned):
  store, shards = ImageFiles(paths, True), Shards(3, owned)
  split = store.in_memory(selected(store), shards, workers=1)
  ids = [i for i in range(7) if i % 3 in owned]
  assert split.sample_id.tolist() == ids and split.num_examples == 7
  assert split.images.shape[1:] == (2, 3, 3)
  assert split.images[:, 0, 0, 0].tolist() == [30 * i for i in ids]
  # The classes of the set are known, those of these images are not.
  assert split.labels is None and not split.labelled and split.num_classes == 9


def test_the_identity_changes_with_paths_their_order_labels_and_turns(paths):
  labels, turned = np.arange(7, dtype=np.int32), paths[::-1]
  found = [listed_files.stream(*arguments, Shards(), upright=upright).identity
           for *arguments, upright in ((paths, None, True), (turned, None, True),
                                       (paths, labels, True), (paths, None, False))]
  assert len({*found}) == 4
  again = listed_files.stream(paths, None, Shards(4, (1, 2)), upright=True)
  assert again.identity == found[0] and not again.labelled
