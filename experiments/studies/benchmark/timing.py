"""Times cases in turn in one process, so that a drift of the machine affects all equally."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
import statistics
import time
from typing import Any, NamedTuple

import jax

MEMORY = pathlib.Path('/proc/self/status')
RESET = pathlib.Path('/proc/self/clear_refs')


class Case(NamedTuple):
  """One thing to time.

  name: its name in the table.
  run: does the work once and waits for its end; returns how much was done, in `unit`.
  unit: unit of the work.
  settle: called before the clock starts, to consume what was prepared in advance.
  bound: name of the case that does only the unavoidable part; '' for none.
  bound_work: work of the bound, in its unit, that one `unit` of this case needs.
  facts: called at the end, returns other facts to report.
  """

  name: str
  run: Callable[[], float]
  unit: str = 'images'
  settle: Callable[[], None] = lambda: None
  bound: str = ''
  bound_work: float = 1.
  facts: Callable[[], Mapping[str, Any]] = dict


class Result(NamedTuple):
  """The measurement of a case; rates are in its unit per second.

  name: name of the case.
  unit: unit of the work.
  per_second: median over the repeats.
  lowest: lowest rate of the repeats.
  highest: highest rate of the repeats.
  per_core_second: median of the rate per second of processor time, over all threads.
  bound: name of the bound, '' for none.
  share_of_bound: median over the repeats of the share of the bound's rate; None without bound.
  peak_host_bytes: highest resident memory of the process in the case; None if the
    system does not report it.
  repeats: number of timed runs, after one untimed run.
  facts: other facts about the case.
  """

  name: str
  unit: str
  per_second: float
  lowest: float
  highest: float
  per_core_second: float
  bound: str
  share_of_bound: float | None
  peak_host_bytes: int | None
  repeats: int
  facts: Mapping[str, Any]


def measure(cases: Sequence[Case], repeats: int) -> list[Result]:
  """Runs every case once untimed, then all of them in turn `repeats` times."""
  for case in cases:
    case.settle()
    case.run()
  rates = {case.name: [] for case in cases}
  per_core = {case.name: [] for case in cases}
  peaks = {case.name: [] for case in cases}
  for _ in range(repeats):
    for case in cases:
      case.settle()
      _reset_peak()
      processor, wall = time.process_time(), time.perf_counter()
      work = case.run()
      processor, wall = time.process_time() - processor, time.perf_counter() - wall
      rates[case.name].append(work / wall)
      per_core[case.name].append(work / processor)
      peaks[case.name].append(_peak())
  return [_result(case, rates, per_core[case.name], peaks[case.name]) for case in cases]


def jitted(name: str, function: Callable[..., Any], batch: Any) -> Case:
  """A case that calls a jitted `function(batch)`; its work is the batch's images."""
  images, facts = len(jax.tree.leaves(batch)[0]), {}
  started = time.perf_counter()
  compiled = jax.jit(function).lower(batch).compile()
  facts['compile_seconds'] = time.perf_counter() - started
  if memory := compiled.memory_analysis():
    facts['temporary_bytes'] = memory.temp_size_in_bytes

  def run():
    jax.block_until_ready(compiled(batch))
    return float(images)

  return Case(name, run, facts=lambda: facts)


def _result(case: Case, rates, per_core, peaks) -> Result:
  own, share = rates[case.name], None
  if case.bound:
    # Pair by pair: a temporary slowdown of the machine affects both.
    share = statistics.median(rate * case.bound_work / bound
                              for rate, bound in zip(own, rates[case.bound]))
  return Result(case.name, case.unit, statistics.median(own), min(own), max(own),
                statistics.median(per_core), case.bound, share,
                max(peaks) if None not in peaks else None, len(own), dict(case.facts()))


def _reset_peak() -> None:
  if RESET.exists():
    RESET.write_text('5')


def _peak() -> int | None:
  if not RESET.exists():
    return None
  line = next(line for line in MEMORY.read_text().splitlines() if line.startswith('VmHWM'))
  return 1024 * int(line.split()[1])
