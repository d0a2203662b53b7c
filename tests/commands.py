"""The commands as processes."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def arguments(command, **flags):
  return [sys.executable, '-u', '-m', f'experiments.{command}',
          *(f'--{name.replace("__", ".")}={value}' for name, value in flags.items())]


def run(command, **flags):
  """Runs a command to its end; keyword config__seed=1 is --config.seed=1."""
  return subprocess.run(arguments(command, **flags), cwd=ROOT, capture_output=True, text=True,
                        timeout=300)


def start(command, **flags):
  """Starts a command; its output is a pipe of lines."""
  return subprocess.Popen(arguments(command, **flags), cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def digests(workdir):
  """The sha256 lines of `inspect`."""
  result = run('inspect', checkpoint=workdir)
  assert result.returncode == 0, result.stderr
  return [line for line in result.stdout.splitlines() if line.startswith('sha256')]
