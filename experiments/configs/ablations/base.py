"""What the configs of the paper's ablations share; `nine_rows.py` is the one to start with.

  python -m experiments.sweep --config=experiments/configs/ablations/table_5a.py \
      --workdir=DIR --config.data.options.data_dir=DATA
  python -m experiments.sweep --config=experiments/configs/ablations/table_5a.py:demo \
      --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_5a.py:demo \
      --workdir=DIR

A config of a table has `rows(config)`, the rows as changes of the run in `config`, each with the
published linear top-1 on ImageNet in percent. Its points are these with seeds 0, 1 and 2. The word
after the colon is the run that is changed:
  imagenet  the paper's for ablations (section 5): ResNet-50, 300 epochs, batch 4096; the default
  cifar10   configs/cifar10.py with 200 epochs: ResNet-18
  demo      configs/demo.py: generated images, 2 to 3 minutes per point on 2 CPU cores
Values that go with the size of a run (learning rate, weight decay, sizes of the heads) keep their
ratio to the baseline's. The last command holds what was measured against what was published.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from byol_jax.errors import InputError
from byol_jax.objectives import infonce
from experiments.configs import cifar10, demo, imagenet_r50

SEEDS = (0, 1, 2)  # the paper's number (section 5)
SCALES = ('imagenet', 'cifar10', 'demo')
NO_PREDICTOR = {'config.model.predictor': ()}
NO_TARGET = {'config.train.target': 'none'}
# In a config `with_infonce`, as is SimCLR (section 5).
BETA_1 = {'config.train.objective_options.beta': 1.0}
SIMCLR = {**NO_PREDICTOR, **NO_TARGET, **BETA_1}

Changes = Mapping[str, Any]


class Row(NamedTuple):
  """A row of a table.

  name: as the paper calls it.
  changes: of the baseline, {'config.train.base_tau': 0.9}.
  published: linear top-1 on ImageNet in percent, as printed, '18.8 +- 0.7'.
  """

  name: str
  changes: Changes
  published: str


def get_config(scale: str = '') -> ml_collections.ConfigDict:
  """The baseline, at one of SCALES; '' is the first."""
  scale = scale or SCALES[0]
  if scale not in SCALES:
    raise InputError(f'{scale!r} after the colon of --config is no scale; there are '
                     f'{", ".join(SCALES)}.')
  config = dict(imagenet=lambda: imagenet_r50.get_config('epochs=300'),
                cifar10=lambda: cifar10.get_config('epochs=200'),
                demo=demo.get_config)[scale]().unlock()
  config.evals.afterwards = (dict(
      imagenet='experiments/configs/eval/linear.py', cifar10='experiments/configs/eval/cifar10.py',
      demo='experiments/configs/eval/demo.py:pretrained,random')[scale],)
  return config.lock()


def with_infonce(scale: str = '') -> ml_collections.ConfigDict:
  """The same, with the objective whose beta and temperature can be changed; beta is 0."""
  config = get_config(scale).unlock()
  config.train.objective = 'infonce'
  config.train.objective_options = ml_collections.ConfigDict(infonce.OPTIONS)
  return config.lock()


def sweep_of(make_config: Callable[..., ml_collections.ConfigDict],
             rows: Callable[[ml_collections.ConfigDict], Sequence[Row]]) -> Callable[..., Any]:
  """The `get_hyper` of a table: its rows with all seeds."""
  def get_hyper(hyper, *scale: str):
    return hyper.chainit([of_row(hyper, row) for row in rows(make_config(*scale))])
  return get_hyper


def of_row(hyper, row: Row):
  """The points of a row."""
  return hyper.product([[row.changes], hyper.sweep('config.seed', SEEDS)])


def both_views(**changes: Any) -> Changes:
  """Changes of both views' policies."""
  return {f'config.{view}.{key}': value for view in ('view1', 'view2')
          for key, value in changes.items()}


def proportional(baseline: float, published_baseline: float, published: Mapping[float, str],
                 key: str, name: str) -> list[Row]:
  """A row for each value of a key that goes with the size of the run, in the paper's ratios."""
  values = [float(f'{baseline * value / published_baseline:.6g}') for value in published]
  return [Row(f'{name} {value:g}', {key: value}, score)
          for value, score in zip(values, published.values())]


# Parts of the augmentation taken out (Table 17).
NO_FLIP = both_views(flip_probability=0.0)
NO_BLUR = both_views(blur_probability=0.0)
NO_JITTER = both_views(jitter_probability=0.0)
NO_GRAYSCALE = both_views(grayscale_probability=0.0)
NO_SOLARIZE = both_views(solarize_probability=0.0)
NO_COLOR = {**NO_JITTER, **NO_GRAYSCALE}
