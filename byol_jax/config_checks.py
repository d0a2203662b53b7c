"""What a run's config can be: a range for every key, and what several keys cannot be together.

The ranges of a plug-in's options stand in its module (`plugins.function`).
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from byol_jax import augment, model, normalization, parallel, plugins, ranges, schedules
from byol_jax.errors import InputError
from byol_jax.evaluators import knn, titles
from byol_jax.input_pipeline import PIPELINES
from byol_jax.ranges import OPTIONS, OneOf, Range, Several, Table, number, whole
from byol_jax.train_step import TARGETS

ENCODERS = ('pretrained', 'random', 'pixels', 'supervised')
_ON_UNREADABLE, _CENTER_ORDERS = ('stop', 'skip'), ('resize_first', 'crop_first')
_ON_CHANGED = OneOf(('stop', 'accept'))
_TEXTS = Several(ranges.TEXT, least=0, order='each once')

DATA = dict(
    dataset=plugins.Module('datasets'), options=OPTIONS, pipeline=OneOf(PIPELINES),
    workers=whole(0), unreadable=OneOf(_ON_UNREADABLE), changed_files=_ON_CHANGED,
    image_size=ranges.SIDE,
    resize=OneOf(('bicubic', 'bilinear')), center_share=number(.01, 1),
    center_order=OneOf(_CENTER_ORDERS), virtual_shards=whole(1))

PRETRAINING = dict(
    seed=ranges.SEED,
    data=DATA,
    model=model.RANGES,
    view1=augment.RANGES,
    view2=augment.RANGES,
    view_small=augment.SMALL_RANGES,
    train=dict(
        objective=plugins.Module('objectives'), objective_options=OPTIONS,
        epochs=ranges.POSITIVE, batch_size=whole(1), base_learning_rate=ranges.NOT_NEGATIVE,
        warmup_epochs=ranges.NOT_NEGATIVE, weight_decay=ranges.DECAY, eta=number(0, 1000, '(]'),
        momentum=ranges.MOMENTUM,
        learning_rate_multipliers=dict(projector=ranges.FACTOR, predictor=ranges.FACTOR),
        base_tau=ranges.SHARE, tau_schedule=OneOf(schedules.TAU_SCHEDULES),
        target=OneOf(TARGETS), target_statistics=OneOf(normalization.TARGET_STATISTICS),
        base_batch_size=whole(0), accumulation_steps=whole(1), steps_per_dispatch=whole(1),
        stop_at_step=whole(0)),
    evals=dict(
        every_epochs=ranges.NOT_NEGATIVE, batch_size=whole(1),
        knn={key: knn.RANGES[key] for key in ('k', 'temperature')}, afterwards=_TEXTS),
    log=dict(every_steps=whole(0)),
    checkpoint=dict(every_epochs=ranges.NOT_NEGATIVE, keep_last=whole(1), keep_best=whole(0)))

EVALUATION = dict(
    seed=ranges.SEED,
    batch_size=whole(1),
    encoders=Several(OneOf(ENCODERS), order='each once'),
    data=dict(
        dataset=ranges.or_empty(plugins.Module('datasets')), options=OPTIONS,
        pipeline=OneOf((*PIPELINES, '')), virtual_shards=whole(0), workers=whole(0),
        unreadable=OneOf((*_ON_UNREADABLE, '')), image_size=whole(0, ranges.SIDE.high),
        center_share=ranges.SHARE, center_order=OneOf((*_CENTER_ORDERS, '')),
        locations=ranges.or_empty(ranges.TEXT), changed_files=_ON_CHANGED),
    evaluators=OPTIONS,
    supervised=dict(
        epochs=ranges.POSITIVE, batch_size=whole(1), base_learning_rate=ranges.POSITIVE,
        momentum=ranges.MOMENTUM, weight_decay=ranges.DECAY, view=augment.CROP_RANGES))


def check_pretraining(config: ml_collections.ConfigDict, devices: int) -> None:
  """Checks all that can be known of a pretraining from its config but `check_data`.

  Args:
    config: as `experiments/configs/default.py` documents it.
    devices: over all hosts, which must divide the batch.

  Raises:
    InputError: a value out of its range, or values that cannot be together.
  """
  values = config.to_dict()
  ranges.check('', values, PRETRAINING)
  train, networks = values['train'], values['model']
  plugins.function('encoders', networks['encoder'], 'build', networks['encoder_options'])
  plugins.function('objectives', train['objective'], 'loss', train['objective_options'])
  model.check(*(networks[key] for key in ('projector', 'predictor', 'small_predictor',
                                          'compute_dtype')))
  if train['target_statistics'] != 'batch' and train['target'] != 'moving_average':
    raise InputError(f'train.target_statistics is {train["target_statistics"]!r}, which only the '
                     f'target moving_average has, and train.target {train["target"]!r}; set '
                     "train.target_statistics to 'batch'.")
  if networks['small_predictor'] and not values['view_small']['count']:
    raise InputError(f'model.small_predictor is {networks["small_predictor"]} without small views '
                     '(view_small.count is 0); set it to ().')
  if train['warmup_epochs'] >= train['epochs']:
    raise InputError(f'train.warmup_epochs is {train["warmup_epochs"]}, not shorter than the run '
                     f'of train.epochs {train["epochs"]}; lower it. For the first steps of a '
                     'longer run set --config.train.stop_at_step and leave the epochs.')
  parallel.check_batch_size(train['batch_size'], values['data']['virtual_shards'],
                            parts=train['accumulation_steps'], devices=devices)


def check_data(section: Mapping[str, Any]) -> None:
  """Raises InputError for a `data` section of plain dicts that no split can be read with."""
  ranges.check('data', section, DATA)
  plugins.function('datasets', section['dataset'], 'load', section['options'])


def check_evaluation(config: ml_collections.ConfigDict) -> None:
  """Checks all that can be known of an evaluation from its config alone.

  Raises:
    InputError: a value out of its range, values that cannot be together, or nothing to judge.
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
    if _is(name, 'TRAINS_ENCODER') and 'pixels' in values['encoders']:
      raise InputError(f'Evaluator {name} trains the encoder, and raw pixels have none; leave '
                       "'pixels' out of config.encoders.")
  if values['data']['dataset']:
    plugins.function('datasets', values['data']['dataset'], 'load', values['data']['options'])


