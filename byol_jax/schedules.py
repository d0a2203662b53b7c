"""Converts epochs to steps; the learning rate and tau as functions of the step."""

import jax
import jax.numpy as jnp
import optax

from byol_jax.errors import InputError

MOST_STEPS = 2 ** 31 - 1  # the counter of a run is an int32

def num_steps(epochs: float, num_examples: int, batch_size: int) -> int:
  """The number of steps in `epochs` passes over `num_examples` images: product // batch size.

  This matches the reference implementation: 1000 epochs of ImageNet's 1,281,167 images
  at batch 4096 are 312,784 steps.

  Raises:
    InputError: more steps than a run can count.
  """
  if epochs * num_examples / batch_size > MOST_STEPS:
    raise InputError(f'{epochs:g} epochs of {num_examples} images at batch {batch_size} make more '
                     f'than {MOST_STEPS} steps; give fewer epochs.')
  return int(epochs * num_examples // batch_size)


def learning_rate(
    step: jax.Array | int,
    *,
    base_learning_rate: float,
    batch_size: int,
    warmup_steps: int,
    max_steps: int,
) -> jax.Array:
  """Linear warm-up from 0, then half a cosine to 0 (paper, section 3.3).

  Args:
    step: optimizer steps done so far.
    base_learning_rate: the peak at batch size 256; it scales linearly with the batch size.
    batch_size: images per step over all devices.
    warmup_steps: steps until the peak; less than `max_steps`.
    max_steps: total steps of the run.

  Returns:
    The learning rate of this step, a scalar.
  """
  peak = base_learning_rate * batch_size / 256
  return optax.warmup_cosine_decay_schedule(0., peak, warmup_steps, max_steps)(step)


# Tau increases to 1 along a cosine (section 3.3), or stays constant (Table 5a, tau 0).
TAU_SCHEDULES = ('cosine', 'constant')


def tau(step: jax.Array | int, *, base_tau: float, max_steps: int, schedule: str,
        batch_ratio: float = 1.) -> jax.Array:
  """tau_k = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 (paper, section 3.3), or tau_base.

  Args:
    step: k, optimizer steps done so far.
    base_tau: in [0, 1].
    max_steps: K, total steps of the run.
    schedule: one of TAU_SCHEDULES.
    batch_ratio: batch size divided by the batch size that `base_tau` was chosen for. tau_k is
      raised to this power, so one step moves the target as far as that many steps at the smaller
      batch (Busbridge et al. 2023, arXiv 2307.13813). Appendix G's 0.996 at batch 4096 becomes
      0.9995 at 512.
  """
  now = (jnp.float32(base_tau) if schedule == 'constant'
         else 1. - optax.cosine_decay_schedule(1. - base_tau, max_steps)(step))
  return now if batch_ratio == 1 else now ** batch_ratio
