"""The walk-through's variants as two-epoch tiny runs of one seed."""

from tests import tiny

VARIANTS = {
    'BYOL': ({}, '72.5'),
    'no predictor': ({'config.model.predictor': ()}, '0.2'),
}


def get_config():
  return tiny.config(train__epochs=2.0, evals__afterwards=(), evals__every_epochs=1.0)


def get_hyper(hyper):
  return hyper.chainit([[changes] for changes, _ in VARIANTS.values()])
