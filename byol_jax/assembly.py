"""From a config to the parts of a run: what the numbers in it come to, and the functions."""

from collections.abc import Callable, Mapping, Sequence
import difflib
import functools
import json
import os
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import (
  augment,
  config_checks,
  datasets,
  input_pipeline,
  locations,
  model,
  optimizers,
  plugins,
  processes,
  schedules,
)
from byol_jax.errors import InputError
from byol_jax.train_step import Recipe

# Keys that may change when a run is resumed: they leave the weights alone.
MAY_CHANGE = ('log.', 'checkpoint.', 'evals.', 'resolved.checkpoint_every',
              'resolved.evaluate_every', 'resolved.devices', 'train.stop_at_step',
              'data.workers', 'data.unreadable', 'data.changed_files', 'data.options.test')

# Keys in which the processes of a job may differ, besides where each finds the data.
MAY_DIFFER = ('data.workers', 'data.locations')

# What the files of the data come to, if those are known to be the same or are accepted.
FOLLOWS_FROM_FILES = ('resolved.num_examples', 'resolved.steps_per_epoch', 'resolved.max_steps',
                      'resolved.warmup_steps')


# Keys that configs saved before them lack, with what the code did then. Digests of a sweep's
# points leave these out at these values, so that the points of older sweeps stay theirs, ...
ADDED_LATER = {
    'model.normalization': 'batch', 'model.initial_scale': 1.0, 'model.small_predictor': [],
    'train.objective_options': {}, 'train.learning_rate_multipliers.projector': 1.0,
    'train.learning_rate_multipliers.predictor': 1.0, 'train.target_statistics': 'batch',
    'train.base_batch_size': 0, 'view_small.count': 0,
}
# ... which have had the others as long as there have been sweeps.
OLDER = MappingProxyType(ADDED_LATER | {
    'data.center_order': 'crop_first', 'data.center_share': 1., 'data.resize': 'bicubic',
    'data.unreadable': 'stop', 'data.workers': 0, 'data.options.cache_dir': None,
    'data.options.held_out_per_class': 0, 'data.options.ignored_label_key': '',
    'data.options.image_id_key': '', 'data.options.subset_seed': 0,
    'data.options.subset_share': 1., 'data.options.validation_name': '',
    'model.encoder_options.rematerialize': False, 'train.accumulation_steps': 1,
    'train.steps_per_dispatch': 1, 'train.stop_at_step': 0, 'train.target': 'moving_average',
    'train.tau_schedule': 'cosine'})


class Resolved(NamedTuple):
  """What the config comes to with this data set and these devices.

  num_examples: training images.
  num_classes: 0 for unlabelled data.
  steps_per_epoch: num_examples / batch_size.
  max_steps: steps of the run.
  warmup_steps: steps until the peak learning rate.
  peak_learning_rate: base_learning_rate * batch_size / 256.
  checkpoint_every: steps; 0 for the last only.
  evaluate_every: steps; 0 for never.
  devices: over all hosts.
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


def resolve(config: ml_collections.ConfigDict, data: datasets.Split | datasets.Stream) -> Resolved:
  """Epochs to steps, learning rate to this batch; checks what must fit together.

  Raises:
    InputError: what `config_checks.check_pretraining` refuses, images with several labels, no
      step in the run, a warm-up as long as the run, or fewer images than virtual shards or the
      neighbours of kNN.
  """
  config_checks.check_pretraining(config, jax.device_count())
  train, batch_size = config.train, config.train.batch_size
  if data.multi_label:
    raise InputError('data.options.label_key names several classes for one image, which the '
                     "online classifier does not take; set it to '' for unlabelled images.")
  to_steps = functools.partial(schedules.num_steps, num_examples=data.num_examples,
                               batch_size=batch_size)
  max_steps, warmup_steps = to_steps(train.epochs), to_steps(train.warmup_epochs)
  input_pipeline.check_count(data.num_examples, config.data.virtual_shards)
  if max_steps < 1:
    raise InputError(f'{train.epochs} epochs of {data.num_examples} images at batch '
                     f'{batch_size} make no step; raise train.epochs or lower train.batch_size.')
  if warmup_steps >= max_steps:
    raise InputError(f'The warm-up of {train.warmup_epochs} epochs ({warmup_steps} steps) is not '
                     f'shorter than the run of {train.epochs} epochs ({max_steps} steps); lower '
                     'train.warmup_epochs. For the first steps of a longer run set '
                     'train.stop_at_step and leave the epochs.')
  config_checks.check_steps(train, max_steps)
  labelled = data.num_classes > 0
  evaluate_every = to_steps(config.evals.every_epochs) if labelled else 0
  if labelled and config.evals.every_epochs and config.evals.knn.k > data.num_examples:
    raise InputError(f'evals.knn.k is {config.evals.knn.k} with {data.num_examples} training '
                     f'images; set it to at most {data.num_examples}, or evals.every_epochs to 0.')
  return Resolved(
      num_examples=data.num_examples, num_classes=data.num_classes,
      steps_per_epoch=data.num_examples / batch_size, max_steps=max_steps,
      warmup_steps=warmup_steps, peak_learning_rate=train.base_learning_rate * batch_size / 256,
      checkpoint_every=(max(1, to_steps(config.checkpoint.every_epochs))
                        if config.checkpoint.every_epochs else 0),
      evaluate_every=max(1, evaluate_every) if labelled and config.evals.every_epochs else 0,
      devices=jax.device_count())


def build_model(config: Mapping[str, Any], num_classes: int) -> model.Model:
  """The networks of a config's `model` section, as a plain or a config dict."""
  return model.build(num_classes=num_classes,
                     **{key: plain(value) for key, value in config.items()})


