import jax.numpy as jnp
import pytest

from experiments.studies.benchmark import timing


@pytest.fixture
def clock(monkeypatch):
  """A clock for wall and processor time that only moves when it is told to."""
  now = [0., 0.]
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
  monkeypatch.setattr(timing.time, 'process_time', lambda: now[1])
  return now


def case(clock, calls, name, seconds, **options):
  """Takes the next of `seconds` of wall clock for 10 images, on two cores."""
  seconds = iter([0., *seconds])

  def run():
    calls.append(name)
    taken = next(seconds)
    clock[0] += taken
    clock[1] += 2 * taken
    return 10.

  return timing.Case(name, run, **options)


def test_cases_are_run_in_turn_after_one_run_that_does_not_count(clock):
  calls = []
  slow, fast = timing.measure([case(clock, calls, 'slow', [10., 5., 2.]),
                               case(clock, calls, 'fast', [1., 1., 1.])], repeats=3)
  assert calls == ['slow', 'fast'] * 4
  assert (slow.per_second, slow.lowest, slow.highest) == (2., 1., 5.)
  assert fast.per_core_second == 5.
  assert slow.repeats == 3


def test_the_share_of_the_bound_is_taken_pair_by_pair(clock):
  # The machine is ten times slower in the second repeat, for both.
  bound, part = timing.measure([
      case(clock, [], 'bound', [1., 10., 1.]),
      case(clock, [], 'part', [4., 40., 2.], bound='bound', bound_work=2.)], repeats=3)
  assert bound.share_of_bound is None
  assert part.share_of_bound == .5


def test_settling_is_not_timed(clock):
  settled = []

  def settle():
    settled.append(clock[0])
    clock[0] += 100.

  result, = timing.measure([case(clock, [], 'x', [1., 1.], settle=settle)], repeats=2)
  assert len(settled) == 3 and result.per_second == 10.


def test_a_jitted_case_counts_its_images_and_tells_the_compilation():
  case = timing.jitted('sum', lambda batch: jnp.sum(batch['images']), dict(images=jnp.ones((7, 3))))
  assert case.run() == 7
  assert case.facts()['compile_seconds'] > 0


def test_the_memory_of_a_case_is_its_own():
  if not timing.RESET.exists():
    pytest.skip('the system does not tell the peak of resident memory')
  block = 2 ** 28
  big, small = timing.measure([timing.Case('big', lambda: len(bytearray(b'1') * block)),
                               timing.Case('small', lambda: 1)], repeats=1)
  assert big.peak_host_bytes - small.peak_host_bytes > .8 * block
