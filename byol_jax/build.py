"""Builds the parts of a run from its config: resolved numbers, networks, views, optimizer."""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from byol_jax import model, plugins, ranges, schedules
from byol_jax.augment import views
from byol_jax.config import DATA, MAY_DIFFER, PRETRAINING, differing_keys, flat, plain
from byol_jax.distributed import parallel, processes
from byol_jax.errors import InputError
from byol_jax.input_pipeline import locations, splits
from byol_jax.input_pipeline.batches import Batches, check_count
from byol_jax.input_pipeline.records import Selected
from byol_jax.losses import variants
from byol_jax.optimizers.multipliers import with_multipliers
from byol_jax.train_step import Recipe


class Resolved(NamedTuple):
  """The numbers that follow from a config, its data set and the devices.

  num_examples: training images.
  num_classes: number of classes; 0 for unlabelled data.
  steps_per_epoch: num_examples / batch_size.
  max_steps: total number of steps in the run.
  warmup_steps: steps until the peak learning rate.
  peak_learning_rate: base_learning_rate * batch_size / 256.
  checkpoint_every: steps between checkpoints; 0 saves only the last step.
  evaluate_every: steps between evaluations; 0 means never.
  devices: number of devices over all hosts.
  """

  num_examples: int
  num_classes: int
  steps_per_epoch: float
  max_steps: int
  warmup_steps: int
  peak_learning_rate: float
  checkpoint_every: int
  evaluate_every: int
  devices: int


def resolve(config: ml_collections.ConfigDict, data: Batches | Selected) -> Resolved:
  """Epochs to steps, learning rate to this batch; checks what must fit together.

  Raises:
    InputError: `check_pretraining` rejects the config, images have several labels, the run
      has no steps, the warm-up is as long as the run, or there are fewer images than virtual
      shards or kNN neighbours.
  """
  check_pretraining(config, jax.device_count())
  train, batch_size = config.train, config.train.batch_size
  if data.multi_label:
    raise InputError('data.options.label_key names several classes for one image, which the '
                     "online classifier does not support; set it to '' for unlabelled images.")
  to_steps = functools.partial(schedules.num_steps, num_examples=data.num_examples,
                               batch_size=batch_size)
  max_steps, warmup_steps = to_steps(train.epochs), to_steps(train.warmup_epochs)
  check_count(data.num_examples, config.data.virtual_shards)
  if max_steps < 1:
    raise InputError(f'{train.epochs} epochs of {data.num_examples} images at batch '
                     f'{batch_size} make no step; raise train.epochs or lower train.batch_size.')
  if warmup_steps >= max_steps:
    raise InputError(f'The warm-up of {train.warmup_epochs} epochs ({warmup_steps} steps) is not '
                     f'shorter than the run of {train.epochs} epochs ({max_steps} steps); lower '
                     'train.warmup_epochs. To run only the first steps of a longer run, set '
                     'train.stop_at_step and keep train.epochs.')
  check_steps(train, max_steps)
  if data.num_classes and config.evals.every_epochs and config.evals.knn.k > data.num_examples:
    raise InputError(f'evals.knn.k is {config.evals.knn.k} with {data.num_examples} training '
                     f'images; set it to at most {data.num_examples}, or evals.every_epochs to 0.')
  return Resolved(
      num_examples=data.num_examples, num_classes=data.num_classes,
      steps_per_epoch=data.num_examples / batch_size, max_steps=max_steps,
      warmup_steps=warmup_steps, peak_learning_rate=train.base_learning_rate * batch_size / 256,
      checkpoint_every=(max(1, to_steps(config.checkpoint.every_epochs))
                        if config.checkpoint.every_epochs else 0),
      evaluate_every=(max(1, to_steps(config.evals.every_epochs))
                      if config.evals.every_epochs else 0),
      devices=jax.device_count())


def build_model(config: Mapping[str, Any], num_classes: int) -> model.Model:
  """Builds the networks from a config's `model` section, a plain dict or a ConfigDict."""
  return model.build(num_classes=num_classes,
                     **{key: plain(value) for key, value in config.items()})


def build_recipe(config: ml_collections.ConfigDict, resolved: Resolved) -> Recipe:
  """Builds the functions of a pretraining run."""
  train = config.train
  dtype = jnp.promote_types(jnp.dtype(config.model.compute_dtype), jnp.float32)
  return Recipe(
      model=build_model(config.model, resolved.num_classes),
      # The name separates it from the networks in profiles.
      views=jax.named_scope('views')(functools.partial(
          views.random_views, form=views.FORMS[config.data.pipeline], seed=config.seed,
          policies=policies(config), image_size=config.data.image_size, dtype=dtype)),
      objective=_objective(train),
      loss=variants.choose(train.target, train.target_statistics, config.view_small.count),
      optimizer=_optimizer(train, resolved.peak_learning_rate),
      learning_rate=functools.partial(
          schedules.learning_rate, base_learning_rate=train.base_learning_rate,
          batch_size=train.batch_size, warmup_steps=resolved.warmup_steps,
          max_steps=resolved.max_steps),
      tau=functools.partial(schedules.tau, base_tau=train.base_tau,
                            max_steps=resolved.max_steps, schedule=train.tau_schedule,
                            batch_ratio=(train.batch_size / train.base_batch_size
                                         if train.base_batch_size else 1.)),
      accumulation_steps=train.accumulation_steps)


