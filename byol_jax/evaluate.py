"""Config + checkpoint -> encoders, data, evaluators -> result files.

Every encoder that the config names is frozen and judged by every evaluator. All
choices are made on the training and validation splits; then the test split is read
once, and each fitted evaluator scores it.
"""

from collections.abc import Callable, Mapping
import functools
import json
import math
import os
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import (
  assembly,
  checkpoint,
  input_pipeline,
  loading,
  parallel,
  plugins,
  tensors,
)
from byol_jax.errors import InputError
from byol_jax.evaluators import Features, Images, features, supervised
from byol_jax.report import tables

RESULTS = 'results.json'
# Keys that older checkpoints lack, as the code was then.
OLDER = dict(resize='bicubic', workers=0, unreadable='stop', center_share=1.,
             center_order='crop_first')


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
  trees, meta = checkpoint.restore_trees(path, ('online', 'state'), step)
  config = meta['config']
  networks = assembly.build_model(config['model'], meta['resolved']['num_classes'])
  size = config['data']['image_size']
  shapes, _ = jax.eval_shape(networks.init, jax.random.key(0), jnp.zeros((2, size, size, 3)))
  tensors.check(tensors.describe(trees['online']), tensors.describe(shapes),
                f'{path}, step {meta["step"]}')
  variables = (trees['online'], trees['state']['online'])
  encode = jax.jit(lambda variables, images: networks.encode(*variables, images))
  embedding = jax.eval_shape(encode, variables, jnp.zeros((1, size, size, 3)))
  return Encoder(encode, variables, size, embedding.shape[-1],
                 tuple(config['model']['image_mean']), tuple(config['model']['image_std']))


def evaluate(config: ml_collections.ConfigDict, pretrained: str | os.PathLike,
             workdir: str | os.PathLike) -> dict[str, Any]:
  """Judges the config's encoders and writes the results.

  Args:
    config: as in `experiments/configs/eval/`.
    pretrained: workdir of a pretraining run, whose newest checkpoint is judged.
    workdir: gets results.json, a table as results.md, and splits_read.jsonl.

  Returns:
    What results.json holds. In a job of several processes all take part, and the first
    one writes and returns the results; the others return {}.

  Raises:
    InputError: what the user can mend, unlabelled data among it.
  """
  workdir = parallel.writable_folder(workdir)
  assembly.check_same_job(assembly.as_json(config), {})
  if not config.encoders or not config.evaluators:
    raise InputError('config.encoders and config.evaluators must each name at least one.')
  for evaluator, options in config.evaluators.items():
    plugins.function('evaluators', evaluator, 'fit', options)
  names = 'online', 'state'
  # One process decides: others could find a newer checkpoint, and judge another encoder.
  step = parallel.from_first_process(
      checkpoint.newest_sound(pretrained, names) if parallel.is_first_process() else 0)
  trees, meta = checkpoint.restore_trees(pretrained, names, step)
  data = _data_section(config, meta['config']['data'])
  load = functools.partial(loading.load, data, workdir=workdir)
  loading.check_test_split(data)
  train, validation = load('train', purpose='fitting'), load('validation', purpose='choosing')
  if not train.data.num_classes:
    raise InputError(f'Data set {data["dataset"]!r} has no labels, which every evaluator needs; '
                     'name a labelled one in config.data.')
  encoders = _encoders(config, trees, meta, train)
  test = functools.cache(lambda: load('test', purpose='final scores'))
  rows = _judge(config, encoders, train, validation, test,
                lambda: load('train+validation', purpose='refit'))
  unreadable = {name: parallel.gather_rows(np.array([len(loader.names)])).sum().item()
                for name, loader in (('train', train), ('validation', validation),
                                     ('test', test()))}
  if not parallel.is_first_process():
    return {}
  reads = [json.loads(line) for line in (workdir / loading.ACCESS_LOG).read_text().splitlines()]
  results = dict(
      pretrained=str(parallel.folder(pretrained)), step=meta['step'],
      config=assembly.as_json(config),
      # Evaluations in the same workdir share one log, so that none is forgotten.
      test_split_reads=sum(record['split'] == 'test' for record in reads),
      digest=meta['digests']['online'], seed=meta['config']['seed'],
      dataset=data['options'].get('name', data['dataset']),
      images={r['split']: r['examples'] for r in reads},
      unreadable=unreadable,
      chance=1 / train.data.num_classes, encoders=rows)
  _write(workdir, results)
  return results


def _data_section(config, pretraining: Mapping[str, Any]) -> dict[str, Any]:
  """The `data` section of the pretraining, with what the evaluation says otherwise."""
  data = OLDER | pretraining
  own = config.data.to_dict()
  if not own['dataset']:
    del own['options']
  data.update({key: value for key, value in own.items() if value or key == 'options'})
  return assembly.plain(data)


