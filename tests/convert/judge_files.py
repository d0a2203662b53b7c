"""Loads files in a process with little memory and notes what happens; prints JSON.

  python judge_files.py FILE ...     the first is sound, and only warms the process up
"""

import json
import resource
import sys
import time

from byol_jax.convert import pickles
from byol_jax.errors import InputError

MEMORY = 1 << 30
HARMLESS = ('object.__', 'gc.', 'marshal.', 'sys._getframe', 'builtins.id', 'code.__new__',
            'os.fstat', 'os.stat', 'cpython.')

events, listening = [], [False]


def note(event, arguments):
  if listening[0] and not event.startswith(HARMLESS):
    events.append([event, str(arguments[0]) if event == 'open' else ascii(arguments)[:100]])


def judge(path):
  began = time.process_time()
  events.clear()
  listening[0] = True
  outcomes = []
  for function in (pickles.load, pickles.scan):
    try:
      found = function(path)
      outcomes.append(getattr(found, 'refusal', 'loaded'))
    except InputError as error:
      outcomes.append(str(error))
  listening[0] = False
  return dict(load=outcomes[0], scan=outcomes[1], seconds=time.process_time() - began,
              events=[event for event in events if event != ['open', path]])


def main(paths):
  pickles.load(paths[0]), pickles.scan(paths[0])
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  sys.addaudithook(note)
  print(json.dumps({path: judge(path) for path in paths[1:]}))


if __name__ == '__main__':
  main(sys.argv[1:])
