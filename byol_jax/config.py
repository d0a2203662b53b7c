"""Configs as dicts: flat keys, overrides and differences."""

from collections.abc import Mapping, Sequence
import difflib
from typing import Any

import ml_collections

from byol_jax import model, plugins, ranges, schedules
from byol_jax.augment.views import CROP_RANGES, RANGES, SMALL_RANGES
from byol_jax.errors import InputError
from byol_jax.input_pipeline.batches import PIPELINES
from byol_jax.losses import targets
from byol_jax.ranges import OPTIONS, OneOf, Range, Several, Table, number, whole

# Keys that may change when a run is resumed: they do not affect the weights.
MAY_CHANGE = ('log.', 'checkpoint.', 'evals.', 'resolved.checkpoint_every',
              'resolved.evaluate_every', 'resolved.devices', 'train.stop_at_step',
              'data.workers', 'data.unreadable', 'data.changed_files', 'data.options.test')
# Keys that may differ between the processes of a job, besides the location of the data.
MAY_DIFFER = ('data.workers', 'data.locations')
# Values derived from the data files; not compared if the files are the same or accepted.
FOLLOWS_FROM_FILES = ('resolved.num_examples', 'resolved.steps_per_epoch', 'resolved.max_steps',
                      'resolved.warmup_steps')


def overridden(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
               ) -> ml_collections.ConfigDict:
  """Returns the config with keys such as 'train.epochs' set; the types stay the same.

  Raises:
    InputError: the config does not have a key, or a value has another type.
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
      if not isinstance(error, KeyError) and (allowed := range_of(config, path)):
        raise InputError(f'config.{path} is {value!r}; it can be {allowed}.') from error
      known = [k for k in flat(as_json(config))]
      nearest = difflib.get_close_matches(path, known, n=1, cutoff=0.)
      raise InputError(f'config.{path} cannot be set to {value!r} ({type(error).__name__}); the '
                       f'nearest key is config.{nearest[0]}.') from error
  return config


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Flattens a config: {'train': {'epochs': 1.0}} -> {'train.epochs': 1.0}."""
  result = {}
  for key, value in config.items():
    inside = isinstance(value, Mapping) and value
    result |= flat(value, f'{prefix}{key}.') if inside else {prefix + key: value}
  return result


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
  """The flat config, without the keys of small views if there are no small views."""
  keys = flat(config)
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
    elif old != new and not (old != old and new != new):  # NaN != NaN
      lines.append(f'{prefix}{key}: {old} -> {new}')
  return lines


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as it reads back from JSON: tuples become lists."""
  return _listed(config.to_dict())


def _listed(value):
  if isinstance(value, Mapping):
    return {key: _listed(inner) for key, inner in value.items()}
  return [_listed(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(
      value, str) else value


def plain(value):
  """Converts config and JSON values to what the library takes: dicts and tuples."""
  if isinstance(value, ml_collections.ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {key: plain(inner) for key, inner in value.items()}
  return tuple(map(plain, value)) if isinstance(value, list) else value


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
    view1=RANGES,
    view2=RANGES,
    view_small=SMALL_RANGES,
    train=dict(
        objective=plugins.Module('objectives'), objective_options=OPTIONS,
        epochs=ranges.POSITIVE, batch_size=whole(1), base_learning_rate=ranges.NOT_NEGATIVE,
        warmup_epochs=ranges.NOT_NEGATIVE,
        optimizer=plugins.Module('optimizers'), optimizer_options=OPTIONS,
        learning_rate_multipliers=dict(projector=ranges.FACTOR, predictor=ranges.FACTOR,
                                       biases_and_norms=ranges.FACTOR),
        constant_predictor_rate=ranges.FLAG,
        base_tau=ranges.SHARE, tau_schedule=OneOf(schedules.TAU_SCHEDULES),
        target=OneOf(tuple(targets.TARGETS)), target_statistics=OneOf(tuple(targets.STATISTICS)),
        base_batch_size=whole(0), accumulation_steps=whole(1), steps_per_dispatch=whole(1),
        stop_at_step=whole(0)),
    evals=dict(
        every_epochs=ranges.NOT_NEGATIVE, batch_size=whole(1),
        knn=OPTIONS, afterwards=_TEXTS),
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
        momentum=ranges.MOMENTUM, weight_decay=ranges.DECAY, view=CROP_RANGES))


def plugin_options(kind: str, name: str) -> ml_collections.ConfigDict:
  """The OPTIONS of a plug-in; one that is None takes a value of the type that its range has.

  Args:
    kind: one of `plugins.FUNCTIONS`.
    name: a module of that kind, or a dotted path.

  Raises:
    InputError: no such module, or one without OPTIONS or RANGES.
  """
  allowed = plugins.constant(kind, name, 'RANGES')

  def empty(key):
    other = allowed[key].first
    return ml_collections.config_dict.placeholder(
        str if isinstance(other, ranges.Text) else int if other.whole else float)

  return ml_collections.ConfigDict(
      {key: empty(key) if value is None else value
       for key, value in plugins.constant(kind, name, 'OPTIONS').items()}, convert_dict=True)


def table_of(config: ml_collections.ConfigDict) -> Table:
  """The ranges of all keys of a pretraining or evaluation config, with its plug-ins' options."""
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
          objective_options=own('objectives', config.train.objective),
          optimizer_options=own('optimizers', config.train.optimizer)),
      evals=PRETRAINING['evals'] | dict(knn=own('evaluators', 'knn')))


def range_of(config: ml_collections.ConfigDict, key: str) -> Range | None:
  """The range of a key such as 'train.epochs'; None if its plug-in does not declare one."""
  found = table_of(config)
  for part in key.split('.'):
    found = found.get(part) if isinstance(found, Mapping) else None
  return None if isinstance(found, Mapping) else found


def is_path(config: ml_collections.ConfigDict, key: str) -> bool:
  """Whether a key such as 'data.options.train' is a path."""
  found = range_of(config, key)
  return ranges.PATH in (found, getattr(found, 'first', None))
