"""Which images a split has, of data sets outside of byol_jax whose listing is made up here."""

import math
import sys

import numpy as np
import pytest

from byol_jax import plugins
from byol_jax.errors import InputError
from byol_jax.input_pipeline import splits, subsets
from byol_jax.input_pipeline.memory import Arrays
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import SPLITS, DataError, Files, Records, Shards

NAME = 'own_data.listed'
CLASSES = 3
COUNTS = dict(train=40, validation=11, test=7)


def listing(part, **changes):
  """Image i of a part is one pixel that holds i and the number of the part."""
  count = COUNTS[part]
  pixels = np.stack([np.arange(count), np.full(count, list(COUNTS).index(part)),
                     np.zeros(count)], -1).astype(np.uint8)[:, None, None]
  return Records(part, Arrays(pixels.__getitem__, count),
                 np.arange(count, dtype=np.int32) * 5 % CLASSES, CLASSES)._replace(**changes)


@pytest.fixture
def own_data(tmp_path, monkeypatch):
  """A module whose parts are those of `listed`; notes the arguments of each call."""
  package = tmp_path / 'own_data'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'listed.py').write_text(
      'def records(part, *, size=0):\n'
      '  calls.append((part, size))\n'
      '  return listed.get(part)\n')
  monkeypatch.syspath_prepend(tmp_path)
  module = plugins.load('datasets', NAME)
  module.calls, module.RANGES = [], dict(splits.SHARE, **splits.SUBSET)
  module.listed = dict(train=listing('train'), test=listing('test'))
  yield module
  for name in (NAME, 'own_data'):
    del sys.modules[name]


def read(split, shards=Shards(), *, access_log=None, **options):
  return splits.read(NAME, split, purpose='a test', shards=shards, access_log=access_log,
                     options=options)


def rows(split, **options):
  """(row, part) of each image of a split."""
  return [tuple(pixel[:2]) for pixel in read(split, **options).images[:, 0, 0].tolist()]


def in_part(numbers, part='train'):
  return [(int(number), list(COUNTS).index(part)) for number in numbers]


@pytest.mark.parametrize('share', [0., .01, .3, .96])
def test_a_share_is_held_out_by_a_hash_of_the_places(own_data, share):
  order, count = permutation(40, 0), math.ceil(share * 40)
  assert rows('train', validation_share=share) == in_part(sorted(order[count:]))
  assert rows('train+validation', validation_share=share) == in_part(range(40))
  if count:
    assert rows('validation', validation_share=share) == in_part(sorted(order[:count]))


@pytest.mark.parametrize('held_out, images, share, expected', [
    ('last', 6, .5, range(34, 40)), ('last', 99, .1, range(36, 40)), ('first', 6, .5, range(6)),
    ('first', 99, .26, range(11))])
def test_the_first_or_the_last_images_are_held_out(own_data, held_out, images, share, expected):
  own_data.RANGES = splits.HELD_OUT
  options = dict(held_out=held_out, held_out_images=images, held_out_share=share)
  assert rows('validation', **options) == in_part(expected)
  assert rows('train', **options) == in_part(sorted({*range(40)} - {*expected}))


def test_as_many_of_each_class_are_held_out(own_data):
  own_data.RANGES = splits.HELD_OUT
  options = dict(held_out='per_class', held_out_per_class=4, held_out_images=0, held_out_share=0.)
  held = read('validation', **options)
  assert np.bincount(held.labels).tolist() == [4] * CLASSES
  expected = subsets.of_each_class(listing('train').labels, CLASSES, 4)
  assert held.images[:, 0, 0, 0].tolist() == expected.tolist()


def test_a_part_for_validation_of_its_own_leaves_the_training_images_whole(own_data):
  own_data.listed['validation'] = listing('validation')
  options = dict(validation_share=.3)
  own = in_part(range(11), 'validation')
  assert rows('train', **options) == in_part(range(40)) and rows('validation', **options) == own
  assert rows('train+validation', **options) == in_part(range(40)) + own
  both = read('train+validation', **options)
  assert both.labels.tolist() == [*listing('train').labels, *listing('validation').labels]


