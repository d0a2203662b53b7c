"""Evaluators that ask their contexts for features and nothing else, as functions of features."""

from byol_jax.evaluation import contract


def functions(module):
  """`fit(train, validation, *, num_classes, ...)` and `evaluate(fitted, test)` of an evaluator."""
  def fit(train, validation, *, num_classes, **options):
    context, _ = contract.of_features(num_classes, train=train, validation=validation)
    return module.fit(context, **options)

  def evaluate(fitted, test):
    _, context = contract.of_features(0, test=test)
    return module.evaluate(fitted, context)

  return fit, evaluate