def check_batches(config: ml_collections.ConfigDict, virtual_shards: int) -> None:
  """Raises InputError for a batch of an evaluation's training that cannot be divided."""
  batches = {f'evaluators.{name}.batch_size': options.batch_size
             for name, options in config.evaluators.items()
             if _is(name, 'TRAINS_ENCODER') or _is(name, 'TRAINS_ON_IMAGES')}
  if 'supervised' in config.encoders:
    batches['supervised.batch_size'] = config.supervised.batch_size
  for name, batch_size in batches.items():
    parallel.check_batch_size(batch_size, virtual_shards, name)


def _is(evaluator: str, what: str) -> bool:
  """Whether an evaluator's module says so."""
  return getattr(plugins.load('evaluators', evaluator), what, False)


def table_of(config: ml_collections.ConfigDict) -> Table:
  """The ranges of a pretraining's or evaluation's keys, those of its plug-ins' options too."""
  own = lambda kind, name: getattr(plugins.load(kind, name), 'RANGES', {}) if name else {}
  options = own('datasets', config.data.dataset)
  if 'evaluators' in config:
    return EVALUATION | dict(
        data=EVALUATION['data'] | dict(options=options),
        evaluators={name: own('evaluators', name) for name in config.evaluators})
  return PRETRAINING | dict(
      data=DATA | dict(options=options),
      model=model.RANGES | dict(encoder_options=own('encoders', config.model.encoder)),
      train=PRETRAINING['train'] | dict(
          objective_options=own('objectives', config.train.objective)))


def range_of(config: ml_collections.ConfigDict, key: str) -> Range | None:
  """The range of a key such as 'train.epochs'; None where a plug-in says nothing of it."""
  found = table_of(config)
  for part in key.split('.'):
    found = found.get(part) if isinstance(found, Mapping) else None
  return None if isinstance(found, Mapping) else found


def is_path(config: ml_collections.ConfigDict, key: str) -> bool:
  """Whether a key such as 'data.options.train' is a path."""
  found = range_of(config, key)
  return ranges.PATH in (found, getattr(found, 'first', None))


def check_steps(train: ml_collections.ConfigDict, max_steps: int) -> None:
  """Raises InputError for steps per dispatch that the run has not."""
  stop, each = train.stop_at_step, train.steps_per_dispatch
  if each > max_steps:
    raise InputError(f'train.steps_per_dispatch cannot be {each} in a run of {max_steps} steps.')
  if stop < max_steps // each * each and stop % each:
    raise InputError(f'train.stop_at_step is {stop}, in the middle of a dispatch of '
                     f'train.steps_per_dispatch {each} steps; stop at {stop // each * each or each}'
                     f' or {(stop // each + 1) * each}.')