def test_validation_without_the_images_that_are_trained_on(own_data):
  own_data.listed.update(
      train=listing('train', image_ids=lambda: np.array([f'image {i}' for i in range(40)])),
      validation=listing('validation', image_ids=lambda: np.array(
          [f'image {7 * i}' for i in range(11)])))
  # Images 0, 7, ... 35 are training images.
  own = in_part(range(6, 11), 'validation')
  assert rows('validation', validation_share=0.) == own
  assert rows('train+validation', validation_share=0.) == in_part(range(40)) + own


def test_the_test_part_is_read_alone_and_whole(own_data):
  assert rows('test', validation_share=.5) == in_part(range(7), 'test')
  assert own_data.calls == [('test', 0)]


def test_a_set_without_a_test_part_says_so(own_data):
  del own_data.listed['test']
  with pytest.raises(DataError, match=f"^Data set '{NAME}', split 'test': there is no test part"):
    read('test', validation_share=.5)


@pytest.mark.parametrize('split', SPLITS)
def test_hosts_share_a_split(own_data, split):
  own_data.listed['validation'] = listing('validation')
  whole = read(split, validation_share=0.)
  for host in (Shards(4, (0, 1)), Shards(4, (2, 3)), Shards(64, (60,))):
    part, ids = read(split, host, validation_share=0.), host.sample_ids(whole.num_examples)
    np.testing.assert_array_equal(part.sample_id, ids)
    np.testing.assert_array_equal(part.images, whole.images[ids])
    np.testing.assert_array_equal(part.labels, whole.labels[ids])
    assert part.num_examples == whole.num_examples


def test_a_subset_is_drawn_of_what_is_not_held_out(own_data):
  order = permutation(40, 0)
  rest, held = np.sort(order[10:]), np.sort(order[:10])
  expected = subsets.draw(listing('train').labels, rest, CLASSES, .4, 3)
  options = dict(validation_share=.25, subset_share=.4, subset_seed=3)
  assert rows('train', **options) == in_part(expected)
  assert rows('validation', **options) == in_part(held)
  assert rows('train+validation', **options) == in_part(sorted([*expected, *held]))
  data = read('train+validation', **options)
  assert data.subset.name == 'share0.4_of30_seed3'
  np.testing.assert_array_equal(data.subset.rows, expected)
  assert read('validation', **options).subset is read('train', validation_share=.25).subset is None


def test_of_some_records_the_order_of_their_places_decides(own_data):
  part = permutation(40, 9)[:20]
  own_data.listed['train'] = listing('train', rows=part)
  held = part[permutation(20, 0)[:5]]
  rest = np.setdiff1d(part, held)
  assert rows('validation', validation_share=.25) == in_part(sorted(held))
  assert rows('train', validation_share=.25) == in_part(rest)
  # The draw is that of the whole part.
  assert rows('train', validation_share=.25, subset_share=.6) == in_part(
      subsets.draw(listing('train').labels, rest, CLASSES, .6, 0))


def test_labels_are_read_where_they_are_needed_alone(own_data):
  asked = []
  own_data.listed['train'] = listing(
      'train', labels=None, read_labels=lambda: asked.append(1) or listing('train').labels)
  read('train', validation_share=.1)
  assert not asked
  assert read('train', validation_share=.1, subset_share=.5).num_examples == 18 and asked == [1]


@pytest.mark.parametrize('changes, found', [
    (dict(labels=None), 'none'),
    (dict(labels=np.zeros((40, 3), np.int32), multi_label=True), 'several')])
def test_a_subset_needs_one_label_for_each_image(own_data, changes, found):
  own_data.listed['train'] = listing('train', **changes)
  with pytest.raises(DataError, match='^data.options.subset_share needs one label per image, '
                                      f'but train has {found}; leave it at 1'):
    read('train', validation_share=0., subset_share=.5)


