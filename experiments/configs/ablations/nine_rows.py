"""Nine rows that say most about BYOL, from Tables 5a, 5b, 17 and 21, at a small scale.

  python -m experiments.sweep --config=experiments/configs/ablations/nine_rows.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/nine_rows.py \
      --workdir=DIR --output=docs/measurements/ablations.md
  python -m experiments.report DIR

Three seeds each make 27 runs of demo_paper.py. They have 4 of its 6 epochs, after which the
baseline is more than 20 points above the random encoder. A scale of base.py after the colon runs
all epochs of that scale.
Hardware, time and results: docs/measurements/ablations.md. The published numbers come from the
tables named at the rows. All rows, SimCLR included, use the baseline's learning rate, weight decay
and schedule. SimCLR's loss has BYOL's scale, as in the paper (section 5, Eq. 8).
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale='demo'):
  config = base.with_infonce(scale).unlock()
  if scale == 'demo':
    config.train.epochs = 4.0
    config.evals.every_epochs = 4.0
    config.checkpoint.every_epochs = 4.0
  return config.lock()


def rows(config) -> list[Row]:
  del config  # No row depends on the size of the run.
  stopped = {'config.train.target': 'stop_gradient'}
  return [
      Row('baseline', {}, '72.5'),
      Row('tau 0.9', {'config.train.base_tau': 0.9}, '68.4'),  # Table 5a, like the next two
      Row('tau 0: the online network', {'config.train.base_tau': 0.0,
                                        'config.train.tau_schedule': 'constant'}, '0.3'),
      Row('tau 1: a fixed random network', {'config.train.base_tau': 1.0}, '18.8 +- 0.7'),
      Row('no predictor', {'config.model.predictor': ()}, '0.2'),  # Table 5b
      Row('no target network', stopped, '5.5'),  # Table 21, like the next
      Row('no target network, predictor x10',
          {**stopped, 'config.train.learning_rate_multipliers.predictor': 10.0}, '66.6'),
      Row('SimCLR', base.SIMCLR, '69.4'),  # Table 5b
      Row('crops only', {**base.NO_FLIP, **base.NO_COLOR, **base.NO_BLUR, **base.NO_SOLARIZE},
          '59.4 +- 0.3'),  # Table 17
  ]


# Why a row may rank differently here than in the paper.
WHY = {
    'tau 0: the online network': 'the same run as "no target network" but for its first step; the '
    'paper prints 0.3 and 5.5 for the two. Chen and He 2020 (SimSiam) train without a moving '
    'average, with 100 to 800 epochs of batch 256: whether it collapses depends on the '
    'optimizer and the learning rate, and the steps of this small run are few.',
    'no target network': 'see tau 0.',
    'no target network, predictor x10': 'the base learning rate of this run is 1.0 instead of 0.3, '
    'and its trust coefficient ten times the paper\'s: the same factor is another point of Table '
    '21.',
    'tau 0.9': 'tau goes to 1 along a cosine; over so few steps instead of 93,835 a target with '
    'tau 0.9 is as slow, in passes over the data, as one much nearer to 1 is there.',
    'tau 1: a fixed random network': 'where a random encoder is far above chance, as on these '
    'shapes, a random network has something to teach; on ImageNet it has 1.4 %.',
    'no predictor': 'the projections collapse, but the embedding below them, which is judged, '
    'still holds what the encoder had learned until then.',
    'SimCLR': 'negatives drive the projections apart from the first step on, where after so few '
    'steps those of BYOL vary in few directions (the effective rank). On the other hand about 6 of '
    'the 64 images of a batch are of the class of each, and are its negatives as all others are. '
    'Temperature and learning rate were not chosen for it.',
    'crops only': 'colours are drawn at random for each image and say nothing of its class: left '
    'as they are, they are enough to tell two views of one image from others.',
}

get_hyper = base.sweep_of(get_config, rows)
