"""Results that cannot be recomputed in a test: measured rates and the compiler's numbers.

They are saved in a JSON file beside the page, each with its machine and date.
"""

from collections.abc import Mapping, Sequence
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import jax

from byol_jax import files
from experiments.studies.scaling import input_rate

FILE = 'scaling.json'
# Hosts of the simulated runs, with the number of timed batches and of batches before them;
# each has about the same number of images.
HOSTS = ((1, 2, 1), (8, 8, 2), (64, 40, 8))
# What identifies a compilation.
COMPILED = ('depth', 'width', 'dtype', 'topology', 'batch_per_core')


def read(folder: str | pathlib.Path) -> dict[str, Any]:
  """The results of a folder; empty if there is no file."""
  path = pathlib.Path(folder) / FILE
  return json.loads(path.read_text()) if path.exists() else dict(input=None, compiled=[])


def write(folder: str | pathlib.Path, results: Mapping[str, Any]) -> None:
  """Replaces the results of a folder."""
  path = pathlib.Path(folder) / FILE
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path) as file:
    file.write(json.dumps(results, indent=1) + '\n')


def with_input(results: Mapping[str, Any], data: Mapping[str, Any], policies,
               batch_size: int) -> dict[str, Any]:
  """The results with the input pipeline's rates, measured now on this machine.

  Args:
    results: the results so far.
    data: a config's `data` section, with the tf_data pipeline.
    policies: one for each view.
    batch_size: batch size over all hosts.
  """
  rates = [input_rate.measure(data, policies, host_count=hosts, batch_size=batch_size,
                              steps=steps, warmup=warmup) for hosts, steps, warmup in HOSTS]
  return dict(results, input=dict(
      date=datetime.date.today().isoformat(), machine=machine(), image_size=data['image_size'],
      batch_size=batch_size, **input_rate.encoded(data), rates=rates,
      digest_bytes_per_core_second=input_rate.digest_rate()))


def with_compiled(results: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, Any]:
  """Adds the results of a compilation; they replace those of an earlier identical one."""
  same = lambda other: all(other[key] == costs[key] for key in COMPILED)
  rows = [row for row in results['compiled'] if not same(row)]
  rows.append(dict(costs, date=datetime.date.today().isoformat(), machine=machine()))
  return dict(results, compiled=sorted(rows, key=lambda row: [row[key] for key in COMPILED]))


def find(rows: Sequence[Mapping[str, Any]], **wanted) -> list[Mapping[str, Any]]:
  """The compilations with these values."""
  return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def machine() -> str:
  """This machine in words: processor, cores, Python, jax and TensorFlow."""
  processor = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    models = [line.split(':')[1].strip() for line in info.read_text().splitlines()
              if line.startswith('model name')]
    processor = models[0] if models else processor
  # The package has two names; one of them is installed.
  versions = {d.name.replace('_', '-').lower(): d.version
              for d in importlib.metadata.distributions()}
  tensorflow = versions.get('tensorflow-cpu') or versions.get('tensorflow', 'absent')
  return (f'{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, '
          f'jax {jax.__version__}, TensorFlow {tensorflow}')
