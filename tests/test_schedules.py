import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import schedules

# Of the paper's main run: ImageNet, 1000 epochs at batch 4096, 10 of them warm-up.
IMAGENET, BATCH, MAX_STEPS, WARMUP_STEPS = 1_281_167, 4096, 312_784, 3_127


def learning_rate(step, **changes):
  return schedules.learning_rate(step, **(dict(
      base_learning_rate=.2, batch_size=BATCH, warmup_steps=WARMUP_STEPS,
      max_steps=MAX_STEPS) | changes))


@pytest.mark.parametrize('epochs, num_examples, batch_size, steps', [
    (1000, IMAGENET, BATCH, MAX_STEPS), (10, IMAGENET, BATCH, WARMUP_STEPS),
    (1, 4095, BATCH, 0), (1, BATCH, BATCH, 1), (.5, 1000, 100, 5), (0, 1000, 10, 0),
    (2, 9, 4, 4)])
def test_num_steps_rounds_the_product_down(epochs, num_examples, batch_size, steps):
  result = schedules.num_steps(epochs, num_examples, batch_size)
  assert result == steps and type(result) is int


@pytest.mark.parametrize('step, expected', [
    (0, 0.), (WARMUP_STEPS / 2, 1.6), (WARMUP_STEPS, 3.2),
    ((WARMUP_STEPS + MAX_STEPS) / 2, 1.6), (MAX_STEPS, 0.), (2 * MAX_STEPS, 0.)])
def test_learning_rate_of_the_paper(step, expected):
  np.testing.assert_allclose(learning_rate(step), expected, atol=1e-6)


@pytest.mark.parametrize('warmup_steps', [0, 1, 7])
def test_learning_rate_against_numpy(warmup_steps):
  steps, last = np.arange(41), 40
  peak = .3 * 512 / 256
  progress = (steps - warmup_steps) / (last - warmup_steps)
  expected = np.where(steps < warmup_steps, peak * steps / max(warmup_steps, 1),
                      peak * (1 + np.cos(np.pi * progress)) / 2)
  actual = jax.jit(lambda step: learning_rate(
      step, base_learning_rate=.3, batch_size=512, warmup_steps=warmup_steps,
      max_steps=last))(jnp.asarray(steps))
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  assert np.argmax(actual) == warmup_steps


@pytest.mark.parametrize('batch_size', [64, 256, 4096])
def test_the_peak_grows_linearly_with_the_batch(batch_size):
  np.testing.assert_allclose(learning_rate(WARMUP_STEPS, batch_size=batch_size),
                             .2 * batch_size / 256, rtol=1e-6)


@pytest.mark.parametrize('base_tau', [0., .97, .996, 1.])
def test_tau_rises_from_its_base_to_one(base_tau):
  steps = np.arange(0, 101)
  actual = np.asarray(schedules.tau(jnp.asarray(steps), base_tau=base_tau, max_steps=100,
                                    schedule='cosine'))
  expected = 1 - (1 - base_tau) * (np.cos(np.pi * steps / 100) + 1) / 2
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  np.testing.assert_allclose(actual[[0, 50, 100]], [base_tau, (1 + base_tau) / 2, 1], atol=1e-6)


def test_tau_stays_one_after_the_end():
  assert schedules.tau(150, base_tau=.9, max_steps=100, schedule='cosine') == 1.


def test_a_constant_tau_stays():
  for step in (0, 50, 100):
    assert schedules.tau(step, base_tau=.25, max_steps=100, schedule='constant') == .25


@pytest.mark.parametrize('schedule', schedules.TAU_SCHEDULES)
def test_tau_of_another_batch_moves_the_target_as_far_for_as_many_images(schedule):
  """Two steps of half the batch leave as much of the old target as one of the whole."""
  tau = lambda ratio: schedules.tau(30, base_tau=.9, max_steps=100, schedule=schedule,
                                    batch_ratio=ratio)
  np.testing.assert_allclose(tau(.5) ** 2, tau(1.), rtol=1e-6)
  np.testing.assert_allclose(tau(4.), tau(1.) ** 4, rtol=1e-6)


def test_the_batch_ratio_takes_the_papers_tau_to_that_of_its_small_batch():
  # 0.996 at batch 4096 (section 3.3), 0.9995 at 512 (appendix G).
  small = schedules.tau(0, base_tau=.996, max_steps=100, schedule='cosine', batch_ratio=512 / 4096)
  assert round(float(small), 4) == .9995
