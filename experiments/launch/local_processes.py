"""Starts a command as a job of several processes on this machine, to test without a pod.

  python -m experiments.launch.local_processes --processes=2 --restarts=3 -- \
      python -m experiments.pretrain --config=experiments/configs/demo.py --workdir=DIR

Each process gets --coordinator_address, --num_processes and --process_id. If one ends
with an error, the others are ended too. After that, or after a preemption, the job is
restarted, at most --restarts times. SIGTERM, SIGINT and SIGHUP are passed on to all processes.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time

from absl import app, flags

from byol_jax.distributed import preemption

flags.DEFINE_integer('processes', 2, 'Number of processes in the job.', lower_bound=1)
flags.DEFINE_integer('restarts', 0, 'How often to restart a job that ended early.')
flags.DEFINE_float('grace', 10., 'Seconds for the other processes to end by themselves.')


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def run_job(command: list[str], processes: int, grace: float, running: list, started) -> int:
  """Runs the job once and calls started(); returns the first exit code that is not 0, or 0."""
  port = free_port()
  running[:] = [subprocess.Popen([*command, f'--coordinator_address=127.0.0.1:{port}',
                                  f'--num_processes={processes}', f'--process_id={i}'],
                                 # Ctrl-C reaches them only once, through this process.
                                 process_group=0)
                for i in range(processes)]
  started()
  code, deadline = 0, None
  while any(process.poll() is None for process in running):
    code = code or next((p.poll() for p in running if p.poll()), 0)
    if code and deadline is None:
      deadline = time.monotonic() + grace
    if deadline and time.monotonic() > deadline:
      for process in running:
        process.kill()
    time.sleep(.05)
  return code or next((p.returncode for p in running if p.returncode), 0)


def main(arguments: list[str]) -> None:
  if len(arguments) < 2 or not shutil.which(arguments[1]):
    sys.exit(f'error: {arguments[1] if arguments[1:] else "nothing"} is not a command; give one '
             'after --, as in the first lines of experiments/launch/local_processes.py.')
  running: list[subprocess.Popen] = []
  asked = []

  def pass_on(number, _):
    asked.append(number)
    for process in running:
      if process.poll() is None:
        process.send_signal(number)

  for number in preemption.SIGNALS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, pass_on)
  code = 0
  for _ in range(flags.FLAGS.restarts + 1):
    if asked:
      code = 128 + asked[0]
      break
    code = run_job(arguments[1:], flags.FLAGS.processes, flags.FLAGS.grace, running,
                   lambda: asked and pass_on(asked[0], None))
    if not code or asked:
      break
    print(f'The job ended with code {code}'
          f'{" (preempted)" if code == preemption.EXIT_CODE else ""}.', file=sys.stderr, flush=True)
  sys.exit(128 - code if code < 0 else code)


if __name__ == '__main__':
  app.run(main)
