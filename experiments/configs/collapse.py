"""Why BYOL does not collapse: demo_paper.py, and four variants with a part removed.

  python -m experiments.sweep --config=experiments/configs/collapse.py --workdir=DIR
  python -m experiments.report DIR

Each has three seeds: 15 runs. Hardware: 2 CPU cores, 49 minutes while other jobs were running.
Expected: without the predictor, or without a target network, the spread of the projections falls
below 0.1 within 64 steps; BYOL stays above 0.6 and the other variants above 0.45. Source:
measured here (docs/measurements/walkthrough.md); the paper's rows are in Tables 5a and 5b.
"""

import ml_collections

from experiments.configs import demo_paper

SEEDS = (0, 1, 2)
# name -> changes to demo_paper.py, and the paper's linear top-1 on ImageNet.
VARIANTS = {
    'BYOL': ({}, '72.5'),
    'no predictor': ({'config.model.predictor': ()}, '0.2'),
    'no target network, gradients on both sides': ({'config.train.target': 'none'}, '0.3'),
    'tau 0': ({'config.train.base_tau': 0.0, 'config.train.tau_schedule': 'constant'}, '0.3'),
    'tau 1': ({'config.train.base_tau': 1.0}, '18.8'),
}


def get_config() -> ml_collections.ConfigDict:
  config = demo_paper.get_config().unlock()
  config.train.epochs = 2.0
  config.evals.every_epochs = 1.0
  config.evals.afterwards = ()  # held-out kNN is enough: the test split is not read
  config.log.every_steps = 16
  return config.lock()


def get_hyper(hyper):
  return hyper.product([[changes for changes, _ in VARIANTS.values()],
                        hyper.sweep('config.seed', SEEDS)])
