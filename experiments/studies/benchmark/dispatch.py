"""The host's overhead per step: an empty step on a state with the same number of arrays."""

import functools
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax.distributed import loops, parallel
from experiments.studies.benchmark import timing
from experiments.studies.benchmark.step import CLASSES, EXAMPLES
from experiments.studies.scaling import shapes

# The steps of a timed run, and of one dispatch in the second case.
STEPS, TOGETHER = 64, 8


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """Steps one by one and eight per dispatch; every array of the state is one number.

  Also works in a job of several processes, where pmap does more work for each array.
  """
  del workdir
  recipe = shapes.recipe(config, EXAMPLES, CLASSES)
  state = jax.tree.map(lambda array: np.zeros((), array.dtype),
                       shapes.state(recipe, config.data.image_size))
  return [_case(f'{each} steps per dispatch' if each > 1 else 'one step per dispatch', state, each)
          for each in (1, TOGETHER)]


def _case(name: str, state, each: int) -> timing.Case:
  devices = jax.local_devices()
  step = parallel.pmap_step(functools.partial(loops.over_steps, _add_one), devices)
  batch = parallel.shard_steps([dict(one=np.ones(len(devices), np.float32))] * each, devices)
  held, in_call = [parallel.replicate(state, devices)], []

  def run():
    calls = STEPS // each
    for _ in range(calls):
      began = time.perf_counter()
      held[0], _ = step(held[0], batch)
      in_call.append((time.perf_counter() - began) / each)
      # Wait after each call: pending calls would delay the next one.
      jax.block_until_ready(held[0])
    return float(STEPS)

  return timing.Case(name, run, unit='steps', facts=lambda: dict(
      arrays=len(jax.tree.leaves(state)), processes=jax.process_count(),
      host_ms_per_step=1e3 * float(np.median(in_call[STEPS // each:]))))


def _add_one(state, batch):
  one = jnp.mean(batch['one'])
  return jax.tree.map(lambda x: x + one.astype(x.dtype), state), dict(one=one)