def _judge(config, encoders, train, validation, read_test, read_both) -> dict[str, dict[str, Any]]:
  """Fits every evaluator to every encoder; then reads the test split, and scores."""
  views = assembly.center_views(train.config)
  fitted, extractors = {}, {}
  for name, (encode, variables) in encoders.items():
    parallel.say(f'judging {tables.NAMES[name]}')
    extractors[name] = functools.partial(
        _extract, lambda v, batch, encode=encode: encode(v, views(batch)), variables,
        config.batch_size)
    images = _images(encode, variables, train, read_both)
    train_features = functools.cache(functools.partial(extractors[name], train))
    held_out = extractors[name](validation)
    for evaluator, options in config.evaluators.items():
      on_images = getattr(plugins.load('evaluators', evaluator), 'TRAINS_ON_IMAGES', False)
      fit = plugins.function('evaluators', evaluator, 'fit', options)
      fitted[name, evaluator] = fit(images if on_images else train_features(), held_out,
                                    num_classes=train.data.num_classes, **assembly.plain(options))
  # Nothing is chosen from here on.
  rows = {name: {} for name in encoders}
  for name in encoders:
    tested = extractors[name](read_test())
    for evaluator in config.evaluators:
      module = plugins.load('evaluators', evaluator)
      rows[name][evaluator] = dict(module.evaluate(fitted[name, evaluator], tested),
                                   **module.describe(fitted[name, evaluator]))
  return rows


def _extract(encode, variables, batch_size: int, loader: loading.Loader) -> Features:
  return features.extract(encode, variables, loader.evaluation_batches(batch_size),
                          batch_size=batch_size, devices=jax.local_devices())


def _images(encode, variables, loader: loading.Loader, read_both) -> Images:
  """The training images as evaluators take them that train on augmented views."""
  return Images(encode, variables, loader.train_batches, loader.data.num_examples,
                loader.config['image_size'], loader.config['virtual_shards'],
                lambda: _images(encode, variables, read_both(), None))


def _encoders(config, trees, meta, train: loading.Loader) -> dict[str, tuple[Any, Any]]:
  """(function of variables and views, variables) of every encoder of the config, in its order."""
  size = train.config['image_size']
  networks = assembly.build_model(meta['config']['model'], train.data.num_classes)
  encode = lambda variables, views: networks.encode(*variables, views)
  makers = dict(
      pretrained=lambda: (encode, (trees['online'], trees['state']['online'])),
      random=lambda: (encode, _untrained(config, networks, train)),
      pixels=lambda: (lambda _, views: views.reshape(len(views), -1), ()),
      supervised=lambda: (encode, _with_labels(config, networks, train, size)))
  unknown = [name for name in config.encoders if name not in makers]
  if unknown:
    raise InputError(f'config.encoders names {unknown[0]!r}; it can name {", ".join(makers)}.')
  encoders = {}
  for name in config.encoders:
    parallel.say(f'making {tables.NAMES[name]}')
    encoders[name] = makers[name]()
  return encoders


def _with_labels(config, networks, loader: loading.Loader, size: int):
  """Parameters and statistics of the supervised run."""
  if loader.data.multi_label:
    raise InputError("The 'supervised' encoder takes one class for each image, and these have "
                     'several; leave it out of config.encoders.')
  options = assembly.plain(config.supervised)
  policy = options.pop('view')
  view = assembly.build_single_view(policy, config.seed, size)
  parallel.check_batch_size(options['batch_size'], loader.config['virtual_shards'],
                            'supervised.batch_size')
  return tuple(supervised.train(
      networks, view, functools.partial(loader.train_batches, [policy]),
      loader.data.num_examples, image_size=size, seed=config.seed, devices=jax.local_devices(),
      **options))


def _untrained(config, networks, loader: loading.Loader):
  """Parameters at initialisation, and BatchNorm statistics of 20 batches of training views.

  Statistics as they are initialised belong to no data, and would make the random encoder
  a weaker baseline, or by chance a stronger one.
  """
  devices, size = jax.local_devices(), loader.config['image_size']
  params, state = jax.jit(networks.init)(
      jax.random.key(config.seed), jnp.zeros((2, size, size, 3)))
  policy = assembly.plain(config.supervised.view)
  view = assembly.build_single_view(policy, config.seed, size)

  def step(carry, batch):
    params, state = carry
    return params, networks.apply(params, state, view(batch), True)[1]

  moved = parallel.pmap_step(step, devices)
  carry = parallel.replicate((params, state), devices)
  unit = math.lcm(jax.device_count(), loader.config['virtual_shards'])
  batches = loader.train_batches([policy], seed=config.seed, first_step=0, last_step=20,
                                 batch_size=-(-config.batch_size // unit) * unit)
  for batch in input_pipeline.to_devices(batches, devices):
    carry = moved(carry, batch)
  return parallel.fetch(carry)


def _write(workdir: epath.Path, results: Mapping[str, Any]) -> None:
  for name, text in ((RESULTS, json.dumps(results, indent=2) + '\n'),
                     ('results.md', tables.markdown(tables.scores([results])))):
    partial = workdir / f'{name}.partial'
    partial.write_text(text)
    partial.replace(workdir / name)


def read_results(workdir: str | os.PathLike) -> dict[str, Any]:
  """What `evaluate` wrote into a workdir."""
  path = parallel.folder(workdir) / RESULTS
  if not path.exists():
    raise InputError(f'No {path}: give the --workdir of an evaluation.')
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); evaluate again.') from error