def policies(config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
  """The augmentation policies of all views of an image: two large ones, then any small ones."""
  small = config.view_small.to_dict()
  return [config.view1.to_dict(), config.view2.to_dict(), *[small] * small['count']]


def _objective(train: ml_collections.ConfigDict) -> Callable[..., jax.Array]:
  options = plain(train.objective_options)
  return functools.partial(
      plugins.function('objectives', train.objective, 'loss', options), **options)


def _optimizer(train: ml_collections.ConfigDict, peak_learning_rate: float
               ) -> optax.GradientTransformation:
  options = plain(train.optimizer_options)
  built = plugins.function('optimizers', train.optimizer, 'build', options)(**options)
  return with_multipliers(
      built, predictor_rate=peak_learning_rate if train.constant_predictor_rate else None,
      **train.learning_rate_multipliers)


def center_views(data: Mapping[str, Any], form: views.Form):
  """batch -> the views for evaluation [B, H, W, 3], for a config's `data` section."""
  return functools.partial(views.center_views, form=form, image_size=data['image_size'],
                           share=data['center_share'], order=data['center_order'])


def encoder_function(networks: model.Model, data: Mapping[str, Any], form: views.Form):
  """((params, state), batch) -> embeddings [B, D] of the views for evaluation."""
  view = center_views(data, form)
  return lambda variables, batch: networks.encode(*variables, view(batch))


def check_differing(workdir: os.PathLike, step: int, differing: Sequence[str]) -> None:
  """Raises InputError if `differing` (from `differing_keys`) has any lines for a workdir's run."""
  if differing:
    raise InputError(
        f'{workdir} has a run at step {step} with another config. These keys differ '
        '(saved -> given):\n  ' + '\n  '.join(differing) +
        '\nGive the saved values to resume it, or another --workdir to start a new run.')


def check_same_job(config: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
  """Checks that all processes of a job were given the same run. All of them must call it.

  Otherwise they would train different models, or wait for each other forever.

  Raises:
    InputError: on all processes, if the configs or resolved values of any two differ.
  """
  runs = [json.loads(text) for text in processes.allgather_strings(json.dumps([config, resolved]))]
  for process, run in enumerate(runs):
    differing = [line for line in differing_keys(
        *(locations.left_out(flat(config)) for config in (runs[0][0], run[0])))
                 + differing_keys(runs[0][1], run[1], 'resolved.')
                 if not line.startswith(MAY_DIFFER)]
    if differing:
      raise InputError('The processes of the job were given different runs. These keys differ '
                       f'(process 0 -> process {process}):\n  ' + '\n  '.join(differing) +
                       '\nGive all processes the same command.')


def check_pretraining(config: ml_collections.ConfigDict, devices: int) -> None:
  """Checks everything that the config alone determines, except the `data` section.

  Args:
    config: as `experiments/configs/default.py` documents it.
    devices: number of devices over all hosts; it must divide the batch size.

  Raises:
    InputError: a value is out of its range, or values conflict with each other.
  """
  values = config.to_dict()
  ranges.check('', values, PRETRAINING)
  train, networks = values['train'], values['model']
  ranges.check_each('evals.knn', values['evals']['knn'],
                    plugins.constant('evaluators', 'knn', 'RANGES'))
  plugins.function('encoders', networks['encoder'], 'build', networks['encoder_options'])
  plugins.function('objectives', train['objective'], 'loss', train['objective_options'])
  plugins.function('optimizers', train['optimizer'], 'build', train['optimizer_options'])
  model.check(*(networks[key] for key in ('projector', 'predictor', 'small_predictor',
                                          'predictor_output_norm', 'compute_dtype')))
  if train['target_statistics'] != 'batch' and train['target'] != 'moving_average':
    raise InputError(f'train.target_statistics is {train["target_statistics"]!r}, which only '
                     f'train.target moving_average supports, not {train["target"]!r}; set '
                     "train.target_statistics to 'batch'.")
  if networks['small_predictor'] and not values['view_small']['count']:
    raise InputError(f'model.small_predictor is {networks["small_predictor"]} without small views '
                     '(view_small.count is 0); set it to ().')
  if train['warmup_epochs'] >= train['epochs']:
    raise InputError(f'train.warmup_epochs is {train["warmup_epochs"]}, not shorter than the run '
                     f'of train.epochs {train["epochs"]}; lower it. To run only the first steps of '
                     'a longer run, set --config.train.stop_at_step and keep train.epochs.')
  parallel.check_batch_size(train['batch_size'], values['data']['virtual_shards'],
                            parts=train['accumulation_steps'], devices=devices)


def check_data(section: Mapping[str, Any]) -> None:
  """Raises InputError if no split can be read with this `data` section (plain dicts)."""
  ranges.check('data', section, DATA)
  splits.divide_options(section['dataset'], section['options'])


def check_steps(train: ml_collections.ConfigDict, max_steps: int) -> None:
  """Raises InputError if the steps per dispatch do not fit the length of the run."""
  stop, each = train.stop_at_step, train.steps_per_dispatch
  if each > max_steps:
    raise InputError(f'train.steps_per_dispatch cannot be {each} in a run of {max_steps} steps.')
  if stop < max_steps // each * each and stop % each:
    before, after = stop // each * each, (stop // each + 1) * each
    raise InputError(f'train.stop_at_step is {stop}, in the middle of a dispatch of '
                     f'train.steps_per_dispatch {each} steps; stop at '
                     f'{f"{before} or " if before else ""}{after}.')
