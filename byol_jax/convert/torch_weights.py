"""The encoder as weights for PyTorch, and PyTorch's ResNets as checkpoints of ours.

The tensors have torchvision's names, in a safetensors file whose metadata say what the
tensors cannot: padding, normalisation of the images, origin. An encoder that was trained
with SAME padding gives other embeddings in a stock torch ResNet; docs/torch.md makes one
that pads the same.
"""

import base64
from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import checkpoint
from byol_jax.convert import architecture, deepmind, torch_names
from byol_jax.encoders import resnet
from byol_jax.errors import InputError
from byol_jax.train_step import TrainState

PRODUCER = 'byol_jax'
# Keys of a config's `model` section that the metadata keep.
IN_SECTION = ('image_mean', 'image_std', 'batch_norm_epsilon', 'batch_norm_decay')


class Conversion(NamedTuple):
  """What was read or written, in words, line by line."""

  lines: tuple[str, ...]

  def __str__(self):
    return '\n'.join(self.lines)


def write(workdir: str | os.PathLike, output: str | os.PathLike, step: int | None = None
          ) -> Conversion:
  """Writes the online encoder of a checkpoint as a safetensors file.

  Args:
    workdir: of the run.
    output: the file.
    step: of the checkpoint; the newest sound one where None.

  Raises:
    InputError: no checkpoint; an encoder that torchvision has no names for; the file
      cannot be written.
  """
  numpy_files = _safetensors()
  trees, meta = checkpoint.restore_trees(workdir, ('online', 'state'), step)
  section = meta['config']['model']
  options = section['encoder_options']
  if section['encoder'] != 'resnet' or options['version'] != 1:
    raise InputError(f'{workdir}: only ResNets of version 1 have names in torchvision; this is '
                     f'{section["encoder"]}, version {options.get("version", "-")}.')
  weights, hidden = torch_names.to_torch(trees['online'], trees['state']['online'],
                                         resnet.ARCHITECTURES[options['depth']].name)
  metadata = _metadata(meta, weights, hidden)
  partial = pathlib.Path(f'{os.fspath(output)}.partial')
  try:
    numpy_files.save_file(weights, partial, metadata)
    stored = numpy_files.load_file(partial)
  except (OSError, numpy_files.Error) as error:
    raise InputError(f'{output} cannot be written ({error}); give another --output.') from error
  if any(not np.array_equal(stored[name], array) for name, array in weights.items()):
    partial.unlink()
    raise InputError(f'{output}: the safetensors library stored other values than it was given; '
                     'install another version of it.')
  partial.replace(output)
  padding = options['padding']
  advice = ('loads into a stock torchvision or timm ResNet' if padding == 'torch' else
            'docs/torch.md makes a torch ResNet that pads like it; a stock one gives other '
            'embeddings')
  return Conversion((f'{len(weights)} tensors of ResNet-{options["depth"]}, width '
                     f'{options["width"]:g}, step {meta["step"]}: {os.fspath(output)}',
                     f'padding {padding}: {advice}', f'images in [0, 1], minus '
                     f'{section["image_mean"]}, divided by {section["image_std"]}',
                     *([f'licence: {meta["source"]["licence"]}']
                       if 'licence' in meta.get('source', {}) else [])))


def _metadata(meta: Mapping[str, Any], weights, hidden) -> dict[str, str]:
  section = meta['config']['model']
  source = dict(step=meta['step'], digest=meta['digests']['online'], **meta.get('source', {}))
  metadata = dict(
      format='pt', producer=PRODUCER, padding=section['encoder_options']['padding'],
      encoder_options=json.dumps(section['encoder_options']),
      image_size=json.dumps(meta['config']['data']['image_size']), source=json.dumps(source),
      **{key: json.dumps(section[key]) for key in IN_SECTION})
  if any(not np.array_equal(array, weights[name]) for name, array in hidden.items()):
    # Of a short run; without them a further training would begin with other averages.
    everything = np.concatenate([hidden[name] for name in sorted(hidden)]).astype('<f4')
    metadata['hidden'] = base64.b64encode(everything.tobytes()).decode()
  return metadata


