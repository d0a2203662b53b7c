"""The data sets of the paper's transfer and semi-supervised evaluations (Table 10, C.1).

This is not a config itself: configs take their `data` section from the function `data`. Sizes,
metrics and scores are the paper's. The scores are published for ResNet-50 after 1000 epochs of
ImageNet (Table 3 unless noted) and have not been run here. TFDS orders records by a hash of
their names, so the last ones are a random choice. Where `options` hold out as many images as the
paper did, they are not the same images, because the paper does not name its images.
"""

from types import MappingProxyType
from typing import Any, NamedTuple

import ml_collections

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from experiments.configs.eval import default

METRICS = ('top1', 'mean_per_class', 'map_voc07')
# Sets with images of one small size, which are held in memory.
SMALL_IMAGES = ('cifar10', 'cifar100', 'stl10')


class DataSet(NamedTuple):
  """A data set, how to load it, and what the paper reports.

  title: as in the paper.
  dataset: a module of byol_jax/datasets.
  options: options of its load function that differ from their defaults.
  sizes: images for training, validation and test in Table 10.
  num_classes: number of classes.
  metric: one of METRICS (Table 10): top-1 accuracy; the mean over the classes of the
    accuracy in each; or the mean over the classes of the average precision at 11 recall
    levels (VOC2007).
  linear: the paper's linear evaluation, in percent; None if it has none.
  fine_tuned: the paper's fine-tuning, in percent; None if it has none.
  center_share: side of the evaluation crop. 1: the short side is resized to 224 pixels,
    then the centre is cropped (D.2); 0.875: the short side is resized to 256 (C.1).
  """

  title: str
  dataset: str
  options: MappingProxyType[str, Any]
  sizes: tuple[int, int, int]
  num_classes: int
  metric: str
  linear: float | None
  fine_tuned: float | None
  center_share: float = 1.


def _tfds(name: str, *, train='train', validation='', test='test', held_out=0, per_class=0,
          **options) -> tuple[str, MappingProxyType[str, Any]]:
  """A TFDS data set; holds out `held_out` training images, or `per_class` of each class."""
  return 'tfds', MappingProxyType(dict(
      options, name=name, train_split=train, validation_split=validation, test_split=test,
      held_out='per_class' if per_class else 'last', held_out_images=held_out,
      held_out_per_class=per_class, held_out_share=.5))


def _imagenet(name: str):
  # The published lists also contain about their share, 100 and 1,001, of the last 10,009
  # training images. These are left out of the validation, which then has about 9,909 and
  # 9,008 images.
  return _tfds(name, test='validation', validation='train[-10009:]', validation_name='imagenet2012',
               image_id_key='file_name')


def _folders(name: str, **options) -> tuple[str, MappingProxyType[str, Any]]:
  """Folders NAME/train and NAME/test, with one subfolder per class."""
  return 'image_folder', MappingProxyType(dict(
      options, train=f'{name}/train', test=f'{name}/test'))


DATA_SETS = MappingProxyType(dict(
    food101=DataSet(
        'Food-101', *_tfds('food101', test='validation', held_out=7_575),
        (68_175, 7_575, 25_250), 101, 'top1', 75.3, 88.5),
    cifar10=DataSet(
        'CIFAR-10', *_tfds('cifar10', held_out=5_000),
        (45_000, 5_000, 10_000), 10, 'top1', 91.3, 97.8),
    cifar100=DataSet(
        'CIFAR-100', *_tfds('cifar100', held_out=5_067),
        (44_933, 5_067, 10_000), 100, 'top1', 78.4, 86.1),
    # Not in TFDS. Put it in folders birdsnap/train and birdsnap/test (test_images.txt of the
    # data set), which have 47,386 and 2,443 images in the paper. Its authors distribute image
    # URLs, some of which are dead by now; with fewer images it is not the paper's data set.
    birdsnap=DataSet(
        'Birdsnap', *_folders('birdsnap', validation_share=4_980.5 / 47_386),
        (42_405, 4_981, 2_443), 500, 'top1', 57.2, 76.3),
    # The first of the data set's ten partitions. In TFDS the images are resized to at most
    # 120,000 pixels.
    sun397=DataSet(
        'SUN397', *_tfds('sun397/standard-part1-120k', per_class=10),
        (15_880, 3_970, 19_850), 397, 'top1', 62.2, 63.7),
    cars=DataSet(
        'Stanford Cars', *_tfds('cars196', held_out=1_650),
        (6_494, 1_650, 8_041), 196, 'top1', 67.8, 91.6),
    # TFDS has it only within visual_domain_decathlon, at 72 pixels and without test labels.
    # Put it in folders aircraft/train, aircraft/validation and aircraft/test, with one
    # subfolder per variant, according to the data set's images_variant_{train,val,test}.txt;
    # replace '/' in a name by '_'. The sizes are those of these files.
    aircraft=DataSet(
        'FGVC Aircraft', *_folders('aircraft', validation='aircraft/validation'),
        (3_334, 3_333, 3_333), 100, 'mean_per_class', 60.6, 88.1),
    voc2007=DataSet(
        'PASCAL VOC2007', *_tfds('voc/2007', validation='validation',
                                 label_key='labels_no_difficult', ignored_label_key='labels'),
        (2_501, 2_510, 4_952), 20, 'map_voc07', 82.5, 85.4),
    # TFDS has the first of the data set's ten partitions, which the paper uses.
    dtd=DataSet(
        'DTD', *_tfds('dtd', validation='validation'),
        (1_880, 1_880, 1_880), 47, 'top1', 75.5, 76.2),
    pets=DataSet(
        'Oxford-IIIT Pets', *_tfds('oxford_iiit_pet', per_class=20),
        (2_940, 740, 3_669), 37, 'mean_per_class', 90.4, 91.7),
    # Includes the background class, as in the paper. TFDS draws 30 images of each class with
    # its own seed, but one file drawn from the background folder is not an image. That leaves
    # 3,059 for training and validation and 6,085 for test, where the paper has 3,060 and
    # 6,084. So there are 2,549 training images, where the paper has 2,550.
    caltech101=DataSet(
        'Caltech-101', *_tfds('caltech101', per_class=5),
        (2_550, 510, 6_084), 102, 'mean_per_class', 94.2, 93.8),
    flowers102=DataSet(
        'Oxford Flowers-102', *_tfds('oxford_flowers102', validation='validation'),
        (1_020, 1_020, 6_149), 102, 'mean_per_class', 96.1, 97.0),
    # Not in Table 10; added here, with a tenth of the labelled images held out.
    stl10=DataSet(
        'STL-10', 'stl10', MappingProxyType(dict(unlabelled=False)),
        (4_500, 500, 8_000), 10, 'top1', None, None),
    # Tables 1 and 8, with all labels.
    imagenet=DataSet(
        'ImageNet', *_tfds('imagenet2012', test='validation', held_out=10_009),
        (1_271_158, 10_009, 50_000), 1000, 'top1', 74.3, 77.7, center_share=.875),
    # Table 2, with the lists that SimCLR's authors published.
    imagenet_1pct=DataSet(
        'ImageNet, 1 % of the labels', *_imagenet('imagenet2012_subset/1pct'),
        (12_811, 10_009, 50_000), 1000, 'top1', None, 53.2, center_share=.875),
    imagenet_10pct=DataSet(
        'ImageNet, 10 % of the labels', *_imagenet('imagenet2012_subset/10pct'),
        (128_116, 10_009, 50_000), 1000, 'top1', None, 68.8, center_share=.875),
))


