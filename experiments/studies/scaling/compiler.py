"""The TPU compiler's numbers for the training step, without a TPU.

libtpu compiles for a named topology on a machine without a TPU. It places every array
in the memory of a core, so it knows whether the step fits, and it counts operations.
"""

import functools
import importlib.metadata
import os
import re
import time
from typing import Any

import jax
from jax.experimental import topologies
import ml_collections

from byol_jax import train_step
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from experiments.studies.scaling import shapes


def devices(topology: str) -> list[Any]:
  """The devices of a TPU topology such as 'v3:2x2'; they do not need to be attached.

  Raises:
    InputError: libtpu is not installed, or it does not know the topology.
  """
  # Without these libtpu looks for the TPU that this machine would belong to.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # Its lock stops two processes from using one TPU; here there is no TPU.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    return list(topologies.get_topology_desc(platform='tpu', topology_name=topology).devices)
  except (RuntimeError, ValueError, NotImplementedError) as error:
    raise InputError(f'No TPU topology {topology!r} can be described: '
                     f'{str(error).splitlines()[0]}. libtpu comes with: pip install -e .[tpu]'
                     ) from error


def costs(config: ml_collections.ConfigDict, topology: str, batch_per_core: int,
          num_examples: int, num_classes: int) -> dict[str, Any]:
  """Compiles the training step.

  Args:
    config: config of the run; its batch size only affects the learning rate.
    topology: the argument of `devices`. A small topology can represent a large one with the
      same images per core: the program of a core is the same.
    batch_per_core: images per core.
    num_examples: number of training images.
    num_classes: number of classes of the data set.

  Returns:
    What was compiled, the versions, the seconds, and the compiler's numbers for one core:
    bytes of memory, floating-point operations and bytes accessed per step, all-reduces.
    If it refuses, for example for lack of memory, `error` instead of these numbers.
  """
  size, cores = config.data.image_size, devices(topology)
  recipe = shapes.recipe(config, num_examples, num_classes)
  step = parallel.jit_step(functools.partial(train_step.train_step, recipe=recipe), cores)
  inputs = parallel.abstract_inputs(
      shapes.state(recipe, size), shapes.batch(batch_per_core * len(cores), size), cores)
  options = config.model.encoder_options
  found = dict(depth=options.depth, width=options.width, dtype=config.model.compute_dtype,
               topology=topology, device_kind=cores[0].device_kind, cores=len(cores),
               batch_per_core=batch_per_core, jax=jax.__version__,
               libtpu=importlib.metadata.version('libtpu'))
  started = time.perf_counter()
  lowered = step.lower(*inputs)
  found['lowering_seconds'] = round(time.perf_counter() - started, 1)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    # If memory is short, the message says how much would be needed.
    found['error'] = str(error).splitlines()[0]
  else:
    found |= _account(compiled)
  found['compile_seconds'] = round(time.perf_counter() - started - found['lowering_seconds'], 1)
  return found


def _account(compiled) -> dict[str, Any]:
  """The compiler's numbers for one core."""
  memory, operations = compiled.memory_analysis(), compiled.cost_analysis()
  # The donated state is an argument and an output in the same memory.
  arguments, outputs, shared, temporary, code = (
      getattr(memory, f'{what}_size_in_bytes')
      for what in ('argument', 'output', 'alias', 'temp', 'generated_code'))
  return dict(
      argument_bytes=arguments, temporary_bytes=temporary, code_bytes=code,
      memory_bytes=arguments + outputs - shared + temporary + code,
      flops=operations['flops'], accessed_bytes=operations['bytes accessed'],
      all_reduces=len(re.findall(r' all-reduce(?:-start)?\(', compiled.as_text())))
