"""Shared code of the configs of the paper's ablations; start with `nine_rows.py`.

  python -m experiments.sweep --config=experiments/configs/ablations/table_5a.py \
      --workdir=DIR --config.data.options.data_dir=DATA
  python -m experiments.sweep --config=experiments/configs/ablations/table_5a.py:demo \
      --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_5a.py:demo \
      --workdir=DIR

The config of a table defines `rows(config)`: each row is a set of changes to the run in `config`,
with the published linear top-1 on ImageNet in percent. The sweep runs each row with seeds 0, 1 and
2. The word after the colon chooses the run that is changed, the baseline:
  imagenet  the paper's for ablations (section 5): ResNet-50, 300 epochs, batch 4096; the default
  cifar10   configs/cifar10.py with 200 epochs: ResNet-18
  demo      configs/demo_paper.py: generated images, 1 to 3 minutes per point on 2 CPU cores
Values that depend on the size of a run (learning rate, weight decay, sizes of the heads) keep their
ratio to the baseline's. The last command compares the measured with the published results.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from byol_jax.errors import InputError
from byol_jax.objectives import infonce
from experiments.configs import cifar10, demo_paper, imagenet_r50

SEEDS = (0, 1, 2)  # the paper's number (section 5)
SCALES = ('imagenet', 'cifar10', 'demo')
NO_PREDICTOR = {'config.model.predictor': ()}
NO_TARGET = {'config.train.target': 'none'}
# Needs a config from `with_infonce`, as does SIMCLR (section 5).
BETA_1 = {'config.train.objective_options.beta': 1.0}
SIMCLR = {**NO_PREDICTOR, **NO_TARGET, **BETA_1}

Changes = Mapping[str, Any]


class Row(NamedTuple):
  """A row of a table.

  name: as in the paper.
  changes: changes to the baseline, such as {'config.train.base_tau': 0.9}.
  published: linear top-1 on ImageNet in percent, as printed, '18.8 +- 0.7'.
  """

  name: str
  changes: Changes
  published: str


def get_config(scale: str = '') -> ml_collections.ConfigDict:
  """The baseline at one of SCALES; '' means the first."""
  scale = scale or SCALES[0]
  if scale not in SCALES:
    raise InputError(f'{scale!r} after the colon of --config is no scale; there are '
                     f'{", ".join(SCALES)}.')
  config = dict(imagenet=lambda: imagenet_r50.get_config('epochs=300'),
                cifar10=lambda: cifar10.get_config('epochs=200'),
                demo=demo_paper.get_config)[scale]().unlock()
  config.evals.afterwards = (dict(
      imagenet='experiments/configs/eval/linear.py', cifar10='experiments/configs/eval/cifar10.py',
      demo='experiments/configs/eval/demo.py:pretrained,random')[scale],)
  return config.lock()


def with_infonce(scale: str = '') -> ml_collections.ConfigDict:
  """The baseline with the objective `infonce`, which has beta (here 0) and a temperature."""
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
  """The points of a row, one per seed."""
  return hyper.product([[row.changes], hyper.sweep('config.seed', SEEDS)])


def both_views(**changes: Any) -> Changes:
  """The same changes to the augmentation of both views."""
  return {f'config.{view}.{key}': value for view in ('view1', 'view2')
          for key, value in changes.items()}


def proportional(baseline: float, published_baseline: float, published: Mapping[float, str],
                 key: str, name: str) -> list[Row]:
  """Rows for a key that depends on the size of the run, one per value, in the paper's ratios."""
  values = [float(f'{baseline * value / published_baseline:.6g}') for value in published]
  return [Row(f'{name} {value:g}', {key: value}, score)
          for value, score in zip(values, published.values())]


# Parts of the augmentation removed (Table 17).
NO_FLIP = both_views(flip_probability=0.0)
NO_BLUR = both_views(blur_probability=0.0)
NO_JITTER = both_views(jitter_probability=0.0)
NO_GRAYSCALE = both_views(grayscale_probability=0.0)
NO_SOLARIZE = both_views(solarize_probability=0.0)
NO_COLOR = {**NO_JITTER, **NO_GRAYSCALE}
