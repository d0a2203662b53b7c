"""A sweep over tau and the seed of the demonstration, six runs.

  python -m experiments.sweep --config=experiments/configs/demo_sweep.py --workdir=DIR

Hardware: 2 CPU cores, 7 minutes per point with two at once (--parallel=2).
"""

from experiments.configs import demo

get_config = demo.get_config


def get_hyper(hyper):
  return hyper.product([hyper.sweep('config.train.base_tau', [0.9, 0.99]),
                        hyper.sweep('config.seed', range(3))])