def read(path: str | os.PathLike, workdir: str | os.PathLike, config: Mapping[str, Any]
         ) -> Conversion:
  """Makes a checkpoint of ours of a torchvision or timm ResNet.

  Projector, predictor and their statistics are drawn from the config's seed: there are
  none in the file. The target network begins as the online one.

  Args:
    path: .safetensors, or .pth, .pt or .bin, which torch's weights-only loader reads.
    workdir: gets the checkpoint; it may not hold one already.
    config: a pretraining config as JSON has it, whose `model` section is adapted.

  Raises:
    InputError: the file cannot be read, or its tensors are of no known network; missing
      and extra ones are listed.
  """
  if checkpoint.steps(workdir):
    raise InputError(f'{os.fspath(workdir)} already holds checkpoints; give a new --workdir.')
  weights, metadata = _read(pathlib.Path(path))
  weights, left_out = _without_prefix(weights, path)
  said = _said(metadata, path)
  params, state, unknown = torch_names.from_torch(weights, 'resnet', _hidden(said, weights))
  section = _section(said, params, config['model'], path)
  online = _completed(params, state, section, config['seed'], unknown, path)
  source = dict(kind='weights of PyTorch', file=os.path.basename(path),
                sha256=deepmind.sha256(path),
                notes=['projector, predictor: as initialised', f'not used: {left_out}'],
                **{key: value for key, value in said.get('source', {}).items()
                   if key == 'licence'})
  zeros = jax.tree.map(np.zeros_like, online[0])
  state = TrainState(np.int32(0), online[0], online[0], online[1], online[1],
                     optax.TraceState(zeros))
  deepmind.write(workdir, lambda: state,
                 dict(config=dict(config, model=section), versions=dict(jax=jax.__version__),
                      resolved=dict(num_classes=0, max_steps=0), source=source))
  options = section['encoder_options']
  return Conversion((
      f'ResNet-{options["depth"]}, width {options["width"]:g}, padding {options["padding"]}; '
      'nothing missing, nothing left over in the encoder',
      f'not used: {", ".join(map(ascii, left_out)) or "nothing"}; projector and predictor are as '
      'initialised',
      f'images are taken minus {section["image_mean"]}, divided by {section["image_std"]}'
      + ('' if said else ', which the file does not say')))


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """(tensors, metadata) of a file."""
  if not path.is_file():
    raise InputError(f'{path}: no such file (--input).')
  if path.suffix == '.safetensors':
    numpy_files = _safetensors()
    try:
      with numpy_files.safe_open(path, 'np') as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (numpy_files.Error, TypeError, OSError) as error:
      raise InputError(f'{path} cannot be read as safetensors ({error}).') from error
  if path.suffix not in ('.pth', '.pt', '.bin'):
    raise InputError(f'{path}: files that end in .safetensors, .pth, .pt or .bin are read.')
  return _read_pth(path), {}


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise InputError(f'{path}: reading it needs PyTorch (pip install torch); a safetensors file '
                     'needs none.') from error
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  # Damaged and hostile files surface as many kinds of error.
  except Exception as error:
    reason = (str(error).splitlines() or [''])[0][:200]
    raise InputError(f'{path} was refused by torch.load(weights_only=True): '
                     f'{type(error).__name__}: {reason}') from error
  for key in ('state_dict', 'model'):
    if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
      found = found[key]
  if not isinstance(found, Mapping):
    raise InputError(f'{path} holds no state dict.')
  return {str(name): (array.float() if array.is_floating_point() else array).numpy()
          for name, array in found.items() if isinstance(array, torch.Tensor)}


