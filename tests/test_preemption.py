"""SIGTERM is noted, once."""

import os
import signal
import subprocess
import sys
import threading

from byol_jax import preemption


def test_a_signal_is_noted_and_the_old_handler_comes_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.listening() as asked:
    assert not asked()
    os.kill(os.getpid(), signal.SIGTERM)
    assert asked()
  assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_process_at_once():
  code = ('import os, signal\nfrom byol_jax import preemption\n'
          'with preemption.listening():\n'
          '  for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\n'
          '  print("not reached")\n')
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert result.returncode == 128 + signal.SIGTERM and not result.stdout


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
