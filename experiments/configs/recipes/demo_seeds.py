"""The demonstration with five seeds.

  python -m experiments.sweep --config=experiments/configs/recipes/demo_seeds.py --workdir=DIR \\
      --table=docs/measurements/recipes/demo_seeds.json

The recipe of configs/demo.py, evaluated on test images after it was chosen. Hardware: 2 CPU cores,
7 minutes per point, two at once.
"""

from experiments.configs import demo


def get_config():
  config = demo.get_config().unlock()
  config.evals.afterwards = ('experiments/configs/eval/demo.py',)
  return config.lock()


def get_hyper(hyper):
  return hyper.sweep('config.seed', range(5))