def choose(config: ml_collections.ConfigDict, words: str) -> tuple[str, bool]:
  """Sets the data from the words after the colon of a config: 'food101', 'dtd,smoke', ''.

  Returns:
    The metric of the data set ('top1' for '', which keeps the pretraining data), and whether
    'smoke', a trial of the code, is among the words.

  Raises:
    InputError: a word that is neither, or smoke alone, because there is no way to make the
      pretraining data small here.
  """
  given = [word for word in (words or '').split(',') if word]
  smoke = 'smoke' in given
  names = [word for word in given if word != 'smoke']
  if len(names) > 1 or any(name not in DATA_SETS for name in names):
    raise InputError(f'{words!r} after the colon of --config is not understood; give one data set '
                     f'of {", ".join(DATA_SETS)}, or none for the data of the pretraining, and '
                     'smoke for a trial.')
  if not names and smoke:
    raise InputError("smoke alone, after the colon of --config, would take all images of the "
                     "pretraining's data; name a data set too, as in cifar10,smoke.")
  if not names:
    return 'top1', False
  config.data = data(names[0], smoke)
  return DATA_SETS[names[0]].metric, smoke


def data(name: str, smoke: bool = False) -> ml_collections.ConfigDict:
  """The `data` section of an evaluation on one of DATA_SETS; eval/default.py has its keys.

  Args:
    name: a key of DATA_SETS.
    smoke: a trial of the code on a CPU, with images of 32 pixels. TFDS data sets are cut to
      the first 256 training, the last 64 validation and the first 64 test images (VOC2007 to
      512 each, so that every class is present). The others use a class-balanced subset of 256
      training images, or of two per class, with all validation and test images. The scores
      mean nothing.

  Raises:
    InputError: an unknown name.
  """
  if name not in DATA_SETS:
    raise InputError(f'{name!r} is no data set of the table; there are {", ".join(DATA_SETS)}.')
  found = DATA_SETS[name]
  own = plugin_options('datasets', found.dataset)
  own.update(found.options)
  section = default.get_config().unlock().data
  # The views have the same size as in pretraining: 224 pixels for the paper's encoder.
  section.update(
      dataset=found.dataset, options=own, center_share=found.center_share,
      pipeline='memory' if name in SMALL_IMAGES else 'tf_data', center_order='resize_first')
  if smoke:
    section.update(image_size=32, virtual_shards=4)
    if found.dataset == 'tfds':
      _few(section.options)
    else:
      count = max(256, 2 * found.num_classes)
      section.options.subset_share = round(count / found.sizes[0], 4)
  return section


def _few(options: ml_collections.ConfigDict) -> None:
  """A few images of each split."""
  # With several labels per image every class must be present; 2 % of VOC2007 have the rarest.
  fitted, judged = (512, 512) if options.ignored_label_key else (256, 64)
  options.train_split += f'[:{fitted}]'
  options.test_split += f'[:{judged}]'
  if options.validation_split:
    options.validation_split = options.validation_split.split('[')[0] + f'[-{judged}:]'
  # Too few images are left to hold out a fixed number of each class.
  options.update(held_out='last', held_out_images=64)
