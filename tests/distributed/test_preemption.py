"""Requests to stop are noted, once; what has nothing to save ends at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from byol_jax.distributed import preemption


def wait_until(condition, seconds=60.):
  """Whether the condition comes true in time."""
  deadline = time.monotonic() + seconds
  while not condition() and time.monotonic() < deadline:
    pass
  return condition()


def start(body):
  """A process in `body` within the imports; it has printed a line."""
  process = subprocess.Popen(
      [sys.executable, '-c', f'import os, signal, sys\n'
       f'from byol_jax.distributed import preemption\n{body}'],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  process.stdout.readline()
  return process


def ending(process):
  output, error = process.communicate(timeout=60)
  return process.returncode, output, error


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_a_signal_is_noted_and_the_old_handler_comes_back(number, capfd):
  before = signal.getsignal(number)
  with preemption.listening() as asked:
    assert asked() == 0
    os.kill(os.getpid(), number)
    assert wait_until(asked) == number
  assert signal.getsignal(number) is before
  assert capfd.readouterr().out == (
      f'{number.name}: the run saves a checkpoint and ends; a second signal ends it at once '
      'without saving.\n')


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_without_anything_to_save_a_signal_ends_the_process_with_a_line(number):
  process = start('with preemption.handling(preemption.leave):\n'
                  '  print("ready", flush=True)\n  while True: signal.pause()')
  process.send_signal(number)
  assert ending(process) == (128 + number, '', f'Stopped by {number.name}. Run the same command '
                             'to start again.\n')


def test_what_is_ignored_stays_ignored():
  process = start('signal.signal(signal.SIGHUP, signal.SIG_IGN)\n'
                  'with preemption.listening() as asked:\n'
                  '  os.kill(os.getpid(), signal.SIGHUP)\n  print("ready", flush=True)\n'
                  '  while not asked(): pass\n  print(asked())')
  process.send_signal(signal.SIGTERM)
  code, output, _ = ending(process)
  assert (code, output.splitlines()[-1]) == (0, '15')


def test_signals_that_come_together_and_hang_ups_are_one_request(monkeypatch, capfd):
  left = []
  monkeypatch.setattr(preemption, 'leave', left.append)
  clock = [0.]
  monkeypatch.setattr(preemption.time, 'monotonic', lambda: clock[0])
  # The context ends when its thread has reacted to all signals.
  with preemption.listening() as asked:
    os.kill(os.getpid(), signal.SIGINT)
    wait_until(asked)
    os.kill(os.getpid(), signal.SIGTERM)
  assert left == []
  with preemption.listening() as asked:
    os.kill(os.getpid(), signal.SIGINT)
    wait_until(asked)
    clock[0] = 1.
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGINT)
  assert left == [signal.SIGINT]
  capfd.readouterr()


def test_a_line_that_nobody_reads_is_a_request_to_stop():
  process = start('with preemption.listening() as asked:\n'
                  '  print("ready", flush=True)\n'
                  '  while not asked(): preemption.print_line("a line")\n'
                  '  preemption.print_line("another")\n  print(asked(), file=sys.stderr)')
  process.stdout.close()
  assert process.stderr.read() == '1\n' and process.wait() == 0


@pytest.mark.parametrize('code, stop', [
    (75, True), (130, True), (143, True), (129, True), (-15, True), (-2, True), (0, False),
    (1, False), (-9, False), (137, False)])
def test_the_code_of_a_process_says_whether_it_was_asked_to_stop(code, stop):
  assert preemption.is_stop(code) == stop


@pytest.mark.parametrize('busy', ['signal.pause()', 'ctypes.CDLL(None).pthread_mutex_lock(mutex)'])
def test_a_second_signal_ends_the_process_at_once(busy):
  # A mutex locked twice never comes back to Python, as a collective without the others.
  code = ('import ctypes, signal\nfrom byol_jax.distributed import preemption\n'
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
  assert found == [0]


@pytest.mark.parametrize('number, name', [(signal.SIGINT, 'SIGINT'),
                                          (0, 'a signal to another process')])
def test_the_message_names_the_signal_and_the_step(number, name):
  assert str(preemption.after_step(5, 12, number)) == (
      f'Stopped by {name} after step 5 of 12; a checkpoint is saved. Run the same command to '
      'resume from it.')
