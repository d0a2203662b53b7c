"""Writes the encoder as weights for PyTorch, under torchvision's names.

They are stored in a safetensors file. Its metadata have what tensors cannot tell: padding,
normalisation of the images, origin. An encoder trained with SAME padding gives different
embeddings in a stock torch ResNet; docs/convert.md shows how to make one with this padding.
"""

import base64
from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np

from byol_jax import checkpoint, files
from byol_jax.convert import torch_names
from byol_jax.encoders import resnet
from byol_jax.errors import InputError

PRODUCER = 'byol_jax'
# Keys of a config's `model` section that the metadata keep.
IN_SECTION = ('image_mean', 'image_std', 'batch_norm_epsilon', 'batch_norm_decay')


def write(workdir: str | os.PathLike, output: str | os.PathLike, step: int | None = None) -> str:
  """Writes the online encoder of a checkpoint as a safetensors file.

  Args:
    workdir: workdir of the run.
    output: the file.
    step: step of the checkpoint; the newest valid one if None.

  Returns:
    A description of what was written.

  Raises:
    InputError: there is no checkpoint, torchvision has no names for the encoder, or the file
      cannot be written.
  """
  trees, meta = checkpoint.restore_trees(workdir, ('online', 'state'), step)
  section = meta['config']['model']
  options = section['encoder_options']
  if section['encoder'] != 'resnet' or options['version'] != 1:
    raise InputError(f'{workdir}: only ResNets of version 1 have names in torchvision; this is '
                     f'{section["encoder"]}, version {options.get("version", "-")}.')
  if section.get('normalization', 'batch') != 'batch':
    raise InputError(f'{workdir}: torchvision has names for BatchNorm only; this is '
                     f'{section["normalization"]} normalisation.')
  weights, hidden = torch_names.to_torch(trees['online'], trees['state']['online'],
                                         resnet.ARCHITECTURES[options['depth']].name)
  _store(pathlib.Path(output), weights, _metadata(meta, weights, hidden))
  lines = [f'{len(weights)} tensors of ResNet-{options["depth"]}, width {options["width"]:g}, step '
           f'{meta["step"]}: {os.fspath(output)}',
           f'padding {options["padding"]}: ' + (
               'loads into a stock torchvision or timm ResNet' if _is_stock(section) else
               'docs/convert.md shows how to make such a torch ResNet; a stock one does not load '
               'the file, or gives different embeddings'),
           f'images in [0, 1], minus {section["image_mean"]}, divided by {section["image_std"]}']
  if 'licence' in meta.get('source', {}):
    lines.append(f'licence: {meta["source"]["licence"]}')
  return '\n'.join(lines)


def _is_stock(section: Mapping[str, Any]) -> bool:
  """Whether torchvision's constructors make exactly this network."""
  options = section['encoder_options']
  basic = options['depth'] in (18, 34)
  return (options['depth'] in (18, 34, 50, 101, 152) and options['width'] == 1
          and options['stem'] == 'imagenet' and options['padding'] == 'torch'
          and not (basic and options['first_projection'])
          and section['batch_norm_epsilon'] == 1e-5)


def _store(output: pathlib.Path, weights: Mapping[str, np.ndarray], metadata) -> None:
  """Writes the file, reads it back and compares."""
  safetensors = torch_names.safetensors_library()
  try:
    with files.atomic_path(output) as partial:
      # save_file (0.8.0) makes a file that only its owner can read.
      partial.write_bytes(safetensors.numpy.save(weights, metadata))
      stored = safetensors.numpy.load_file(partial)
      if any(not np.array_equal(stored[name], array) for name, array in weights.items()):
        raise InputError(f'{output}: the safetensors library stored other values than it was '
                         'given; install another version of it.')
  except (OSError, safetensors.SafetensorError) as error:
    raise InputError(f'{output} cannot be written ({error}); give another --output.') from error


def _metadata(meta: Mapping[str, Any], weights, hidden) -> dict[str, str]:
  section = meta['config']['model']
  source = dict(step=meta['step'], digest=meta['digests']['online'], **meta.get('source', {}))
  metadata = dict(
      format='pt', producer=PRODUCER, padding=section['encoder_options']['padding'],
      encoder_options=json.dumps(section['encoder_options']),
      image_size=json.dumps(meta['config']['data']['image_size']), source=json.dumps(source),
      **{key: json.dumps(section[key]) for key in IN_SECTION})
  if any(not np.array_equal(array, weights[name]) for name, array in hidden.items()):
    # Only for short runs; without them, further training would start with other averages.
    everything = np.concatenate([hidden[name] for name in sorted(hidden)]).astype('<f4')
    metadata['hidden'] = base64.b64encode(everything.tobytes()).decode()
  return metadata
