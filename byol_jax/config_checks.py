"""What no pretraining run can have, said before it begins."""

import math

import ml_collections

from byol_jax import augment, datasets, normalization, schedules
from byol_jax.errors import InputError
from byol_jax.train_step import TARGETS


def check_values(config: ml_collections.ConfigDict,
                 data: datasets.Split | datasets.Stream) -> None:
  """Raises InputError for a value that no run could have."""
  train = config.train
  for name, value, possible in (
      ('train.batch_size', train.batch_size, train.batch_size >= 1), ('train.epochs', train.epochs,
       train.epochs > 0), ('train.warmup_epochs', train.warmup_epochs, train.warmup_epochs >= 0),
      ('seed', config.seed, 0 <= config.seed < 2 ** 31),
      ('checkpoint.every_epochs', config.checkpoint.every_epochs,
       config.checkpoint.every_epochs >= 0),
      ('evals.every_epochs', config.evals.every_epochs, config.evals.every_epochs >= 0),
      ('log.every_steps', config.log.every_steps, config.log.every_steps >= 0),
      ('train.base_tau', train.base_tau, 0 <= train.base_tau <= 1),
      ('train.tau_schedule', train.tau_schedule, train.tau_schedule in schedules.TAU_SCHEDULES),
      ('train.target', train.target, train.target in TARGETS),
      ('train.target_statistics', train.target_statistics,
       train.target_statistics in normalization.TARGET_STATISTICS),
      ('train.target_statistics', f'{train.target_statistics} with train.target {train.target}',
       train.target_statistics == 'batch' or train.target == 'moving_average'),
      ('model.initial_scale', config.model.initial_scale,
       0 < config.model.initial_scale < math.inf),
      ('model.small_predictor', f'{config.model.small_predictor} without small views '
       '(view_small.count is 0)',
       config.view_small.count > 0 or not config.model.small_predictor),
      ('train.base_batch_size', train.base_batch_size, train.base_batch_size >= 0),
      *((f'train.learning_rate_multipliers.{head}', factor, factor >= 0)
        for head, factor in train.learning_rate_multipliers.items()),
      ('train.stop_at_step', train.stop_at_step, train.stop_at_step >= 0),
      ('train.accumulation_steps', train.accumulation_steps, train.accumulation_steps >= 1),
      ('data.image_size', config.data.image_size, config.data.image_size >= 1),
      ('data.options.label_key', 'several classes for one image', not data.multi_label),
      ('checkpoint.keep_last', config.checkpoint.keep_last, config.checkpoint.keep_last >= 1)):
    if not possible:
      raise InputError(f'{name} cannot be {value}.')
  for name in ('view1', 'view2', 'view_small'):
    augment.check_policy(name, config[name].to_dict())


def check_dispatches(train: ml_collections.ConfigDict, max_steps: int) -> None:
  """Raises InputError for steps per dispatch that the run has not."""
  stop, each = train.stop_at_step, train.steps_per_dispatch
  if not 1 <= each <= max_steps:
    raise InputError(f'train.steps_per_dispatch cannot be {each} in a run of {max_steps} steps.')
  if stop < max_steps // each * each and stop % each:
    raise InputError(f'train.stop_at_step is {stop}, in the middle of a dispatch of '
                     f'train.steps_per_dispatch {each} steps; stop at {stop // each * each or each}'
                     f' or {(stop // each + 1) * each}.')
