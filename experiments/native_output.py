"""Filters the notices of native libraries, which do not help a user, out of standard error.

TensorFlow, XLA and the image libraries write to file descriptor 2 themselves: log lines, and
complaints about an image that the run then reports in one clear line. The descriptor becomes a
pipe to a small process that drops these lines and passes on everything else. A process outlives
this one, so the last output of a crash is passed on however this process ends. Python's own
`sys.stderr` does not go through the pipe.

TF_CPP_MIN_LOG_LEVEL=0 in the environment lets everything through.
"""

import os
import re
import subprocess
import sys
from typing import BinaryIO

# Notices, warnings and errors; F, the message of a process before it aborts, is passed on.
LOG_LINE = re.compile(rb'[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog\(\)')
# The messages of libjpeg, libpng and libtiff about damaged images.
IMAGE_LINE = re.compile(
    rb'libpng (warning|error): |Improper call to JPEG library|Corrupt JPEG data|Premature end of '
    rb'(JPEG|input) file|Invalid (JPEG file structure|SOS parameters|progressive parameters|scan '
    rb'script|component ID|crop request)|Not a JPEG file|Empty (JPEG image|input file)|'
    rb'Unsupported (JPEG|color conversion|marker type)|Bogus |Inconsistent progression sequence|'
    rb'(Huffman|Quantization|Arithmetic) table 0x|Warning: (unknown JFIF|thumbnail image)|Sampling '
    rb'factors too large|Maximum supported image dimension|Unknown (Adobe|APP)|Insufficient memory '
    rb'\(case|tempfile\.tif: |(TIFF|LZW|Fax|ZIP|Deflate|PackBits)\w*: ')


def start() -> None:
  """Puts the filter behind file descriptor 2 of this process, once, before anything writes."""
  if os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '0' or sys.stderr is None:
    return
  # In its own session, so that Ctrl-C does not end it before this process.
  process = subprocess.Popen([sys.executable, '-I', '-S', __file__], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, start_new_session=True)
  own = os.fdopen(os.dup(2), 'w', buffering=1, encoding='utf-8', errors='backslashreplace')
  os.dup2(process.stdin.fileno(), 2)
  process.stdin.close()
  # It ends by itself, after this process and its children.
  process.returncode = 0
  sys.stderr = own


def forward(source: BinaryIO, target: BinaryIO) -> None:
  """Copies lines as they arrive, except for notices."""
  dropping = False
  for line in source:
    # A notice of several lines continues with a tab.
    dropping = bool(LOG_LINE.match(line)) or dropping and line.startswith(b'\t')
    if not dropping and not IMAGE_LINE.match(line):
      target.write(line)
      target.flush()


if __name__ == '__main__':
  forward(sys.stdin.buffer, sys.stderr.buffer)
