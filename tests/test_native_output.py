"""Notices of native libraries are dropped; everything else is passed on, whatever comes next."""

import io
import os
import signal
import subprocess
import sys

import pytest

from experiments import native_output
from tests import commands


@pytest.mark.parametrize('text, passed', [
    ('W0000 00:00:1 local_rendezvous.cc:412] aborting\n\t [[{{node x}}]]\nours\n', 'ours\n'),
    ('WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n',
     ''),
    ('I0000 a\nE1127 b\n\tc\nF1127 last\n\tits trace\n', 'F1127 last\n\tits trace\n'),
    ('Improper call to JPEG library in state 201\nCorrupt JPEG data: 3 extraneous bytes\n'
     'Premature end of JPEG file\nlibpng warning: iCCP: known incorrect sRGB profile\n'
     'tempfile.tif: Using code not yet in table.\nLZWDecode: Not enough data\n', ''),
    ('WARNING ours\ndouble free or corruption\nno line break', 'WARNING ours\n'
     'double free or corruption\nno line break'),
    ('Error: W0000 within a line\n\tindented\n', 'Error: W0000 within a line\n\tindented\n')])
def test_lines_are_passed_on_unless_they_are_notices(text, passed):
  target = io.BytesIO()
  native_output.forward(io.BytesIO(text.encode()), target)
  assert target.getvalue().decode() == passed


def outcome(body, **environment):
  """Code and standard error of a process behind the filter."""
  code = f'import os, signal, sys\nfrom experiments import native_output\n{body}'
  result = subprocess.run([sys.executable, '-c', code], cwd=commands.ROOT, capture_output=True,
                          text=True, env={**os.environ, **environment}, check=False)
  return result.returncode, sorted(result.stderr.splitlines())


WRITE = ('native_output.start()\nos.write(2, b"W0000 notice\\n\\tmore\\nF0000 last words\\n")\n'
         'print("error: ours", file=sys.stderr)\n')


@pytest.mark.parametrize('end, code', [
    ('', 0), ('os._exit(3)', 3), ('os.abort()', -signal.SIGABRT),
    ('os.kill(os.getpid(), signal.SIGKILL)', -signal.SIGKILL)])
def test_nothing_is_lost_however_the_process_ends(end, code):
  assert outcome(WRITE + end) == (code, ['F0000 last words', 'error: ours'])


def test_who_sets_the_level_of_the_log_sees_everything():
  assert outcome(WRITE, TF_CPP_MIN_LOG_LEVEL='0') == (
      0, ['\tmore', 'F0000 last words', 'W0000 notice', 'error: ours'])


def test_tensorflow_says_nothing_of_a_file_that_is_no_image():
  code, lines = outcome(
      'native_output.start()\nimport tensorflow as tf\n'
      'files = tf.data.Dataset.from_tensors(b"no image").map(tf.io.decode_image)\n'
      'try:\n  list(files)\nexcept tf.errors.InvalidArgumentError:\n'
      '  print("error: ours", file=sys.stderr)\n')
  assert (code, lines) == (0, ['error: ours'])