def _without_prefix(weights: Mapping[str, np.ndarray], path) -> tuple[dict, list[str]]:
  """The encoder's tensors without what stands before their names, and the other names."""
  inner, outer = 'layer1.0.conv1.weight', 'conv1.weight'
  prefixes = [name.removesuffix(inner) for name in weights if name.endswith(inner)]
  prefixes = [prefix for prefix in prefixes if prefix + outer in weights]
  if len(prefixes) != 1:
    raise InputError(f'{path}: {len(prefixes)} ResNets with torchvision\'s names are in it, where '
                     f'one is needed; it has {", ".join(map(ascii, list(weights)[:5]))} ...')
  prefix = prefixes[0]
  own = {name.removeprefix(prefix): array for name, array in weights.items()
         if name.startswith(prefix) and not name.startswith(prefix + 'fc.')}
  return own, sorted(name for name in weights if name.removeprefix(prefix) not in own)


def _said(metadata: Mapping[str, str], path) -> dict[str, Any]:
  """What `write` said in the metadata; {} for the files of others."""
  if metadata.get('producer') != PRODUCER:
    return {}
  try:
    said = {key: json.loads(metadata[key]) for key in (*IN_SECTION, 'encoder_options', 'source')}
    return dict(said, hidden=base64.b64decode(metadata.get('hidden', ''), validate=True))
  except (KeyError, ValueError) as error:
    raise InputError(f'{path}: its metadata are damaged ({error}); write it again.') from error


def _hidden(said: Mapping[str, Any], weights) -> dict[str, np.ndarray] | None:
  """What `_metadata` stored of Haiku's averages; None for the files of others."""
  if not said:
    return None
  names = sorted(name for name in weights if '.running_' in name)
  if not said['hidden']:
    return {name: weights[name] for name in names}
  values = np.frombuffer(said['hidden'], '<f4')
  ends = np.cumsum([weights[name].size for name in names])
  if len(ends) == 0 or len(values) != ends[-1]:
    raise InputError('The metadata of the file do not fit its tensors; write it again.')
  return dict(zip(names, np.split(values, ends[:-1])))


def _section(said, params, defaults: Mapping[str, Any], path) -> dict[str, Any]:
  """The config's `model` section; what neither file nor tensors say is torchvision's."""
  if said:
    options = said['encoder_options']
  else:
    options = dict(architecture.encoder_options(params, str(path))[1], padding='torch',
                   zero_init_last_scale=False)
  own = {key: said[key] for key in IN_SECTION if said}
  return dict(defaults, encoder='resnet', encoder_options=options, compute_dtype='float32', **own)


def _completed(params, state, section: Mapping[str, Any], seed: int, unknown, path):
  """(parameters, BatchNorm state) of all networks: the file's encoder, initialised heads."""
  init = jax.jit(architecture.networks(section, 0).init)
  fresh = jax.device_get(init(jax.random.key(seed), jnp.zeros((2, 32, 32, 3))))
  name = resnet.ARCHITECTURES[section['encoder_options']['depth']].name
  trees, differing = [], []
  for found, initial in ((params, fresh[0]), (state, fresh[1])):
    found = {module.replace('resnet/', f'{name}/', 1): arrays for module, arrays in found.items()}
    wanted = {module: arrays for module, arrays in initial.items()
              if module.startswith(f'{name}/')}
    differences = architecture.differences(found, wanted)
    if differences:
      differing.append(str(differences))
    else:
      trees.append(dict(initial, **architecture.cast(found, wanted)))
  if differing or unknown:
    differing += [f'{len(unknown)} with names that torchvision has not:',
                  *(f'  {ascii(one)}' for one in unknown)] if unknown else []
    raise InputError(f'{path}: the tensors are not those of a ResNet-'
                     f'{section["encoder_options"]["depth"]} (here under our names):\n'
                     + '\n'.join(differing))
  return tuple(trees)


def _safetensors():
  """The library, with the names that are used here."""
  try:
    import safetensors
    import safetensors.numpy
  except ImportError as error:
    raise InputError('Weights for PyTorch need safetensors: pip install "safetensors>=0.7".'
                     ) from error

  class Files:
    save_file = staticmethod(safetensors.numpy.save_file)
    load_file = staticmethod(safetensors.numpy.load_file)
    safe_open = safetensors.safe_open
    Error = safetensors.SafetensorError

  return Files
