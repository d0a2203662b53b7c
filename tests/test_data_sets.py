"""The table of the paper's data sets, against what TFDS has under the names in it."""

import re

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import evaluate, train
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline import loading
from experiments.configs.eval import (
  data_sets,
  default,
  semi_supervised,
  transfer_finetune,
  transfer_linear,
)
from experiments.configs.eval import tfds as eval_tfds
from tests import tiny
from tests.datasets.test_tfds import encode, write_real_set

TABLE = data_sets.DATA_SETS
PREPARED = [name for name, found in TABLE.items() if found.dataset == 'tfds']
# Protocol -> its configs, what they say of the grid before it starts, and then of its cost.
COSTS = dict(
    linear=(transfer_linear, r'45 penalties on \d+ images, \d+ features, \d+ classes',
            r'ms per iteration; .* take [\d.]+ to \d'),
    fine_tuned=(transfer_finetune, '56 points, 1140000 steps in all; .* 1140000 steps left',
                r'ms per step, about [\d.]+ (h|days) for 1140000 steps'),
    semi_supervised=(semi_supervised, r'10 points, \d+ steps in all',
                     r'ms per step, about [\d.]+ (s|min|h) for \d+ steps'))
FOLDERS = dict(birdsnap=('train', 'test'), aircraft=('train', 'validation', 'test'))
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
  for name, (fitted, held_out) in dict(
      food101=(75_750, 0), cifar10=(50_000, 0), cifar100=(50_000, 0), cars=(8_144, 0),
      sun397=(397 * 50, 10), pets=(3_680, 20), caltech101=(102 * 30, 5),
      imagenet=(1_281_167, 0)).items():
    sizes, options = TABLE[name].sizes, TABLE[name].options
    assert sum(sizes[:2]) == fitted and options['held_out_per_class'] == held_out
    assert sizes[1] == held_out * TABLE[name].num_classes + options['held_out_images']


def test_an_unknown_name_lists_the_table():
  with pytest.raises(InputError, match="'food' is no data set of the table; there are food101, "):
    data_sets.data('food')


def image(number):
  return encode(np.full((32, 32, 3), number % 256, np.uint8), 'PNG')


def mocked(name, count):
  """What TFDS's own mock of a set gives: noise as its features have it, encoded as they do."""
  found, options = TABLE[name], data_sets.data(name).options
  keys = [options[key] for key in ('image_key', 'label_key', 'ignored_label_key', 'image_id_key')]
  wanted = tfds.decode.PartialDecoding({key: True for key in keys if key},
                                       decoders=dict(image=tfds.decode.SkipDecoding()))
  with tfds.testing.mock_data(num_examples=count):
    mock = tfds.builder(options.name).as_dataset(split='train', decoders=wanted)
    examples = list(mock.as_numpy_iterator())
  # The mock draws the classes; the protocols need some of each.
  for number, example in enumerate(examples if found.metric != 'map_voc07' else ()):
    example['label'] = number % found.num_classes
  return examples


def prepared(name, data_dir, every_class=False):
  """Writes mocked examples as TFDS prepares a set, two of each class where it is drawn by them.

  Returns:
    The section of an evaluation; the training images, those that are held out, those of the test.
  """
  section = data_sets.data(name)
  options = section.options
  count = 2 * TABLE[name].num_classes if every_class or options.held_out_per_class else 12
  examples = mocked(name, count + 8)
  train, test, validation = np.split(np.array(examples), (count, count + 3))
  lengths = {'train': (count,), options.test_split: (3,)}
  options.update(data_dir=str(data_dir), held_out_per_class=min(options.held_out_per_class, 1))
  if options.validation_name:
    # Two of four are in the subset too.
    write_real_set(data_dir, options.validation_name, dict(train=(4,)),
                   [*train[-2:], *validation[:2]])
    options.validation_split, validation = 'train[-4:]', validation[:2]
  elif options.validation_split:
    lengths[options.validation_split] = (5,)
  else:
    # Half of them, the last ones or one of each class.
    train, validation = np.split(train, 2)
  write_real_set(data_dir, options.name, lengths, examples)
  return section, train, validation, test


def opened(section, workdir, split):
  """The loader of a split of an evaluation's section, as evaluate.py has it."""
  plain = tiny.config().unlock().data
  plain.options = ml_collections.ConfigDict()
  plain.update({key: value for key, value in section.items() if value or key == 'options'})
  return loading.load(plain, split, purpose='a test', workdir=workdir)


def labels(name, examples):
  """As a loader has them; of several: 1, and -1 for classes whose objects are all difficult."""
  if name != 'voc2007':
    return sorted(example['label'] for example in examples)
  return sorted([1 if label in example['labels_no_difficult'] else -(label in example['labels'])
                 for label in range(20)] for example in examples)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PREPARED])
