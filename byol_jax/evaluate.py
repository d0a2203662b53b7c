"""Config + checkpoint -> encoders, data, evaluators -> result files.

Every encoder that the config names is frozen and judged by every evaluator. All
choices are made on the training and validation splits; then the test split is read
once, and each fitted evaluator scores it.
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import assembly, augment, checkpoint, datasets, parallel, plugins, report
from byol_jax.errors import InputError
from byol_jax.evaluators import features, supervised

RESULTS = 'results.json'


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


def load_encoder(path: str | pathlib.Path, step: int | None = None) -> Encoder:
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
  checkpoint.check_tensors(checkpoint.describe(trees['online']), checkpoint.describe(shapes),
                           f'{path}, step {meta["step"]}')
  variables = (trees['online'], trees['state']['online'])
  encode = jax.jit(lambda variables, images: networks.encode(*variables, images))
  embedding = jax.eval_shape(encode, variables, jnp.zeros((1, size, size, 3)))
  return Encoder(encode, variables, size, embedding.shape[-1],
                 tuple(config['model']['image_mean']), tuple(config['model']['image_std']))


def evaluate(config: ml_collections.ConfigDict, pretrained: str | pathlib.Path,
             workdir: str | pathlib.Path) -> dict[str, Any]:
  """Judges the config's encoders and writes the results.

  Args:
    config: as in `experiments/configs/eval/`.
    pretrained: workdir of a pretraining run, whose newest checkpoint is judged.
    workdir: gets results.json, a table as results.md, and splits_read.jsonl.

  Returns:
    What results.json holds.

  Raises:
    InputError: what the user can mend, unlabelled data among it.
  """
  workdir = parallel.writable_folder(workdir)
  if not config.encoders or not config.evaluators:
    raise InputError('config.encoders and config.evaluators must each name at least one.')
  trees, meta = checkpoint.restore_trees(pretrained, ('online', 'state'))
  data = dict(meta['config']['data'])
  if config.data.dataset:
    data.update(dataset=config.data.dataset, options=config.data.options.to_dict())
  log = assembly.access_log(workdir)
  read = lambda split, purpose: assembly.read_split(data, split, purpose=purpose, access_log=log)
  _check_test_split(data)
  train, validation = read('train', 'fitting'), read('validation', 'choosing')
  if train.labels is None:
    raise InputError(f'Data set {data["dataset"]!r} has no labels, which every evaluator needs; '
                     'name a labelled one in config.data.')
  encoders = _encoders(config, trees, meta, train)
  rows = _judge(config, encoders, train, validation, lambda: read('test', 'final scores'))
  reads = [json.loads(line) for line in (workdir / assembly.ACCESS_LOG).read_text().splitlines()]
  results = dict(
      pretrained=str(pathlib.Path(pretrained).absolute()), step=meta['step'],
      config=assembly.as_json(config),
      # Evaluations in the same workdir share one log, so that none is forgotten.
      test_split_reads=sum(record['split'] == 'test' for record in reads),
      digest=meta['digests']['online'], seed=meta['config']['seed'], dataset=data['dataset'],
      images={r['split']: r['examples'] for r in reads}, chance=1 / train.num_classes,
      encoders=rows)
  _write(workdir, results)
  return results


def _judge(config, encoders, train, validation, read_test) -> dict[str, dict[str, Any]]:
  """Fits every evaluator to every encoder; then reads the test split, and scores."""
  extract = lambda encoder, split: features.extract(
      *encoder, split, batch_size=config.batch_size, devices=jax.local_devices())
  fitted = {}
  for name, encoder in encoders.items():
    print(f'judging {report.NAMES[name]}', flush=True)
    parts = [extract(encoder, split) for split in (train, validation)]
    for evaluator, options in config.evaluators.items():
      fit = plugins.function('evaluators', evaluator, 'fit', options)
      fitted[name, evaluator] = fit(*parts, num_classes=train.num_classes, **options.to_dict())
  # Nothing is chosen from here on.
  test = read_test()
  rows = {name: {} for name in encoders}
  for name, encoder in encoders.items():
    tested = extract(encoder, test)
    for evaluator in config.evaluators:
      module = plugins.load('evaluators', evaluator)
      rows[name][evaluator] = dict(module.evaluate(fitted[name, evaluator], tested),
                                   **module.describe(fitted[name, evaluator]))
  return rows


def _encoders(config, trees, meta, train: datasets.Split) -> dict[str, tuple[Any, Any]]:
  """(encode, variables) of every encoder that the config names, in its order."""
  size = meta['config']['data']['image_size']
  networks = assembly.build_model(meta['config']['model'], train.num_classes)
  encode = assembly.encoder_function(networks, size)

  def random():
    params, state = jax.jit(networks.init)(
        jax.random.key(config.seed), jnp.zeros((2, size, size, 3)))
    return _with_statistics(networks, params, state, train, config.batch_size, size)

  def pixels(_, images):
    views = jax.vmap(lambda image: augment.center_view(image, size))(images)
    return views.reshape(len(views), -1)

  def with_labels():
    options = config.supervised.to_dict()
    view = assembly.build_single_view(options.pop('view'), config.seed, size)
    data = meta['config']['data']
    parallel.check_batch_size(options['batch_size'], data['virtual_shards'])
    shards = assembly.host_shards(data)
    return tuple(supervised.train(networks, view, train, image_size=size, seed=config.seed,
                                  shards=shards, devices=jax.local_devices(), **options))

  makers = dict(pretrained=lambda: (encode, (trees['online'], trees['state']['online'])),
                random=lambda: (encode, random()), pixels=lambda: (pixels, ()),
                supervised=lambda: (encode, with_labels()))
  unknown = [name for name in config.encoders if name not in makers]
  if unknown:
    raise InputError(f'config.encoders names {unknown[0]!r}; it can name {", ".join(makers)}.')
  encoders = {}
  for name in config.encoders:
    print(f'making {report.NAMES[name]}', flush=True)
    encoders[name] = makers[name]()
  return encoders


def _with_statistics(networks, params, state, split: datasets.Split, batch_size: int,
                     size: int):
  """Untrained parameters, and BatchNorm statistics of 20 batches of training images.

  Those of the initialisation belong to no data, and would make the random encoder a
  weaker baseline, or by chance a stronger one.
  """
  devices = jax.local_devices()

  def step(carry, images):
    params, state = carry
    images = images.astype(jnp.float32) / 255
    views = jax.vmap(lambda image: augment.center_view(image, size))(images)
    return params, networks.apply(params, state, views, True)[1]

  moved = parallel.pmap_step(step, devices)
  carry = parallel.replicate((params, state), devices)
  batch_size = -(-batch_size // len(devices)) * len(devices)
  rng = np.random.default_rng(0)
  for _ in range(20):
    rows = rng.integers(len(split.images), size=batch_size)
    carry = moved(carry, parallel.shard_batch(split.images[np.sort(rows)], devices))
  return parallel.fetch(carry)


def _check_test_split(data: Mapping[str, Any]) -> None:
  """Before minutes are spent: whether there is a test split, which is not read for it."""
  check = getattr(plugins.load('datasets', data['dataset']), 'check_split', None)
  if check:
    check('test', **data['options'])


def _write(workdir: pathlib.Path, results: Mapping[str, Any]) -> None:
  if not parallel.is_first_process():
    return
  for name, text in ((RESULTS, json.dumps(results, indent=2) + '\n'),
                     ('results.md', report.table([results]))):
    partial = workdir / f'{name}.partial'
    partial.write_text(text)
    os.replace(partial, workdir / name)


def read_results(workdir: str | pathlib.Path) -> dict[str, Any]:
  """What `evaluate` wrote into a workdir."""
  path = pathlib.Path(workdir).expanduser() / RESULTS
  if not path.is_file():
    raise InputError(f'No {path}: give the --workdir of an evaluation.')
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); evaluate again.') from error
