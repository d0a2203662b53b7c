"""A table of one row, of runs as small as those of `tiny`."""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row
from experiments.configs.eval import default as eval_default
from tests import tiny


def get_config(kind='pretrain'):
  if kind == 'eval':
    config = eval_default.with_evaluators(eval_default.get_config().unlock(), 'linear_features')
    config.batch_size, config.encoders = 32, ('pretrained', 'random')
    config.evaluators.linear_features.update(l2_values=(1e-2, 1.), max_iterations=20)
    return config.lock()
  return tiny.config(train__epochs=1.0, train__warmup_epochs=0.0, evals__every_epochs=1.0,
                     evals__afterwards=('tests/tiny_ablations.py:eval',))


def rows(config):
  del config
  return [Row('baseline', {}, '72.5')]


get_hyper = base.sweep_of(get_config, rows)
