"""SIGTERM is noted, once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from byol_jax import preemption


def wait_until(condition, seconds=60.):
  """Whether the condition comes true in time."""
  deadline = time.monotonic() + seconds
  while not condition() and time.monotonic() < deadline:
    pass
  return condition()


def test_a_signal_is_noted_and_the_old_handler_comes_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.listening() as asked:
    assert not asked()
    os.kill(os.getpid(), signal.SIGTERM)
    assert wait_until(asked)
  assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize('busy', ['signal.pause()', 'ctypes.CDLL(None).pthread_mutex_lock(mutex)'])
def test_a_second_signal_ends_the_process_at_once(busy):
  # A mutex locked twice never comes back to Python, as a collective without the others.
  code = ('import ctypes, signal\nfrom byol_jax import preemption\n'
          'mutex = ctypes.create_string_buffer(64)\n'
          'with preemption.listening():\n'
          f'  print("ready", flush=True)\n  while True: {busy}\n')
  with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    while process.poll() is None:
      process.send_signal(signal.SIGTERM)
  assert process.returncode == 128 + signal.SIGTERM


def test_outside_of_the_main_thread_nothing_is_noted():
  found = []

  def run():
    with preemption.listening() as asked:
      found.append(asked())

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert found == [False]


def test_the_message_names_the_step():
  assert 'after step 5 of 12' in str(preemption.Preempted(5, 12))
