"""Published BYOL numbers, to compare with those of a run.

Every entry names its settings and how its number was obtained, so that the report can
say in which settings a run differs.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

from byol_jax.config import flat
from byol_jax.plots import titles

PAPER = 'Grill et al. 2020, arXiv 2006.07733'
REFERENCE = "DeepMind's release, google-deepmind/deepmind-research, byol/README.md"
SOLO = 'solo-learn, README'
LIGHTLY = 'Lightly, benchmarks'
LAST = 'linear evaluation C.1: chosen on held-out images, public validation set as the test'
ONLINE = 'online linear classifier, not the protocol of the paper'
BEST_KNN = 'kNN with k=200 on the test images, the best of all epochs'
SETTINGS = {'epochs': 'train.epochs', 'batch size': 'train.batch_size',
            'depth': 'model.encoder_options.depth', 'width': 'model.encoder_options.width'}


class Published(NamedTuple):
  """A number from a paper or from a project's page.

  data: name of the data set, from TFDS or of a module.
  settings: epochs, batch size, depth and width.
  score: the score in percent, with its metric.
  protocol: how it was obtained, where this differs from `evaluate`.
  source: where it was published.
  """

  data: str
  settings: Mapping[str, float]
  score: str
  protocol: str
  source: str


def _entry(data, epochs, batch_size, depth, score, protocol, source, width=1.0):
  settings = {'epochs': epochs, 'batch size': batch_size, 'depth': depth, 'width': width}
  return Published(data, settings, score, protocol, source)


def _imagenet(*args, **kwargs):
  return _entry('imagenet2012', *args, **kwargs)


NUMBERS = (
    _imagenet(1000, 4096, 50, 'top-1 74.3, top-5 91.6', LAST, f'{PAPER}, Table 1'),
    _imagenet(1000, 4096, 50, 'top-1 77.4, top-5 93.6', LAST, f'{PAPER}, Table 1', width=2.0),
    _imagenet(1000, 4096, 50, 'top-1 78.6, top-5 94.2', LAST, f'{PAPER}, Table 1', width=4.0),
    _imagenet(1000, 4096, 101, 'top-1 76.4, top-5 93.0', LAST, f'{PAPER}, Table 9'),
    _imagenet(1000, 4096, 152, 'top-1 77.3, top-5 93.7', LAST, f'{PAPER}, Table 9'),
    _imagenet(1000, 4096, 200, 'top-1 77.8, top-5 93.9', LAST, f'{PAPER}, Table 9'),
    _imagenet(1000, 4096, 200, 'top-1 79.6, top-5 94.8', LAST, f'{PAPER}, Table 1', width=2.0),
    _imagenet(1000, 512, 50, 'top-1 73.7', LAST, f'{PAPER}, appendix G (tau 0.9995)'),
    _imagenet(300, 4096, 50, 'top-1 72.5, top-5 90.8', LAST, f'{PAPER}, section 5'),
    _imagenet(100, 4096, 50, 'top-1 66.5', 'linear evaluation of another paper',
              'Chen and He 2020 (SimSiam), Table 4'),
    _imagenet(100, 256, 50, 'top-1 62.5, top-5 85.0', 'linear evaluation of the project',
              LIGHTLY),
    _imagenet(40, 4096, 50, 'top-1 61.5 +- 0.5', 'linear evaluation of the reference code',
              'github.com/google-deepmind/deepmind-research/issues/76'),
    _entry('cifar10', 1000, 256, 18, 'top-1 92.58, top-5 99.79',
           f'{ONLINE}, the best epoch on the test images', SOLO),
    _entry('cifar10', 200, 512, 18, 'kNN top-1 86.8', BEST_KNN, LIGHTLY),
    _entry('cifar10', 800, 512, 18, 'kNN top-1 91.0', BEST_KNN, LIGHTLY),
    _entry('cifar100', 1000, 256, 18, 'top-1 70.46, top-5 91.96',
           f'{ONLINE}, the best epoch on the test images', SOLO),
    _entry('imagenette', 1000, 256, 18, 'top-1 about 92.3',
           f'{ONLINE}, at 128 pixels', REFERENCE),
    _entry('imagenette', 800, 256, 18, 'kNN top-1 88.7', f'{BEST_KNN}, at 128 pixels', LIGHTLY),
    _entry('stl10', 80, 64, 18, 'top-1 70.1', 'logistic regression on features, SGD in '
           'pretraining instead of LARS',
           'sthalles/PyTorch-BYOL, README and github.com/sthalles/PyTorch-BYOL/issues/6'),
)


# Table 3: rows of the paper, for each set in percent of its own metric. ResNet-50, 1000 epochs
# of ImageNet; "random" is trained from random initialisation.
TABLE_3 = dict(
    food101=(75.3, 72.8, 72.3, 88.5, 87.5, 88.3, 86.9),
    cifar10=(91.3, 90.5, 93.6, 97.8, 97.4, 97.5, 95.9),
    cifar100=(78.4, 74.4, 78.3, 86.1, 85.3, 86.4, 80.2),
    birdsnap=(57.2, 42.4, 53.7, 76.3, 75.0, 75.8, 76.1),
    sun397=(62.2, 60.6, 61.9, 63.7, 63.9, 64.3, 53.6),
    cars196=(67.8, 49.3, 66.7, 91.6, 91.4, 92.1, 91.4),
    aircraft=(60.6, 49.8, 61.0, 88.1, 87.6, 86.0, 85.9),
    voc2007=(82.5, 81.4, 82.8, 85.4, 84.5, 85.0, 67.3),
    dtd=(75.5, 75.7, 74.9, 76.2, 75.4, 74.6, 64.8),
    pets=(90.4, 84.6, 91.5, 91.7, 89.4, 92.1, 81.5),
    caltech101=(94.2, 89.3, 94.5, 93.8, 91.7, 93.3, 72.6),
    flowers102=(96.1, 92.6, 94.7, 97.0, 96.6, 97.6, 92.0))
# Other names of the sets: in TFDS, and in prepared copies.
SETS = {'voc/2007': 'voc2007', 'oxford_iiit_pet': 'pets', 'oxford_flowers102': 'flowers102',
        'fgvc_aircraft': 'aircraft', 'stanford_cars': 'cars196'}
# The metric (Table 10), if it is not the share of correct images.
METRICS = dict(aircraft='mean per class', voc2007='VOC07 mAP', pets='mean per class',
               caltech101='mean per class', flowers102='mean per class')
# The columns of its two parts, by the evaluator that measures the same.
PARTS = dict(linear_transfer=slice(0, 3), fine_tuned_transfer=slice(3, 7))
ROWS = ('BYOL', 'SimCLR (their own)', 'supervised', 'random')
# Table 2, ResNet-50: top-1 and top-5 by the share of the labels of ImageNet.
TABLE_2 = {'1 %': dict(BYOL='53.2, 78.4', SimCLR='48.3, 75.5', supervised='25.4, 48.4'),
           '10 %': dict(BYOL='68.8, 89.0', SimCLR='65.6, 87.8', supervised='56.4, 80.4')}
# Table 8, with all labels.
TABLE_8 = 'BYOL 77.7, 93.9, SimCLR (their own) 76.5, 93.5'


def of_protocol(evaluator: str, dataset: str) -> str:
  """A sentence with the paper's numbers for an evaluator on a data set; '' if there are none.

  Args:
    evaluator: 'linear', 'linear_transfer', 'fine_tuned_transfer' or 'semi_supervised'.
    dataset: its name, optionally with a TFDS config after a slash.
  """
  known = dataset.split(':')[0]
  name = known.split('/')[0]
  name = SETS.get(known, SETS.get(name, name))
  where = f'Published (not run here), ResNet-50 after 1000 epochs of ImageNet ({PAPER}'
  if evaluator == 'linear' and name == 'imagenet2012':
    return f'{where}, Table 1): top-1 74.3, top-5 91.6.'
  if evaluator == 'semi_supervised' and name == 'imagenet2012':
    return f'{where}, Table 8), top-1 and top-5 with all labels: {TABLE_8}.'
  share = {'imagenet2012_subset/1pct': '1 %', 'imagenet2012_subset/10pct': '10 %'}.get(known)
  if evaluator == 'semi_supervised' and share:
    numbers = ', '.join(f'{method} {scores}' for method, scores in TABLE_2[share].items())
    return f'{where}, Table 2), top-1 and top-5 with {share} of the labels: {numbers}.'
  if evaluator not in PARTS or name not in TABLE_3:
    return ''
  numbers = ', '.join(f'{row} {value}'
                      for row, value in zip(ROWS, TABLE_3[name][PARTS[evaluator]]))
  return f'{where}, Table 3), {titles.title(evaluator)} {METRICS.get(name, "top-1")}: {numbers}.'


def beside(config: Mapping[str, Any], *, count: int = 4) -> list[tuple[Published, list[str]]]:
  """The published numbers closest to a run, and the settings in which the run differs.

  Args:
    config: config of a pretraining run.
    count: maximum number of entries.

  Returns:
    The entries of the same data set, with the fewest differing settings first, each with
    texts such as 'epochs 30 (published: 1000)'. Empty for other data sets.
  """
  keys = flat(config)
  name = str(keys.get('data.options.name') or keys['data.dataset']).split('/')[0].split(':')[0]
  found = []
  for entry in NUMBERS:
    if entry.data == name:
      pairs = [(setting, keys.get(key), entry.settings[setting])
               for setting, key in SETTINGS.items()]
      found.append((entry, [f'{setting} {own} (published: {published:g})'
                            for setting, own, published in pairs if own != published]))
  # Ties are sorted by how close the lengths of the runs are.
  epochs = lambda entry: abs(math.log(keys['train.epochs'] / entry.settings['epochs']))
  return sorted(found, key=lambda pair: (len(pair[1]), epochs(pair[0])))[:count]