def build_recipe(config: ml_collections.ConfigDict, resolved: Resolved) -> Recipe:
  """The functions of a pretraining run."""
  train = config.train
  dtype = jnp.promote_types(jnp.dtype(config.model.compute_dtype), jnp.float32)
  return Recipe(
      model=build_model(config.model, resolved.num_classes),
      # Named, so that profiles tell it from the networks.
      views=jax.named_scope('views')(functools.partial(
          augment.views, seed=config.seed, policies=policies(config),
          image_size=config.data.image_size, dtype=dtype)),
      objective=_objective(train),
      optimizer=optimizers.lars(weight_decay=train.weight_decay, eta=train.eta,
                                momentum=train.momentum,
                                multipliers=train.learning_rate_multipliers.to_dict()),
      learning_rate=functools.partial(
          schedules.learning_rate, base_learning_rate=train.base_learning_rate,
          batch_size=train.batch_size, warmup_steps=resolved.warmup_steps,
          max_steps=resolved.max_steps),
      tau=functools.partial(schedules.tau, base_tau=train.base_tau,
                            max_steps=resolved.max_steps, schedule=train.tau_schedule,
                            batch_ratio=(train.batch_size / train.base_batch_size
                                         if train.base_batch_size else 1.)),
      target=train.target, accumulation_steps=train.accumulation_steps,
      target_statistics=train.target_statistics)


