"""The table of the paper's data sets, against what TFDS has under the names in it."""

import ml_collections
import numpy as np
import pytest

from byol_jax import loading
from byol_jax.errors import InputError
from experiments.configs.eval import data_sets, default
from experiments.configs.eval import tfds as eval_tfds
from tests import tiny
from tests.datasets.test_tfds import encode, write_real_set

TABLE = data_sets.DATA_SETS
PREPARED = [name for name, found in TABLE.items() if found.dataset == 'tfds']
# Others have features and splits of the same kinds.
SLOW = ('cifar10', 'cars', 'flowers102', 'caltech101', 'imagenet', 'imagenet_10pct')


@pytest.mark.parametrize('name', TABLE)
def test_each_section_has_the_keys_of_an_evaluation_and_options_that_load_takes(name):
  for smoke in (False, True):
    section = data_sets.data(name, smoke)
    assert set(section) == set(default.get_config().data)
    config = default.get_config().unlock()
    config.data = section
    assert (section.image_size, section.center_order) == (32 if smoke else 0, 'resize_first')
    assert section.center_share == (.875 if name.startswith('imagenet') else 1.)
  assert TABLE[name].metric in data_sets.METRICS
  if section.dataset == 'tfds':
    assert set(section.options) == set(eval_tfds.get_config().data.options)


def test_scores_stand_in_the_order_of_table_3_and_the_sizes_add_up():
  transfer = [found for name, found in TABLE.items()
              if found.fine_tuned and not name.startswith('imagenet')]
  assert [found.linear for found in transfer] == [
      75.3, 91.3, 78.4, 57.2, 62.2, 67.8, 60.6, 82.5, 75.5, 90.4, 94.2, 96.1]
  assert [found.fine_tuned for found in transfer] == [
      88.5, 97.8, 86.1, 76.3, 63.7, 91.6, 88.1, 85.4, 76.2, 91.7, 93.8, 97.0]
  for name, (train, validation) in dict(
      food101=(75_750, 0), cifar10=(50_000, 0), cifar100=(50_000, 0), cars=(8_144, 0),
      sun397=(397 * 50, 10), pets=(3_680, 20), imagenet=(1_281_167, 0)).items():
    sizes, options = TABLE[name].sizes, TABLE[name].options
    assert sum(sizes[:2]) == train and options['held_out_per_class'] == validation
    assert sizes[1] == validation * TABLE[name].num_classes + options['held_out_images']


def test_an_unknown_name_lists_the_table():
  with pytest.raises(InputError, match="'food' is no data set of the table; there are food101, "):
    data_sets.data('food')


def image(number, form='PNG'):
  return encode(np.full((32, 32, 3), number % 256, np.uint8), form)


def examples(name, count, first=0):
  """Images of two of each class, and of a few for those that are not drawn by classes."""
  found = TABLE[name]
  for i in range(first, first + count):
    label = i % found.num_classes
    if found.metric == 'map_voc07':
      yield dict(image=image(i), labels=[label], labels_no_difficult=[label])
    else:
      yield dict(image=image(i), label=label)


def opened(section, workdir, split):
  """The loader of a split of an evaluation's section, as evaluate.py has it."""
  plain = tiny.config().unlock().data
  plain.options = ml_collections.ConfigDict()
  plain.update({key: value for key, value in section.items() if value or key == 'options'})
  return loading.load(plain, split, purpose='a test', workdir=workdir)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PREPARED])
def test_one_batch_of_every_set_of_tfds_with_its_real_features(name, tmp_path):
  section, found = data_sets.data(name), TABLE[name]
  options = section.options
  per_class = min(options.held_out_per_class, 1)
  options.update(data_dir=str(tmp_path), held_out_per_class=per_class)
  lengths = {'train': (2 * found.num_classes if per_class else 12,), options.test_split: (3,)}
  if options.validation_name:
    named = lambda rows: [dict(image=image(i), label=i, file_name=f'{i}.JPEG') for i in rows]
    write_real_set(tmp_path, options.validation_name, dict(train=(6, 4)), named(range(10)))
    write_real_set(tmp_path, options.name, lengths, named(range(8, 23)))
    options.validation_split = 'train[-4:]'
    sizes = 12, 2, 3
  else:
    if options.validation_split:
      lengths[options.validation_split] = (5,)
    write_real_set(tmp_path, options.name, lengths, examples(name, 2 * found.num_classes + 24))
    held_out = found.num_classes if per_class else 5 if options.validation_split else 6
    sizes = lengths['train'][0] - held_out * (not options.validation_split), held_out, 3
  loaders = [opened(section, tmp_path, split) for split in ('train', 'validation', 'test')]
  assert [loader.data.num_examples for loader in loaders] == list(sizes)
  assert loaders[0].data.num_classes == found.num_classes
  batch = next(loaders[1].evaluation_batches(2))
  # The size is the pretraining's; small images come whole.
  whole = name in data_sets.SMALL_IMAGES
  size, pixels = (32, batch['images']) if whole else (16, batch['crop1'])
  assert pixels.shape == (2, size, size, 3) and pixels.std() < 100
  assert batch['labels'].shape == ((2, 20) if name == 'voc2007' else (2,))


def test_a_trial_takes_a_few_images(tmp_path):
  section = data_sets.data('dtd', smoke=True)
  section.options.data_dir = str(tmp_path)
  write_real_set(tmp_path, 'dtd', dict(train=(150, 150), validation=(70,), test=(70,)),
                 examples('dtd', 440))
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == [256, 64, 64]
  several = data_sets.data('voc2007', smoke=True).options
  assert [several[f'{split}_split'] for split in ('train', 'validation', 'test')] == [
      'train[:512]', 'validation[-512:]', 'test[:512]']


@pytest.mark.parametrize('name, splits', [
    ('birdsnap', ('train', 'test')), ('aircraft', ('train', 'validation', 'test'))])
def test_one_batch_of_the_sets_in_folders(name, splits, tmp_path):
  section = data_sets.data(name)
  for split in splits:
    for label in 'ab':
      folder = tmp_path / name / split / label
      folder.mkdir(parents=True)
      for i in range(10):
        (folder / f'{i}.png').write_bytes(image(i))
    section.options[split] = str(tmp_path / name / split)
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == ([17, 3, 20] if name == 'birdsnap' else [20] * 3)
  batch = next(opened(section, tmp_path, 'validation').evaluation_batches(2))
  assert batch['crop1'].shape == (2, 16, 16, 3)
  trial = data_sets.data(name, smoke=True)
  trial.options.update({split: section.options[split] for split in splits})
  assert 0 < trial.options.subset_share < .1
  # Enough for two classes here.
  trial.options.subset_share = .2
  assert opened(trial, tmp_path, 'train').data.num_examples == (3 if name == 'birdsnap' else 4)


def test_as_many_images_of_birdsnap_are_held_out_as_in_the_paper():
  share, (train, validation, _) = TABLE['birdsnap'].options['validation_share'], TABLE[
      'birdsnap'].sizes
  assert np.ceil(share * (train + validation)) == validation


def test_one_batch_of_stl10(tmp_path):
  section = data_sets.data('stl10')
  section.options.folder = str(tmp_path)
  for split in ('train', 'test'):
    (tmp_path / f'{split}_X.bin').write_bytes(bytes(10 * 96 * 96 * 3))
    (tmp_path / f'{split}_y.bin').write_bytes(bytes(range(1, 11)))
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == [9, 1, 10]
  assert next(opened(section, tmp_path, 'train').evaluation_batches(4))['images'].shape == (
      4, 96, 96, 3)