def test_one_batch_of_every_set_of_tfds_with_its_real_features(name, tmp_path):
  section, *expected = prepared(name, tmp_path)
  loaders = [opened(section, tmp_path, split) for split in ('train', 'validation', 'test')]
  assert [loader.data.num_examples for loader in loaders] == [len(part) for part in expected]
  assert loaders[0].data.num_classes == TABLE[name].num_classes
  batch = next(loaders[1].evaluation_batches(2))
  # The size is the pretraining's; small images come whole.
  whole = name in data_sets.SMALL_IMAGES
  size, pixels = (32, batch['images']) if whole else (16, batch['crop1'])
  assert pixels.shape == (2, size, size, 3) and 30 < pixels.std() < 100
  for loader, part in zip(loaders[1:], expected[1:]):
    assert sorted(loader.labels().tolist()) == labels(name, part)


def test_a_trial_takes_a_few_images(tmp_path):
  section = data_sets.data('dtd', smoke=True)
  section.options.data_dir = str(tmp_path)
  write_real_set(tmp_path, 'dtd', dict(train=(150, 150), validation=(70,), test=(70,)),
                 mocked('dtd', 440))
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == [256, 64, 64]
  several = data_sets.data('voc2007', smoke=True).options
  assert [several[f'{split}_split'] for split in ('train', 'validation', 'test')] == [
      'train[:512]', 'validation[-512:]', 'test[:512]']


def in_folders(name, root):
  """Two classes of ten images in each folder of a set; the section of an evaluation."""
  section = data_sets.data(name)
  for split in FOLDERS[name]:
    for label in 'ab':
      folder = root / name / split / label
      folder.mkdir(parents=True)
      for i in range(10):
        (folder / f'{i}.png').write_bytes(image(i))
    section.options[split] = str(root / name / split)
  return section


def stl10(root):
  """Two images of each class in each file of STL-10; the section of an evaluation."""
  section = data_sets.data('stl10')
  section.options.folder = str(root)
  for split in ('train', 'test'):
    (root / f'{split}_X.bin').write_bytes(bytes(20 * 96 * 96 * 3))
    (root / f'{split}_y.bin').write_bytes(2 * bytes(range(1, 11)))
  return section


@pytest.mark.parametrize('name', FOLDERS)
def test_one_batch_of_the_sets_in_folders(name, tmp_path):
  section = in_folders(name, tmp_path)
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == ([17, 3, 20] if name == 'birdsnap' else [20] * 3)
  batch = next(opened(section, tmp_path, 'validation').evaluation_batches(2))
  assert batch['crop1'].shape == (2, 16, 16, 3)
  trial = data_sets.data(name, smoke=True)
  trial.options.update({split: section.options[split] for split in FOLDERS[name]})
  assert 0 < trial.options.subset_share < .1
  # Enough for two classes here.
  trial.options.subset_share = .2
  assert opened(trial, tmp_path, 'train').data.num_examples == (3 if name == 'birdsnap' else 4)


def test_as_many_images_of_birdsnap_are_held_out_as_in_the_paper():
  share, (train, validation, _) = TABLE['birdsnap'].options['validation_share'], TABLE[
      'birdsnap'].sizes
  assert np.ceil(share * (train + validation)) == validation


def test_one_batch_of_stl10(tmp_path):
  section = stl10(tmp_path)
  sizes = [opened(section, tmp_path, split).data.num_examples
           for split in ('train', 'validation', 'test')]
  assert sizes == [18, 2, 20]
  assert next(opened(section, tmp_path, 'train').evaluation_batches(4))['images'].shape == (
      4, 96, 96, 3)


class Planned(Exception):
  """The cost of an evaluation was printed."""


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('pretrained')
  train.pretrain(tiny.config(train__epochs=1.0, train__warmup_epochs=.5), workdir)
  return workdir


@pytest.mark.long
@pytest.mark.parametrize('protocol, name', [
    (protocol, name) for name in TABLE for protocol in COSTS
    if (protocol == 'semi_supervised') == name.startswith('imagenet')])
def test_every_set_prints_size_and_cost_of_its_full_grid(protocol, name, pretrained, tmp_path,
                                                         monkeypatch):
  module, size, cost = COSTS[protocol]
  config, said = module.get_config(name).unlock(), []
  config.data = (in_folders(name, tmp_path) if name in FOLDERS
                 else stl10(tmp_path) if name == 'stl10'
                 else prepared(name, tmp_path, every_class=True)[0])

  def say(text):
    said.append(text)
    if re.search(cost, text):
      raise Planned

  monkeypatch.setattr(parallel, 'print_once', say)
  with pytest.raises(Planned):
    evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert re.search(size, '\n'.join(said))