def policies(config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
  """Of all views of an image: the two large ones, then any small ones."""
  small = config.view_small.to_dict()
  return [config.view1.to_dict(), config.view2.to_dict(), *[small] * small['count']]


def _objective(train: ml_collections.ConfigDict) -> Callable[..., jax.Array]:
  options = plain(train.objective_options)
  return functools.partial(
      plugins.function('objectives', train.objective, 'loss', options), **options)


def center_views(data: Mapping[str, Any]):
  """batch -> the views for evaluation [B, H, W, 3] of a config's `data` section."""
  return functools.partial(augment.center_views, image_size=data['image_size'],
                           share=data['center_share'], order=data['center_order'])


def encoder_function(networks: model.Model, data: Mapping[str, Any]):
  """((params, state), batch) -> embeddings [B, D] of the views for evaluation."""
  views = center_views(data)
  return lambda variables, batch: networks.encode(*variables, views(batch))


def build_single_view(policy: Mapping[str, Any], seed: int, image_size: int):
  """batch -> one view of it [B, H, W, 3]: crop and flip, the supervised augmentation."""
  return functools.partial(augment.crop_and_flip, seed=seed, policy=plain(policy),
                           image_size=image_size)


def overridden(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
               ) -> ml_collections.ConfigDict:
  """The config with keys such as 'train.epochs' set; the config keeps its types.

  Raises:
    InputError: a key that the config has not, or a value of another type.
  """
  for path, value in overrides.items():
    *sections, key = path.split('.')
    section = config
    try:
      for name in sections:
        section = section[name]
      if key not in section:
        raise KeyError(key)
      with section.unlocked():
        section[key] = value
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
      if not isinstance(error, KeyError) and (allowed := config_checks.range_of(config, path)):
        raise InputError(f'config.{path} is {value!r}; it can be {allowed}.') from error
      known = [k for k in flat(as_json(config))]
      nearest = difflib.get_close_matches(path, known, n=1, cutoff=0.)
      raise InputError(f'config.{path} cannot be set to {value!r} ({type(error).__name__}); the '
                       f'nearest key is config.{nearest[0]}.') from error
  return config


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'train.epochs': 1.0} for {'train': {'epochs': 1.0}}."""
  result = {}
  for key, value in config.items():
    inside = isinstance(value, Mapping) and value
    result |= flat(value, f'{prefix}{key}.') if inside else {prefix + key: value}
  return result


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """The flat config of a run, an older one too, with all keys of today that decide something."""
  return deciding(dict(OLDER) | flat(config))


def deciding(keys: Mapping[str, Any]) -> dict[str, Any]:
  """A flat config without what small views are like, where there are none."""
  return {key: value for key, value in keys.items() if keys['view_small.count']
          or not key.startswith('view_small.') or key == 'view_small.count'}


def differing_keys(saved: Mapping[str, Any], current: Mapping[str, Any], prefix: str = ''
                   ) -> list[str]:
  """Lines 'key: saved value -> current value' for the keys that differ."""
  lines = []
  for key in sorted({*saved, *current}):
    old, new = saved.get(key, '(absent)'), current.get(key, '(absent)')
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      lines += differing_keys(old, new, f'{prefix}{key}.')
    elif old != new and not (old != old and new != new):  # NaN is not itself
      lines.append(f'{prefix}{key}: {old} -> {new}')
  return lines


def check_differing(workdir: os.PathLike, step: int, differing: Sequence[str]) -> None:
  """Raises InputError where there are lines of `differing_keys` for the run in a workdir."""
  if differing:
    raise InputError(
        f'{workdir} holds a run at step {step} with another config. These keys differ '
        '(saved -> given):\n  ' + '\n  '.join(differing) +
        '\nGive the saved values to resume it, or another --workdir to start anew.')


def completed_data(data: Mapping[str, Any]) -> dict[str, Any]:
  """A saved `data` section with the keys of OLDER that it lacks; its options as they are."""
  named = {key.removeprefix('data.'): value for key, value in OLDER.items()
           if key.startswith('data.') and not key.startswith('data.options.')}
  return named | dict(data)


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as JSON gives it back: tuples become lists."""
  return _listed(config.to_dict())


def check_same_job(config: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
  """Checks that all processes of a job were given the same run; all of them call it.

  They would train apart from each other, or wait for each other for ever.

  Raises:
    InputError: on all processes, where the configs of two differ, or what they come to.
  """
  runs = [json.loads(text) for text in processes.texts_of_all(json.dumps([config, resolved]))]
  for process, run in enumerate(runs):
    differing = [line for line in differing_keys(
        *(locations.left_out(flat(config)) for config in (runs[0][0], run[0])))
                 + differing_keys(runs[0][1], run[1], 'resolved.')
                 if not line.startswith(MAY_DIFFER)]
    if differing:
      raise InputError('The processes of the job were given different runs. These keys differ '
                       f'(process 0 -> process {process}):\n  ' + '\n  '.join(differing) +
                       '\nGive all processes the same command.')


def _listed(value):
  if isinstance(value, Mapping):
    return {key: _listed(inner) for key, inner in value.items()}
  return [_listed(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(
      value, str) else value


def plain(value):
  """Config and JSON values as the library takes them: dicts and tuples."""
  if isinstance(value, ml_collections.ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {key: plain(inner) for key, inner in value.items()}
  return tuple(map(plain, value)) if isinstance(value, list) else value
