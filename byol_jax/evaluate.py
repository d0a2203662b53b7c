"""Evaluates a checkpoint: config + checkpoint -> encoders, data, evaluators -> result files.

Every evaluator is fitted to every encoder that the config names. All choices are made on the
training and validation splits. Then the test split is read once, and every fitted evaluator is
scored on it.
"""

from collections.abc import Callable, Mapping
import functools
import json
import os
from typing import Any, NamedTuple

from etils import epath
import jax
import ml_collections

from byol_jax import build, checkpoint, files, plugins, tensors
from byol_jax.config import MAY_CHANGE, as_json, flat, plain
from byol_jax.distributed import parallel, processes
from byol_jax.evaluation import (
  baselines,
  checks,
  contract,
  feature_store,
  features,
  grids,
  ranked_lists,
  results,
)
from byol_jax.evaluation.contract import FrozenEncoder, Images
from byol_jax.input_pipeline import loading, locations
from byol_jax.input_pipeline.retrieval_lists import Roles
from byol_jax.plots import pictures, tables, titles


class _Job(NamedTuple):
  """What all encoders and evaluators of an evaluation have in common.

  config: config of the evaluation.
  workdir: workdir of the evaluation.
  model: the `model` section of the pretraining's config.
  data: the `data` section of the images that are evaluated.
  load: (split, purpose) -> its loader; the access is logged in the workdir.
  loaders: {split: () -> its loader}; the test split is opened at the first call.
  content: split -> a digest of its images, which are read once for all encoders.
  roles: roles of the images in the test split; None if the data set has no lists.
  """

  config: ml_collections.ConfigDict
  workdir: epath.Path
  model: Mapping[str, Any]
  data: Mapping[str, Any]
  load: Callable[..., loading.Loader]
  loaders: Mapping[str, Callable[[], loading.Loader]]
  content: Callable[[str], str]
  roles: Roles | None


def evaluate(config: ml_collections.ConfigDict, pretrained: str | os.PathLike,
             workdir: str | os.PathLike) -> dict[str, Any]:
  """Evaluates the config's encoders and writes the results.

  Args:
    config: evaluation config as in `experiments/configs/eval/`.
    pretrained: workdir of a pretraining run, whose newest checkpoint is evaluated.
    workdir: folder for results.json, the table results.md, splits_read.jsonl, `features`,
      `grids` with the finished points of the evaluators that train the encoder, and `retrieval`
      with ranked lists. Existing results of other evaluators on the same encoders and data are
      kept.

  Returns:
    The content of results.json. In a job of several processes, all of them take part; the first
    one writes and returns the results, and the others return {}.

  Raises:
    InputError: a problem that the user can fix, such as unlabelled data.
  """
  # Before any folder is made.
  checks.check_evaluation(config)
  pretrained, workdir = files.folder(pretrained), files.writable_folder(workdir)
  build.check_same_job(as_json(config), {})
  checks.check_folders(workdir)
  trees, meta = _newest_checkpoint(pretrained)
  job = _open(config, meta['config'], pretrained, workdir)
  train, validation, test = job.loaders.values()
  check_test = checks.before_encoding(config, job.model, train(), validation(), test, job.roles)
  encoders = baselines.make(config, trees, meta, train())
  features_of = {name: _features(job, name, encoder) for name, encoder in encoders.items()}
  fitted = _fit_all(job, encoders, features_of)
  # Nothing is chosen from here on.
  check_test()
  rows = _score_all(job, fitted, features_of)
  loading.say_left_out(job.loaders)
  found = dict(
      pretrained=str(pretrained), step=meta['step'], config=as_json(config),
      pretraining=meta['config'], digest=meta['digests']['online'], seed=meta['config']['seed'],
      dataset=_data_name(job.data), **_about(job), encoders=rows)
  if not parallel.is_first_process():
    return {}
  # Evaluations in the same workdir share one log, so that none is forgotten.
  return results.write(workdir, dict(found, test_split_reads=loading.reads_of(workdir, 'test')))


