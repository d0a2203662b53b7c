"""The encoder as one function that needs nothing of this package.

`jax.export` writes it as StableHLO with the weights in it, for CPU, CUDA, ROCm and TPU
alike: images float32 [B, H, W, 3] in [0, 1] -> embeddings float32 [B, D], where B is free.
A process that has jax (and flatbuffers, in which the file is written) loads it.
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

  output: the file; beside it lies `output`.json with what the other fields say.
  image_size: H and W in pixels.
  embedding_size: D.
  num_bytes: of the file.
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
  """Writes the online encoder of a checkpoint, BatchNorm in evaluation mode.

  Args:
    workdir: of the run.
    output: the file.
    step: of the checkpoint; the newest sound one where None.

  Raises:
    InputError: no checkpoint, or the file cannot be written.
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