def test_there_are_as_many_labels_as_images(own_data):
  own_data.listed['train'] = listing('train', labels=np.zeros(39, np.int32))
  with pytest.raises(DataError, match=f"^Data set '{NAME}', split 'train': 40 images but labels of "
                                      r'shape \[39\]; give one integer per image'):
    read('train', validation_share=0.)


@pytest.mark.parametrize('split, share', [('train', .99), ('validation', 0.)])
def test_a_split_in_which_nothing_is_left_says_why(own_data, split, share):
  with pytest.raises(DataError, match=f'^train: the {split} split is empty with 40 images and '
                                      f'data.options.validation_share {share}'):
    read(split, validation_share=share)


def test_files_and_what_is_said_of_a_split(own_data):
  def part(name):
    return listing(name, files=lambda: Files([f'{name}/a', 'both'], ['/a', '/b']),
                   left_out=f'{name}: others', class_names=('x', 'y', 'z'),
                   summary=lambda labels: f'{len(labels)} images of {name}')

  own_data.listed = dict(train=part('train'), test=part('test'))
  found = {split: read(split, validation_share=.25) for split in SPLITS}
  assert [one.summary for one in found.values()] == [
      '30 images of train', '10 images of train', '7 images of test', '40 images of train']
  assert [one.left_out for one in found.values()] == [
      'train: others', '', 'test: others', 'train: others']
  assert found['test'].origin is None and found['train'].class_names == ('x', 'y', 'z')
  assert found['validation'].origin().names == ['train/a', 'both']
  own_data.listed['validation'] = part('validation')
  both = read('train+validation', validation_share=.25)
  assert both.summary == '51 images of train'
  assert both.left_out == 'train: others; validation: others'
  assert both.origin().names == ['train/a', 'both', 'validation/a']
  assert read('validation', validation_share=.25).origin is None


@pytest.mark.parametrize('options, message', [
    (dict(validation_share=0., sise=3), 'it does not know sise'),
    (dict(), 'it misses validation_share'),
    (dict(validation_share=1.), r'data.options.validation_share is 1.0; it can be .*\[0, 1\)'),
    (dict(validation_share=0., held_out='last'), 'it does not know held_out')])
def test_options_that_cannot_be(own_data, options, message):
  with pytest.raises(InputError, match=message):
    read('train', **options)
  assert own_data.calls == []


def test_the_options_of_the_module_are_passed_on(own_data):
  read('train', validation_share=0., size=5)
  assert own_data.calls == [('validation', 5), ('train', 5)]


@pytest.mark.parametrize('split', SPLITS)
def test_every_access_is_logged_once(own_data, split):
  records = []
  data = read(split, access_log=records.append, validation_share=.25)
  assert records == [dict(dataset=NAME, split=split, purpose='a test',
                          examples=data.num_examples)]


def test_a_failed_read_is_not_logged(own_data):
  records = []
  own_data.listed['test'] = listing('test', labels=np.full(7, 9))
  with pytest.raises(DataError, match='labels run from 9 to 9'):
    read('test', access_log=records.append, validation_share=0.)
  assert records == []


@pytest.mark.parametrize('split', ['training', '', 'Test'])
def test_an_unknown_split_lists_the_splits(own_data, split):
  with pytest.raises(DataError, match=f"Unknown split '{split}'; the splits are train, "
                                      'validation, test'):
    read(split)
  assert own_data.calls == []


def test_what_is_selected_can_be_refused_before_an_image_is_read(own_data):
  own_data.listed['train'] = listing('train', store=Arrays(pytest.fail, 40))

  def check(selected):
    assert (selected.num_examples, selected.num_classes, selected.multi_label) == (30, 3, False)
    raise InputError('too few')

  with pytest.raises(InputError, match='too few'):
    splits.read(NAME, 'train', purpose='a test', check=check, options=dict(validation_share=.25))
