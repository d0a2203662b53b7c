"""The run as it is: pipeline, transfer and step together."""

import functools
import time

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import assembly, input_pipeline, loading, parallel
from byol_jax import train_step as byol
from byol_jax.benchmark import timing

STEPS = 8


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """The loop of a pretraining run, and the same with one batch again and again.

  Without waiting for data the first would be as fast as the second, its bound.
  """
  loader = loading.load(config.data, 'train', purpose='benchmark', workdir=workdir)
  resolved = assembly.resolve(config, loader.data)
  recipe = assembly.build_recipe(config, resolved)
  devices, size = jax.local_devices(), config.data.image_size
  step = parallel.pmap_step(functools.partial(byol.train_step, recipe=recipe), devices)
  init = jax.jit(lambda key: byol.init_state(key, jnp.zeros((2, size, size, 3)), recipe))
  batches = input_pipeline.to_devices(loader.train_batches(
      (config.view1.to_dict(), config.view2.to_dict()), seed=config.seed,
      batch_size=config.train.batch_size, first_step=0, last_step=10 ** 9, rows_only=True),
      devices, resident=loader.resident(devices))
  same = next(batches)
  state = lambda: parallel.replicate(init(jax.random.key(config.seed)), devices)
  return [_loop('step alone', step, state(), lambda: same, config.train.batch_size),
          _loop('run', step, state(), lambda: next(batches), config.train.batch_size,
                bound='step alone')]


def _loop(name: str, step, state, next_batch, batch_size: int, bound: str = '') -> timing.Case:
  held, waited, total = [state], [0.], [0.]

  def run():
    began = time.perf_counter()
    for _ in range(STEPS):
      asked = time.perf_counter()
      batch = next_batch()
      waited[0] += time.perf_counter() - asked
      held[0], _ = step(held[0], batch)
    jax.block_until_ready(held[0])
    total[0] += time.perf_counter() - began
    return float(STEPS * batch_size)

  return timing.Case(name, run, bound=bound,
                     facts=lambda: dict(share_waiting_for_data=waited[0] / total[0]))
