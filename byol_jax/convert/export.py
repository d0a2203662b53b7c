"""Exports the encoder as one function that does not need this package.

`jax.export` writes it as StableHLO that includes the weights, for CPU, CUDA, ROCm and TPU:
images float32 [B, H, W, 3] in [0, 1] -> embeddings float32 [B, D], for any B.
Loading it needs jax and flatbuffers, the format of the file.
"""

import json
import os
from typing import NamedTuple

import jax
from jax import export
import jax.numpy as jnp

from byol_jax import checkpoint, files
from byol_jax.convert import architecture
from byol_jax.errors import InputError

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


class Exported(NamedTuple):
  """What was written.

  output: the file; `output`.json beside it has the other fields.
  image_size: H and W in pixels.
  embedding_size: D.
  num_bytes: size of the file.
  """

  output: str
  image_size: int
  embedding_size: int
  num_bytes: int

  def __str__(self):
    size = self.image_size
    return (f'images [B, {size}, {size}, 3] in [0, 1] -> embeddings [B, {self.embedding_size}], '
            f'{self.num_bytes:,} bytes: {self.output}')


def write(workdir: str | os.PathLike, output: str | os.PathLike, step: int | None = None
          ) -> Exported:
  """Writes the online encoder of a checkpoint, with BatchNorm in evaluation mode.

  Args:
    workdir: workdir of the run.
    output: the file.
    step: step of the checkpoint; the newest valid one if None.

  Raises:
    InputError: there is no checkpoint, or the file cannot be written.
  """
  trees, meta = checkpoint.restore_trees(workdir, ('online', 'state'), step)
  networks = architecture.networks(meta['config']['model'], meta['resolved']['num_classes'])
  size = meta['config']['data']['image_size']
  encode = lambda images: networks.encode(trees['online'], trees['state']['online'], images)
  batch, = export.symbolic_shape('b')
  exported = export.export(jax.jit(encode), platforms=PLATFORMS)(
      jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32))
  data = exported.serialize()
  result = Exported(os.fspath(output), size, exported.out_avals[0].shape[-1], len(data))
  about = dict(image_size=size, embedding_size=result.embedding_size, step=meta['step'],
               digest=meta['digests']['online'], platforms=PLATFORMS, jax=jax.__version__,
               normalisation='inside', source=meta.get('source', {}))
  try:
    with files.atomic_write(output, 'wb') as file:
      file.write(data)
    with files.atomic_write(f'{os.fspath(output)}.json') as file:
      file.write(json.dumps(about, indent=2) + '\n')
  except OSError as error:
    raise InputError(f'{output} cannot be written ({error.strerror}); give another --output.'
                     ) from error
  return result