def _newest_checkpoint(pretrained: epath.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """The trees `online` and `state` of the newest checkpoint, and its metadata."""
  names = 'online', 'state'
  # One process decides, because others could find a newer checkpoint with another encoder.
  step = parallel.from_first_process(
      checkpoint.latest_valid_step(pretrained, names) if parallel.is_first_process() else 0)
  return checkpoint.restore_trees(pretrained, names, step)


def _open(config, pretraining: Mapping[str, Any], pretrained: epath.Path, workdir: epath.Path
          ) -> _Job:
  """Opens the training and the held-out images, and checks what is known about the data."""
  data = _data_section(config, pretraining['data'])
  build.check_data(data)
  checks.check_batches(config, data['virtual_shards'])
  loading.check_test_split(data)
  load = functools.partial(loading.load, data, workdir=workdir)
  train, validation = load('train', purpose='fitting'), load('validation', purpose='choosing')
  if not config.data.dataset:
    loading.check_pretrained(train, pretrained)
  checks.check_labels(config, train, data['dataset'])
  loaders = dict(train=lambda: train, validation=lambda: validation,
                 test=functools.cache(lambda: load('test', purpose='final scores')))
  return _Job(config, workdir, pretraining['model'], data, load, loaders,
              functools.cache(lambda split: loaders[split]().fingerprint()), loading.roles(data))


def _fit_all(job: _Job, encoders: Mapping[str, FrozenEncoder], features_of: Mapping[str, Any]
             ) -> dict[tuple[str, str], Any]:
  """{(encoder, evaluator): what `fit` returned}."""
  train, fitted = job.loaders['train'](), {}
  roles = job.roles and job.roles._replace(label=None)
  for name, encoder in encoders.items():
    images = _images(job, encoder)
    for evaluator, options in job.config.evaluators.items():
      frozen = name == 'pretrained' and not plugins.has(evaluator, 'TRAINS_ENCODER')
      parallel.print_once(f'evaluating {tables.NAMES[name]}{" (frozen)" * frozen} with '
                          f'{titles.title(evaluator)}')
      context = contract.FitContext(
          train.data.num_classes, contract.restricted(features_of[name], contract.FIT_SPLITS),
          images, functools.partial(_grid, job, name, encoder, evaluator), roles)
      fitted[name, evaluator] = plugins.load('evaluators', evaluator).fit(context, **plain(options))
  return fitted


def _score_all(job: _Job, fitted: Mapping[tuple[str, str], Any], features_of: Mapping[str, Any]
               ) -> dict[str, dict[str, Any]]:
  """{encoder: {evaluator: scores, description and options}}; opens the test split."""
  rows = {name: {} for name in features_of}
  for (name, evaluator), found in fitted.items():
    module = plugins.load('evaluators', evaluator)
    scores = module.evaluate(found, contract.EvalContext(
        contract.restricted(features_of[name], contract.EVAL_SPLITS),
        functools.partial(ranked_lists.keep, folder=job.workdir / pictures.RANKED_FOLDER / name,
                          loaders=job.loaders, roles=job.roles)))
    row = dict(scores, **module.describe(found), options=as_json(job.config.evaluators[evaluator]))
    titles.check_scores(evaluator, row, scores)
    rows[name][evaluator] = row
  return rows


def _features(job: _Job, name: str, encoder: FrozenEncoder) -> Callable[..., contract.Features]:
  """(split, variables=None) -> Features; those of the unchanged encoder are computed only once."""
  train, digest = job.loaders['train'](), _digest(encoder)
  views = build.center_views(train.config, train.data.evaluation_form)
  encode = lambda variables, batch: encoder.encode(variables, views(batch))

  def extract(split: str, variables) -> contract.Features:
    return features.extract(
        encode, variables, job.loaders[split]().evaluation_batches(job.config.batch_size),
        batch_size=job.config.batch_size, devices=jax.local_devices())

  @functools.cache
  def stored(split: str) -> contract.Features:
    loader = job.loaders[split]()
    found, left_out = feature_store.load_or_make(
        job.workdir / 'features', _deciding(job, name, digest, split),
        lambda: (extract(split, encoder.variables), sorted(loader.names)))
    if parallel.is_first_process():
      # The first process reports the names of all processes, so each is counted once.
      loader.names.update(left_out)
    else:
      loader.names.clear()
    return found

  return lambda split, variables=None: (
      stored(split) if variables is None else extract(split, variables))


def _deciding(job: _Job, name: str, digest: str, split: str) -> dict[str, Any]:
  """What the features of a split depend on, for an unchanged encoder."""
  data = job.loaders[split]().data
  return dict(kind=name, encoder=digest, model=job.model,
              data=feature_store.deciding(flat(dict(data=job.data))), split=split,
              images=data.num_examples, content=job.content(split))


def _images(job: _Job, encoder: FrozenEncoder) -> Images:
  """The training images, for evaluators that train on augmented views."""
  of = lambda loader, with_validation=None: Images(
      encoder, loader.train_batches, loader.single_views, loader.data.num_examples,
      loader.config['image_size'], loader.labels, with_validation)
  return of(job.loaders['train'](), lambda: of(job.load('train+validation', purpose='refit')))


def _grid(job: _Job, name: str, encoder: FrozenEncoder, evaluator: str) -> grids.Grid:
  """The store of an evaluator's grid points, identified by what decides their scores."""
  data = {key: value for key, value in locations.left_out(flat(dict(data=job.data))).items()
          if not key.startswith(MAY_CHANGE)}
  return grids.Grid(evaluator, job.workdir / 'grids' / name / f'{evaluator}.jsonl',
                    dict(encoder=_digest(encoder), model=job.model, data=data,
                         content=[job.content(split) for split in contract.FIT_SPLITS]))


def _digest(encoder: FrozenEncoder) -> str:
  """Digest of the encoder's variables; raw pixels have no variables."""
  return tensors.digest(dict(zip(('params', 'state'), encoder.variables)))


def _about(job: _Job) -> dict[str, Any]:
  """What the results report about their images; all processes must call this function."""
  train = job.loaders['train']().data
  return dict(
      content=[job.content(split) for split in job.loaders],
      images={name: load().data.num_examples for name, load in job.loaders.items()},
      # Sets of names, because stored features already have the names of all processes.
      unreadable={name: len(set().union(*map(json.loads, processes.allgather_strings(
          json.dumps(sorted(load().names)))))) for name, load in job.loaders.items()},
      # A line that counts the files without an image's extension; '' if there are none.
      left_out={name: load().data.left_out for name, load in job.loaders.items()},
      # With several labels per image, there is a chance level only for single classes.
      chance=None if train.multi_label else 1 / train.num_classes)


def _data_section(config, pretraining: Mapping[str, Any]) -> dict[str, Any]:
  """The `data` section of the pretraining, updated with the settings of the evaluation."""
  data = dict(pretraining)
  own = config.data.to_dict()
  moved = own.pop('locations')
  if not own['dataset']:
    own['options'] = locations.given(data['dataset'], data['options'], moved)
  data.update({key: value for key, value in own.items() if value or key == 'options'})
  return plain(data)


def _data_name(data: Mapping[str, Any]) -> str:
  """The data set's name for tables: name or format, NAME of folders NAME/train, or the module."""
  options = data['options']
  folder = os.path.basename(os.path.dirname(str(options.get('train') or '')))
  return options.get('name') or options.get('format') or folder or data['dataset']
