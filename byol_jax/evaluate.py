"""Config + checkpoint -> encoders, data, evaluators -> result files.

Every encoder that the config names is judged by every evaluator, frozen or as what training
starts from. All choices are made on the training and validation splits; then the test split
is read once, and each fitted evaluator scores it.
"""

from collections.abc import Callable, Mapping
import functools
import os
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import (
  assembly,
  baselines,
  checkpoint,
  config_checks,
  datasets,
  devices,
  evaluation_checks,
  evaluators,
  loading,
  locations,
  parallel,
  plugins,
  ranked_lists,
  results,
  tensors,
)
from byol_jax.errors import InputError
from byol_jax.evaluators import Features, Images, feature_store, features, grids, titles
from byol_jax.report import pictures, tables


class Encoder(NamedTuple):
  """A frozen encoder that can be called.

  encode: pure function of (variables, images) -> embeddings [B, D].
  variables: its parameters and BatchNorm statistics.
  image_size: side in pixels of the images it was trained on.
  embedding_size: D.
  image_mean: subtracted from images in [0, 1], per channel; `encode` does so itself.
  image_std: divides them afterwards; likewise.
  """

  encode: Callable[..., jax.Array]
  variables: Any
  image_size: int
  embedding_size: int
  image_mean: tuple[float, ...]
  image_std: tuple[float, ...]

  def __call__(self, images) -> jax.Array:
    """Images [B, H, W, 3], floats in [0, 1] -> embeddings float32 [B, D].

    Other sizes than `image_size` work, but the encoder has not seen them.

    Raises:
      InputError: another shape, integers, or values outside [0, 1].
    """
    try:
      images = np.asarray(images)
    except ValueError as error:
      raise InputError(f'Images must be one array [B, H, W, 3]: {error}') from error
    if images.ndim != 4 or images.shape[-1] != 3:
      raise InputError(f'Images must be [B, H, W, 3], not {list(images.shape)}.')
    if images.dtype.kind != 'f':
      raise InputError(f'Images must be floats in [0, 1], not {images.dtype}; divide uint8 by 255.')
    if images.size and not (images.min() >= 0 and images.max() <= 1):
      raise InputError(f'Images must lie in [0, 1]; these run from {images.min():g} to '
                       f'{images.max():g}.')
    return self.encode(self.variables, images.astype(np.float32))


