"""Config + checkpoint -> encoders, data, evaluators -> result files.

Every encoder that the config names is judged by every evaluator, frozen or as what training
starts from. All choices are made on the training and validation splits; then the test split
is read once, and each fitted evaluator scores it.
"""

from collections.abc import Mapping
import functools
import os
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from byol_jax import build, checkpoint, files, plugins, tensors
from byol_jax.config import MAY_CHANGE, as_json, flat, plain
from byol_jax.distributed import parallel
from byol_jax.evaluation import (
  baselines,
  checks,
  feature_store,
  features,
  grids,
  ranked_lists,
  results,
)
from byol_jax.evaluation.contract import Features, Images
from byol_jax.input_pipeline import loading, locations
from byol_jax.input_pipeline.records import Split
from byol_jax.plots import pictures, tables, titles


def evaluate(config: ml_collections.ConfigDict, pretrained: str | os.PathLike,
             workdir: str | os.PathLike) -> dict[str, Any]:
  """Judges the config's encoders and writes the results.

  Args:
    config: as in `experiments/configs/eval/`.
    pretrained: workdir of a pretraining run, whose newest checkpoint is judged.
    workdir: gets results.json, a table as results.md, splits_read.jsonl, `features`, in
      `grids` the finished points of the evaluators that train the encoder, and in `retrieval`
      ranked lists. Results of other evaluators on the same encoders and data, which are there
      already, stay.

  Returns:
    What results.json holds. In a job of several processes all take part, and the first
    one writes and returns the results; the others return {}.

  Raises:
    InputError: what the user can fix, unlabelled data among it.
  """
  # Before there is a folder.
  checks.check_evaluation(config)
  workdir = files.writable_folder(workdir)
  build.check_same_job(as_json(config), {})
  checks.check_folders(workdir)
  names = 'online', 'state'
  # One process decides: others could find a newer checkpoint, and judge another encoder.
  step = parallel.from_first_process(
      checkpoint.newest_sound(pretrained, names) if parallel.is_first_process() else 0)
  trees, meta = checkpoint.restore_trees(pretrained, names, step)
  data = _data_section(config, meta['config']['data'])
  build.check_data(data)
  checks.check_batches(config, data['virtual_shards'])
  load = functools.partial(loading.load, data, workdir=workdir)
  loading.check_test_split(data)
  train, validation = load('train', purpose='fitting'), load('validation', purpose='choosing')
  if not config.data.dataset:
    loading.check_pretrained(train, files.folder(pretrained))
  checks.check_labels(config, train, data['dataset'])
  roles = loading.roles(data)
  test = functools.cache(lambda: load('test', purpose='final scores'))
  check_test = checks.before_encoding(
      config, meta['config']['model'], train, validation, test, roles)
  encoders = baselines.make(config, trees, meta, train)
  loaders = dict(train=lambda: train, validation=lambda: validation, test=test)
  # Read once for all encoders.
  content = functools.cache(lambda split: loaders[split]().content())
  rows = _judge(config, encoders, loaders, lambda: load('train+validation', purpose='refit'),
                functools.partial(_grid, workdir, meta['config']['model'], data, content),
                functools.partial(_store, workdir, meta['config']['model'], data, content),
                roles, check_test, workdir / pictures.RANKED_FOLDER)
  loading.say_left_out(loaders)
  found = dict(
      pretrained=str(files.folder(pretrained)), step=meta['step'],
      config=as_json(config), pretraining=meta['config'],
      digest=meta['digests']['online'], seed=meta['config']['seed'], dataset=_data_name(data),
      **_about(loaders, content), encoders=rows)
  if not parallel.is_first_process():
    return {}
  # Evaluations in the same workdir share one log, so that none is forgotten.
  return results.write(workdir, dict(found, test_split_reads=loading.reads_of(workdir, 'test')))


def _about(loaders, content) -> dict[str, Any]:
  """What results say of their images; all processes call it."""
  train = loaders['train']().data
  return dict(
      content=[content(split) for split in loaders],
      images={name: load().data.num_examples for name, load in loaders.items()},
      unreadable={name: parallel.gather_rows(np.array([len(load().names)])).sum().item()
                  for name, load in loaders.items()},
      # Files that are no images by their names: a line that counts them, '' where there are none.
      left_out={name: load().data.left_out for name, load in loaders.items()},
      # Of images with several labels there is no chance but that of each class.
      chance=None if train.multi_label else 1 / train.num_classes)


def _data_section(config, pretraining: Mapping[str, Any]) -> dict[str, Any]:
  """The `data` section of the pretraining, with what the evaluation says otherwise."""
  data = dict(pretraining)
  own = config.data.to_dict()
  moved = own.pop('locations')
  if not own['dataset']:
    own['options'] = locations.given(data['dataset'], data['options'], moved)
  data.update({key: value for key, value in own.items() if value or key == 'options'})
  return plain(data)


def _data_name(data: Mapping[str, Any]) -> str:
  """As a table calls it: the set's name, of folders NAME/train theirs, or the module's."""
  options = data['options']
  folder = os.path.basename(os.path.dirname(str(options.get('train') or '')))
  return options.get('name') or options.get('format') or folder or data['dataset']


