"""The commands as processes."""

import os
import pathlib
import re
import subprocess
import sys

from experiments.launch import local_processes

ROOT = pathlib.Path(__file__).parents[1]
DEVICES = 4


def arguments(command, **flags):
  return [sys.executable, '-u', '-m', f'experiments.{command}',
          *(f'--{name.replace("__", ".")}={value}' for name, value in flags.items())]


def run(command, *positional, **flags):
  """Runs a command to its end; keyword config__seed=1 is --config.seed=1."""
  return subprocess.run([*arguments(command, **flags), *positional], cwd=ROOT,
                        capture_output=True, text=True, timeout=900)


def start(command, **flags):
  """Starts a command; its output is a pipe of lines."""
  return subprocess.Popen(arguments(command, **flags), cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def start_job(processes, command, *, restarts=0, devices=DEVICES, environment=None, **flags):
  """Starts a command as a job that has so many devices together; its output as `start`'s."""
  xla = re.sub(r'--xla_force_host_platform_device_count=\d+', '', os.environ['XLA_FLAGS'])
  xla += f' --xla_force_host_platform_device_count={devices // processes}'
  launch = [] if processes == 1 else [
      sys.executable, '-u', '-m', 'experiments.launch.local_processes',
      f'--processes={processes}', f'--restarts={restarts}', '--']
  return subprocess.Popen(
      [*launch, *arguments(command, **flags)], cwd=ROOT, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True,
      env={**os.environ, 'XLA_FLAGS': xla, **(environment or {})})


def start_alone(processes, command, *, each=({}, {}), devices, **flags):
  """Starts the processes of a job without a launcher, `each` with flags of its own."""
  xla = re.sub(r'--xla_force_host_platform_device_count=\d+', '', os.environ['XLA_FLAGS'])
  xla += f' --xla_force_host_platform_device_count={devices // processes}'
  address = f'127.0.0.1:{local_processes.free_port()}'
  return [subprocess.Popen(
      arguments(command, coordinator_address=address, num_processes=processes, process_id=i,
                **{**flags, **own}), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      text=True, env={**os.environ, 'XLA_FLAGS': xla}) for i, own in enumerate(each)]


def run_job(processes, command, **options):
  """Runs such a job to its end: exit code and output."""
  with start_job(processes, command, **options) as process:
    output = process.stdout.read()
  return process.returncode, output


def digests(workdir):
  """The sha256 lines of `inspect`."""
  result = run('inspect', checkpoint=workdir)
  assert result.returncode == 0, result.stderr
  return [line for line in result.stdout.splitlines() if line.startswith('sha256')]
