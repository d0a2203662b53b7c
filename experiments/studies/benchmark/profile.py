"""Where a training step spends its time: a profile summed over the parts of the algorithm."""

from collections.abc import Iterable, Sequence
import functools
import pathlib
import re
from typing import NamedTuple

import jax
import ml_collections

from byol_jax import train_step
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from experiments.studies.benchmark import step as step_benchmark

STEPS = 3
# The number of instructions that are listed individually.
LARGEST = 8
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*$', re.MULTILINE)
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*\{$')
ROOT = re.compile(r'^\s*ROOT .*op_name="([^"]*)"')


class Cost(NamedTuple):
  """The time of an instruction of the compiled step.

  instruction: its name in the program.
  origin: path of the JAX operation that it comes from; '' if the compiler gives none.
  seconds: per step, summed over the threads or streams that ran it.
  """

  instruction: str
  origin: str
  seconds: float


def costs(config: ml_collections.ConfigDict, trace: pathlib.Path) -> list[Cost]:
  """Profiles the step of a config on random images and writes the profile to `trace`.

  It profiles the step compiled by `parallel.jit_step`, because its program can be read; the
  step of pmap is the same function.
  """
  devices = jax.local_devices()
  recipe, state, batch = step_benchmark.inputs(config, devices)
  compiled = parallel.jit_step(
      functools.partial(train_step.train_step, recipe=recipe), devices
  ).lower(state, batch).compile()
  state, _ = compiled(state, batch)
  jax.block_until_ready(state)
  with jax.profiler.trace(str(trace)):
    for _ in range(STEPS):
      state, _ = compiled(state, batch)
    jax.block_until_ready(state)
  newest = max(trace.glob('plugins/profile/*/*.xplane.pb'), key=lambda path: path.stat().st_mtime)
  return _per_instruction(jax.profiler.ProfileData.from_file(str(newest)), compiled.as_text())


def as_table(found: Sequence[Cost]) -> str:
  """Markdown: shares of the step by part and kind, then the largest instructions."""
  total = sum(cost.seconds for cost in found)
  sums = {}
  for cost in found:
    key = part(cost.origin), kind(cost.origin)
    sums[key] = sums.get(key, 0.) + cost.seconds
  lines = ['| part of the step | operations | share | ms per step |', '| --- | --- | ---: | ---: |']
  for (where, what), seconds in sorted(sums.items(), key=lambda item: -item[1]):
    if seconds >= total / 200:
      lines.append(f'| {where} | {what} | {100 * seconds / total:.1f} % | {1e3 * seconds:.1f} |')
  lines += ['', f'{1e3 * total:.0f} ms per step over all threads. Largest instructions:', '']
  largest = sorted(found, key=lambda cost: -cost.seconds)[:LARGEST]
  return '\n'.join(lines + [
      f'- {100 * cost.seconds / total:.1f} % `{cost.instruction}`: {cost.origin or "unknown"}'
      for cost in largest])


def part(origin: str) -> str:
  """The part of the algorithm that a JAX operation belongs to."""
  if not origin:
    return 'unknown'
  if '/views/' in origin:
    return 'views'
  if 'transpose(' in origin:
    return 'online network, backward'
  if '(target)' in origin:
    return 'target network, forward'
  if 'jvp(' in origin:
    return 'online network, forward'
  return 'update'


def kind(origin: str) -> str:
  """The kind of an operation."""
  if 'conv_general_dilated' in origin:
    return 'convolutions'
  if 'dot_general' in origin:
    return 'matrix products'
  if 'batchnorm' in origin or 'batch_norm' in origin:
    return 'BatchNorm'
  return 'others'


def _per_instruction(profile, program: str) -> list[Cost]:
  origins, seconds = _origins(program), {}
  for plane in profile.planes:
    for line in plane.lines:
      for name, duration in _own_times(line.events):
        if name in origins:
          seconds[name] = seconds.get(name, 0.) + duration / 1e9 / STEPS
  if not seconds:
    raise InputError('The profile has no instruction of the step; open it with TensorBoard.')
  return [Cost(name, origins[name], duration) for name, duration in seconds.items()]


def _own_times(events: Iterable) -> Iterable[tuple[str, float]]:
  """(instruction, nanoseconds without the instructions inside it) for one thread."""
  own, open_ = [], []
  found = sorted((event.start_ns, -event.duration_ns, name) for event in events
                 if (name := dict(event.stats).get('hlo_op'))
                 and not event.name.startswith('end: '))
  for start, negative, name in found:
    while open_ and open_[-1][0] <= start:
      open_.pop()
    if open_:
      own[open_[-1][1]][1] += negative
    open_.append((start - negative, len(own)))
    own.append([name, -negative])
  return [(name, duration) for name, duration in own]


def _origins(program: str) -> dict[str, str]:
  """{instruction: path of its JAX operation}; a fusion without one uses that of its result."""
  roots, computation = {}, ''
  for line in program.splitlines():
    if match := COMPUTATION.match(line):
      computation = match[1]
    elif match := ROOT.match(line):
      roots[computation] = match[1]
  origins = {}
  for match in INSTRUCTION.finditer(program):
    line = match[0]
    own, called = (re.search(pattern, line) for pattern in (r'op_name="([^"]*)"',
                                                            r'calls=%?([\w.-]+)'))
    origins[match[1]] = own[1] if own else roots.get(called[1], '') if called else ''
  return origins