def load_encoder(path: str | os.PathLike, step: int | None = None) -> Encoder:
  """The online encoder of a pretraining workdir, BatchNorm in evaluation mode.

  Args:
    path: workdir of a pretraining run.
    step: of the checkpoint; the newest where None.

  Raises:
    InputError: no checkpoint, a damaged one, or one of another architecture.
  """
  devices.check_platforms()
  trees, meta = checkpoint.restore_trees(path, ('online', 'state'), step)
  config = meta['config']
  networks = assembly.build_model(config['model'], meta['resolved']['num_classes'])
  size = config['data']['image_size']
  # Shapes alone: images of a large size would fill the memory.
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  shapes, _ = jax.eval_shape(networks.init, jax.random.key(0), images)
  tensors.check(tensors.describe(trees['online']), tensors.describe(shapes),
                f'{path}, step {meta["step"]}')
  variables = (trees['online'], trees['state']['online'])
  encode = jax.jit(lambda variables, images: networks.encode(*variables, images))
  embedding = jax.eval_shape(encode, variables, images)
  return Encoder(encode, variables, size, embedding.shape[-1],
                 tuple(config['model']['image_mean']), tuple(config['model']['image_std']))


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
  config_checks.check_evaluation(config)
  workdir = parallel.writable_folder(workdir)
  assembly.check_same_job(assembly.as_json(config), {})
  evaluation_checks.check_folders(workdir)
  names = 'online', 'state'
  # One process decides: others could find a newer checkpoint, and judge another encoder.
  step = parallel.from_first_process(
      checkpoint.newest_sound(pretrained, names) if parallel.is_first_process() else 0)
  trees, meta = checkpoint.restore_trees(pretrained, names, step)
  data = _data_section(config, meta['config']['data'])
  config_checks.check_data(data)
  config_checks.check_batches(config, data['virtual_shards'])
  load = functools.partial(loading.load, data, workdir=workdir)
  loading.check_test_split(data)
  train, validation = load('train', purpose='fitting'), load('validation', purpose='choosing')
  if not config.data.dataset:
    loading.check_pretrained(train, parallel.folder(pretrained))
  evaluation_checks.check_labels(config, train, data['dataset'])
  roles = loading.roles(data)
  test = functools.cache(lambda: load('test', purpose='final scores'))
  check_test = evaluation_checks.before_encoding(
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
      pretrained=str(parallel.folder(pretrained)), step=meta['step'],
      config=assembly.as_json(config), pretraining=meta['config'],
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
  data = assembly.completed_data(pretraining)
  own = config.data.to_dict()
  moved = own.pop('locations')
  if not own['dataset']:
    own['options'] = locations.given(data['dataset'], data['options'], moved)
  data.update({key: value for key, value in own.items() if value or key == 'options'})
  return assembly.plain(data)


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
      arguments = assembly.plain(options)
      trains_encoder = evaluators.has(evaluator, 'TRAINS_ENCODER')
      called = tables.name_of(name, not trains_encoder).replace(', frozen', ' (frozen)')
      parallel.say(f'evaluating {called} with {titles.title(evaluator)}')
      fit = plugins.function('evaluators', evaluator, 'fit', arguments)
      arguments['num_classes'] = train.data.num_classes
      if trains_encoder:
        found = fit(images, functools.partial(embed, 'validation'),
                    grid=make_grid(name, judged, evaluator), **arguments)
      elif evaluators.has(evaluator, 'RETRIEVES'):
        found = fit(functools.partial(frozen, 'train'), functools.partial(frozen, 'validation'),
                    roles=roles, **arguments)
      else:
        on_images = evaluators.has(evaluator, 'TRAINS_ON_IMAGES')
        found = fit(images if on_images else frozen('train'), frozen('validation'), **arguments)
      fitted[name, evaluator] = found
  # Nothing is chosen from here on.
  check_test()
  rows = {name: {} for name in encoders}
  for (name, evaluator), found in fitted.items():
    module = plugins.load('evaluators', evaluator)
    embed, frozen = embedders[name]
    test = (functools.partial(embed, 'test') if evaluators.has(evaluator, 'TRAINS_ENCODER')
            else frozen('test'))
    options = dict(keep=functools.partial(
        ranked_lists.keep, folder=lists / name, loaders=loaders, roles=roles)
                   ) if evaluators.has(evaluator, 'RETRIEVES') else {}
    scores = module.evaluate(found, test, **options)
    row = dict(scores, **module.describe(found),
               options=assembly.as_json(config.evaluators[evaluator]))
    titles.check_scores(evaluator, row, scores)
    rows[name][evaluator] = row
  return rows


def _embedders(config, judged: baselines.Judged, train: loading.Loader, loaders, store):
  """(split, variables) -> Features, and split -> those of the encoder as it is, made once.

  `store` is the folder of features, and a function of a split's loader and name that says what
  its features depend on.
  """
  views = assembly.center_views(train.config)
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
  keys = locations.left_out(assembly.flat(dict(data=data)))
  data = {key: value for key, value in keys.items()
          if not key.startswith(assembly.MAY_CHANGE)}
  return grids.Grid(evaluator, workdir / 'grids' / name / f'{evaluator}.jsonl',
                    dict(encoder=_digest(judged), model=model, data=data,
                         content=[content(split) for split in ('train', 'validation')]))


def _store(workdir: epath.Path, model: Mapping[str, Any], data: Mapping[str, Any], content,
           name: str, judged: baselines.Judged):
  """The folder of an encoder's features, and (loader, split) -> what those of a split depend on."""
  digest = _digest(judged)

  def describe(loader: loading.Loader, split: str) -> dict[str, Any]:
    # A module of the user's own may not say which records its files give.
    whole = isinstance(loader.data, datasets.Split) or loader.data.identity
    own = feature_store.deciding(assembly.flat(dict(data=data)), bool(whole))
    return dict(kind=name, encoder=digest, model=model, data=own, split=split,
                images=loader.data.num_examples, content=content(split))

  return workdir / 'features', describe


def _digest(judged: baselines.Judged) -> str:
  """Of the variables; raw pixels have none."""
  return tensors.digest(dict(zip(('params', 'state'), judged.variables)))
