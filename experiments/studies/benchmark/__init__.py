"""Benchmarks of the parts of a run: one module per part, found by the name of the part.

A module defines `cases(config, workdir) -> list[timing.Case]` for a pretraining config;
`workdir` is a scratch folder. Data are the config's own, or random if a part needs none.
"""

from collections.abc import Sequence
import importlib
import json
import os
import platform
import tempfile

from etils import epath
import jax
import ml_collections

from experiments.studies.benchmark import timing

PARTS = ('input', 'augment', 'step', 'dispatch', 'end_to_end', 'eval', 'retrieval')


def run(part: str, config: ml_collections.ConfigDict, *, repeats: int, trace: str | None
        ) -> list[timing.Result]:
  """Times a part of PARTS; writes a profile of one more repeat into the folder `trace`."""
  module = importlib.import_module(f'experiments.studies.benchmark.{part}')
  with tempfile.TemporaryDirectory() as workdir:
    cases = module.cases(config, epath.Path(workdir))
    results = timing.measure(cases, repeats)
    if trace:
      with jax.profiler.trace(trace):
        for case in cases:
          case.run()
  return results


def as_json(results: Sequence[timing.Result]) -> str:
  """One JSON object per line, each with the machine and the versions."""
  return '\n'.join(json.dumps(machine() | result._asdict()) for result in results)


def as_table(results: Sequence[timing.Result]) -> str:
  """A Markdown table, and below it the other facts that the cases report."""
  lines = ['| case | per second | spread | per core second | share of bound | peak memory |',
           '| --- | ---: | ---: | ---: | ---: | ---: |']
  for result in results:
    share = '' if result.share_of_bound is None else (
        f'{100 * result.share_of_bound:.0f} % of {result.bound}')
    memory = '' if result.peak_host_bytes is None else f'{result.peak_host_bytes / 2**20:.0f} MiB'
    rates = f'{result.per_second:.4g} {result.unit} | {result.lowest:.4g} to {result.highest:.4g}'
    lines.append(f'| {result.name} | {rates} | {result.per_core_second:.4g} | {share} | {memory} |')
  lines += [f'{result.name}: ' + ', '.join(f'{name} {_shown(value)}'
                                           for name, value in result.facts.items())
            for result in results if result.facts]
  return '\n'.join([*lines, ', '.join(f'{name} {value}' for name, value in machine().items())])


def machine() -> dict[str, str | int]:
  """The machine and versions of the measurement."""
  device = jax.devices()[0]
  return dict(device_kind=device.device_kind, devices=jax.device_count(),
              cores=len(os.sched_getaffinity(0)), python=platform.python_version(),
              jax=jax.__version__)


def _shown(value) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)