def _judge(config, encoders: Mapping[str, baselines.Judged], loaders, read_both, make_grid,
           make_store, roles, check_test, lists: epath.Path) -> dict[str, dict[str, Any]]:
  """Fits every evaluator to every encoder; then reads the test split, and scores."""
  train = loaders['train']()
  fitted, embedders = {}, {}
  for name, judged in encoders.items():
    embed, frozen = embedders[name] = _embedders(config, judged, train, loaders,
                                                 make_store(name, judged))
    images = _images(judged, train, read_both)
    for evaluator, options in config.evaluators.items():
      arguments = plain(options)
      trains_encoder = plugins.has(evaluator, 'TRAINS_ENCODER')
      called = tables.name_of(name, not trains_encoder).replace(', frozen', ' (frozen)')
      parallel.say(f'evaluating {called} with {titles.title(evaluator)}')
      fit = plugins.function('evaluators', evaluator, 'fit', arguments)
      arguments['num_classes'] = train.data.num_classes
      if trains_encoder:
        found = fit(images, functools.partial(embed, 'validation'),
                    grid=make_grid(name, judged, evaluator), **arguments)
      elif plugins.has(evaluator, 'RETRIEVES'):
        found = fit(functools.partial(frozen, 'train'), functools.partial(frozen, 'validation'),
                    roles=roles, **arguments)
      else:
        on_images = plugins.has(evaluator, 'TRAINS_ON_IMAGES')
        found = fit(images if on_images else frozen('train'), frozen('validation'), **arguments)
      fitted[name, evaluator] = found
  # Nothing is chosen from here on.
  check_test()
  rows = {name: {} for name in encoders}
  for (name, evaluator), found in fitted.items():
    module = plugins.load('evaluators', evaluator)
    embed, frozen = embedders[name]
    test = (functools.partial(embed, 'test') if plugins.has(evaluator, 'TRAINS_ENCODER')
            else frozen('test'))
    options = dict(keep=functools.partial(
        ranked_lists.keep, folder=lists / name, loaders=loaders, roles=roles)
                   ) if plugins.has(evaluator, 'RETRIEVES') else {}
    scores = module.evaluate(found, test, **options)
    row = dict(scores, **module.describe(found),
               options=as_json(config.evaluators[evaluator]))
    titles.check_scores(evaluator, row, scores)
    rows[name][evaluator] = row
  return rows


def _embedders(config, judged: baselines.Judged, train: loading.Loader, loaders, store):
  """(split, variables) -> Features, and split -> those of the encoder as it is, made once.

  `store` is the folder of features, and a function of a split's loader and name that says what
  its features depend on.
  """
  views = build.center_views(train.config)
  encode = lambda variables, batch: judged.encode(variables, views(batch))

  def embed(split: str, variables) -> Features:
    return features.extract(
        encode, variables, loaders[split]().evaluation_batches(config.batch_size),
        batch_size=config.batch_size, devices=jax.local_devices())

  @functools.cache
  def frozen(split: str) -> Features:
    loader, (folder, describe) = loaders[split](), store
    found, left_out = feature_store.load_or_make(
        folder, describe(loader, split),
        lambda: (embed(split, judged.variables), sorted(loader.names)))
    if parallel.is_first_process():
      # All names are counted once.
      loader.names.update(left_out)
    else:
      loader.names.clear()
    return found

  return embed, frozen


def _images(judged: baselines.Judged, loader: loading.Loader, read_both) -> Images:
  """The training images as evaluators take them that train on augmented views."""
  return Images(judged.encode, judged.variables, loader.train_batches, loader.data.num_examples,
                loader.config['image_size'], loader.config['virtual_shards'],
                lambda: _images(judged, read_both(), None), judged.training, loader.labels)


def _grid(workdir: epath.Path, model: Mapping[str, Any], data: Mapping[str, Any], content,
          name: str, judged: baselines.Judged, evaluator: str) -> grids.Grid:
  """Where the points of an evaluator's grid are kept, under what decides their scores."""
  keys = locations.left_out(flat(dict(data=data)))
  data = {key: value for key, value in keys.items()
          if not key.startswith(MAY_CHANGE)}
  return grids.Grid(evaluator, workdir / 'grids' / name / f'{evaluator}.jsonl',
                    dict(encoder=_digest(judged), model=model, data=data,
                         content=[content(split) for split in ('train', 'validation')]))


def _store(workdir: epath.Path, model: Mapping[str, Any], data: Mapping[str, Any], content,
           name: str, judged: baselines.Judged):
  """The folder of an encoder's features, and (loader, split) -> what those of a split depend on."""
  digest = _digest(judged)

  def describe(loader: loading.Loader, split: str) -> dict[str, Any]:
    # A module of the user's own may not say which records its files give.
    whole = isinstance(loader.data, Split) or loader.data.identity
    own = feature_store.deciding(flat(dict(data=data)), bool(whole))
    return dict(kind=name, encoder=digest, model=model, data=own, split=split,
                images=loader.data.num_examples, content=content(split))

  return workdir / 'features', describe


def _digest(judged: baselines.Judged) -> str:
  """Of the variables; raw pixels have none."""
  return tensors.digest(dict(zip(('params', 'state'), judged.variables)))
