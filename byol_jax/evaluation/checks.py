"""Checks of an evaluation that are done before an image is encoded."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import build, files, plugins, ranges
from byol_jax.config import EVALUATION, plain
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.evaluation import baselines
from byol_jax.evaluation.contract import Facts
from byol_jax.input_pipeline import loading, splits
from byol_jax.input_pipeline.retrieval_lists import Roles
from byol_jax.plots import titles

# Folders that an evaluation creates in its workdir.
FOLDERS = ('features', 'grids', 'retrieval')


def check_folders(workdir) -> None:
  """Raises InputError if an existing folder in the workdir is not writable."""
  for name in FOLDERS:
    if (workdir / name).exists():
      files.writable_folder(workdir / name)


def check_labels(config, train: loading.Loader, name: str) -> None:
  """Raises InputError if data are unlabelled, or have more labels per image than are supported."""
  if not train.data.num_classes:
    raise InputError(f'Data set {name!r} has no labels, which every evaluator needs; set '
                     'config.data to a labelled data set or, for retrieval, to lists of images as '
                     'in eval/retrieval.py:veri.')
  for evaluator in config.evaluators if train.data.multi_label else ():
    if not plugins.has(evaluator, 'SEVERAL_LABELS'):
      able = [other for other in plugins.known('evaluators')
              if plugins.has(other, 'SEVERAL_LABELS')]
      raise InputError(f'The images of {name!r} have several labels each, which evaluator '
                       f'{evaluator} does not support; {" and ".join(able)} do.')


def before_encoding(config, model: Mapping[str, Any], train: loading.Loader,
                    validation: loading.Loader, test: Callable[[], loading.Loader],
                    roles: Roles | None) -> Callable[[], None]:
  """Runs the evaluators' checks of the data before any encoding; all processes must call it.

  Args:
    config: config of the evaluation.
    model: the `model` section of the pretraining's config.
    train: the training images.
    validation: the held-out images.
    test: opens the test split. It is called immediately only if no evaluator chooses anything.
    roles: the result of `loading.roles`.

  Returns:
    A function that checks again, with the test split, to be called after all fits.

  Raises:
    InputError: with these data, an evaluator cannot do what its options require.
  """
  facts = _facts(config, model, train, validation, roles)
  _check(config, facts)
  with_test = lambda: _check(config, facts._replace(test=test().known()))
  if all(plugins.has(evaluator, 'RETRIEVES') for evaluator in config.evaluators):
    with_test()
  return with_test


def _facts(config, model: Mapping[str, Any], train: loading.Loader, validation: loading.Loader,
           roles: Roles | None) -> Facts:
  def embedding_size() -> int:
    size = train.config['image_size']
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    networks = build.build_model(model, train.data.num_classes)
    params, state = jax.eval_shape(networks.init, jax.random.key(0), images)
    own = jax.eval_shape(networks.encode, params, state, images).shape[-1]
    return min(3 * size ** 2 if name == baselines.PIXELS else own for name in config.encoders)

  return Facts(train.known(), validation.known(), None, train.data.num_classes,
               train.data.multi_label, embedding_size, roles, train.data.class_names)


def _check(config, facts: Facts) -> None:
  for evaluator, options in config.evaluators.items():
    own = getattr(plugins.load('evaluators', evaluator), 'check', None)
    if own:
      own(facts, **plain(options))


def check_evaluation(config: ml_collections.ConfigDict) -> None:
  """Checks everything about an evaluation that can be known from its config alone.

  Raises:
    InputError: a value is out of range, values do not go together, or there is nothing to
      evaluate.
  """
  values = config.to_dict()
  ranges.check('', values, EVALUATION)
  if not values['evaluators']:
    raise InputError('config.evaluators names no evaluator; name at least one.')
  for name, options in values['evaluators'].items():
    plugins.function('evaluators', name, 'fit', options)
    for function in ('evaluate', 'describe'):
      plugins.function('evaluators', name, function)
    titles.check(name)
    if plugins.has(name, 'TRAINS_ENCODER') and 'pixels' in values['encoders']:
      raise InputError(f'Evaluator {name} trains the encoder, but raw pixels have none; leave '
                       "'pixels' out of config.encoders.")
  if values['data']['dataset']:
    splits.divide_options(values['data']['dataset'], values['data']['options'])


def check_batches(config: ml_collections.ConfigDict, virtual_shards: int) -> None:
  """Raises InputError if a training batch of an evaluation cannot be divided evenly."""
  batches = {f'evaluators.{name}.batch_size': options.batch_size
             for name, options in config.evaluators.items() if 'batch_size' in options}
  if 'supervised' in config.encoders:
    batches['supervised.batch_size'] = config.supervised.batch_size
  for name, batch_size in batches.items():
    parallel.check_batch_size(batch_size, virtual_shards, name)
