"""The complete run: pipeline, transfer and step together."""

import functools
import itertools
import time

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import build, train_step
from byol_jax.config import plain
from byol_jax.distributed import loops, parallel
from byol_jax.input_pipeline import loading, prefetch
from experiments.studies.benchmark import timing

# Steps of a timed run, or one dispatch if that is more.
STEPS = 8


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """The loop of a pretraining run, and the same loop with one batch repeated.

  Without waiting for data the first would be as fast as the second, its bound.
  """
  loader = loading.load(plain(config.data), 'train', purpose='benchmark', workdir=workdir)
  resolved = build.resolve(config, loader.data)
  recipe = build.build_recipe(config, resolved)
  devices, size = jax.local_devices(), config.data.image_size
  each, batch_size = config.train.steps_per_dispatch, config.train.batch_size
  step = parallel.pmap_step(functools.partial(
      loops.over_steps, functools.partial(train_step.train_step, recipe=recipe)), devices)
  init = jax.jit(lambda key: train_step.init_state(key, jnp.zeros((2, size, size, 3)), recipe))
  batches = prefetch.to_devices(loader.train_batches(
      (config.view1.to_dict(), config.view2.to_dict()), seed=config.seed, batch_size=batch_size,
      first_step=0, last_step=10 ** 9, rows_only=True),
      devices, resident=loader.resident(devices), steps=itertools.repeat(each))
  same = next(batches)
  state = lambda: parallel.replicate(init(jax.random.key(config.seed)), devices)
  loop = functools.partial(_loop, step, images=each * batch_size, dispatches=-(-STEPS // each))
  return [loop('step alone', state(), lambda: same),
          loop('run', state(), lambda: next(batches), bound='step alone')]


def _loop(step, name: str, state, next_batch, images: int, dispatches: int, bound: str = ''
          ) -> timing.Case:
  """The case of a loop; `images` is the number of images per dispatch."""
  held, waited, total = [state], [0.], [0.]

  def run():
    began = time.perf_counter()
    for _ in range(dispatches):
      asked = time.perf_counter()
      batch = next_batch()
      waited[0] += time.perf_counter() - asked
      held[0], _ = step(held[0], batch)
    jax.block_until_ready(held[0])
    total[0] += time.perf_counter() - began
    return float(dispatches * images)

  return timing.Case(name, run, bound=bound,
                     facts=lambda: dict(share_waiting_for_data=waited[0] / total[0]))
