"""Six tiny runs, of which the last fails in training."""

from experiments.configs.eval import default as eval_default
from tests import tiny


def get_config(kind='pretrain'):
  if kind == 'eval':
    config = eval_default.with_evaluators(eval_default.get_config().unlock(), 'knn')
    config.batch_size, config.evaluators.knn.k = 32, 5
    return config.lock()
  return tiny.config(train__epochs=20.0, evals__every_epochs=0.0, checkpoint__every_epochs=2.0,
                     evals__afterwards=('tests/tiny_sweep.py:eval',))


def get_hyper(hyper):
  good = hyper.product([hyper.sweep('config.train.base_tau', [.9, .99]),
                        hyper.sweep('config.seed', [0, 1])])
  return hyper.chainit([good, hyper.fixed('config.seed', 2),
                        hyper.fixed('config.train.base_learning_rate', 1e30)])
