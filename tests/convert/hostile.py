"""Hostile pickles by mechanism, put together from instructions, each with the reason for refusal.

Each payload of COMMAND would leave a file behind if it were executed.
"""

import pickle
import struct

SENTINEL = 'executed'
COMMAND = f'touch {SENTINEL}'


def text(value):
  data = value.encode('utf-8', 'surrogatepass')
  return b'X' + struct.pack('<I', len(data)) + data


def name(module, attribute):
  """GLOBAL, whose parts end with a line."""
  return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def stack_name(module, attribute):
  return text(module) + text(attribute) + b'\x93'


def call(function, *arguments):
  return function + b'(' + b''.join(arguments) + b't' + b'R'


def put(number):
  return b'r' + struct.pack('<I', number)


def get(number):
  return b'j' + struct.pack('<I', number)


def number(value):
  return b'\x8a\x08' + struct.pack('<q', value)


def file(*parts, protocol=2):
  return b'\x80' + bytes([protocol]) + b''.join(parts) + b'.'


def entry(value, key='experiment_state'):
  return b'}' + text(key) + value + b's'


COMMANDS = {
    'os': 'system', 'posix': 'system', 'nt': 'system', 'subprocess': 'getoutput',
    'builtins': 'eval', '__builtin__': 'execfile', 'pty': 'spawn', 'runpy': 'run_path',
    'importlib': 'import_module', 'pickle': 'loads', 'marshal': 'loads', 'dill': 'loads',
    'numpy': 'load', 'numpy.testing._private.utils': 'runstring', 'torch': 'load',
    'cProfile': 'run', 'timeit': 'timeit', 'webbrowser': 'open', 'ctypes': 'CDLL',
    'shutil': 'rmtree', 'jax': 'jit', 'haiku._src.data_structures': 'map'}
BUILTINS = ('exec', 'compile', '__import__', 'getattr', 'delattr', 'open', 'type', 'map', 'apply',
            'bytearray')
DILL = ('_create_function', '_create_type', '_create_code', '_import_module', '_get_attr',
        '_load_type', '_create_capsule', '_eval_repr')
MAPPING = name('haiku._src.data_structures', 'FlatMapping')
RECONSTRUCT = name('numpy.core.multiarray', '_reconstruct')
ENCODE = name('_codecs', 'encode')
ARRAY = call(RECONSTRUCT, name('numpy', 'ndarray'), b'K\0\x85', call(ENCODE, text('b'),
                                                                    text('latin1')))
FLOAT = call(name('numpy', 'dtype'), text('f4'), b'\x89', b'\x88')
FACTORY = name('dill._dill', '_create_namedtuple')


def state(shape, data, dtype=FLOAT):
  return b'(K\x01' + shape + dtype + b'\x89' + data + b't'


def calls():
  yield from ((f'call {module}.{function}', file(call(name(module, function), text(COMMAND))),
               f'asks for {module}.{function}') for module, function in COMMANDS.items())
  yield from ((f'call builtins.{one}', file(call(name('builtins', one), text(COMMAND))),
               f'asks for builtins.{one}') for one in BUILTINS)
  yield from ((f'dill {one}', file(call(name('dill._dill', one), text(COMMAND))),
               f'asks for dill._dill.{one}') for one in DILL)


def chains():
  partial = call(name('functools', 'partial'), name('os', 'system'), text(COMMAND))
  yield 'chain partial', file(call(partial)), 'functools.partial'
  yield 'chain getattr', file(call(call(name('operator', 'attrgetter'), text('system')),
                                   name('os', 'path'))), 'operator.attrgetter'
  yield 'chain deep', file(entry(call(MAPPING, entry(call(MAPPING, call(
      name('os', 'system'), text(COMMAND))))))), 'os.system'
  yield 'chain result called', file(call(call(ENCODE, text('b'), text('latin1')), text('x'))
                                    ), 'not a function'
  yield 'chain dict called', file(call(b'}', text('x'))), 'not a function'
  yield 'chain class as function', file(call(name('numpy', 'ndarray'), text(COMMAND))), 'an array'
  yield 'chain dill array by os.system', file(call(
      name('dill._dill', '_create_array'), name('os', 'system'), text(COMMAND), b'N')), 'os.system'
  yield 'chain jax array by encode', file(call(
      name('jax._src.array', '_reconstruct_array'), ENCODE, b'(' + text('x') + b't', b'N', b'}')
      ), 'a function other than'
  yield 'chain stack name', file(call(stack_name('os', 'system'), text(COMMAND)),
                                 protocol=4), 'os.system'
  yield 'chain new object', file(name('os', 'system') + b'(' + text(COMMAND) + b't\x81'
                                 ), 'os.system'
  yield 'chain new object with keywords', file(MAPPING + b')}\x92', protocol=4), 'NEWOBJ_EX'


def arguments():
  """Names that are allowed, with arguments that are not."""
  yield 'codec', file(call(ENCODE, text('x'), text('zlib'))), 'encoding'
  yield 'codec of a number', file(call(ENCODE, number(3), text('latin1'))), 'encoding'
  yield 'text that is no bytes', file(call(ENCODE, text('π'), text('latin1'))), 'do not fit'
  yield 'objects dtype', file(call(name('numpy', 'dtype'), text('O8'), b'\x89', b'\x88')), 'a dtype'
  yield 'dtype of fields', file(call(name('numpy', 'dtype'), text('f4,O')) ), 'a dtype'
  yield 'bytes by length', file(call(name('builtins', 'bytes'), number(2 ** 40))), 'do not fit'
  yield 'fields with code', file(call(FACTORY, text('T'), b'(' + text('a=__import__("os")') + b't',
                                      text('m'))), 'proper names'
  yield 'name with code', file(call(FACTORY, text('T(object):\n  import os'), b')', text('m'))
                               ), 'proper names'
  yield 'objects', file(ARRAY + state(b'K\x01\x85', b']' + name('os', 'system') + b'a') + b'b'
                        ), 'os.system'
  yield 'list of objects', file(ARRAY + state(b'K\x01\x85', b']K\x01a') + b'b'), 'objects'


def attributes():
  hook = b'}' + text('__init__') + text(COMMAND) + b's'
  for kind, target in dict(a_class=MAPPING, a_function=ENCODE, a_dict=b'}', a_list=b']',
                           a_text=text('x'), none=b'N', a_named_tuple=call(
                               FACTORY, text('T'), b')', text('m'))).items():
    yield f'state for {kind}', file(target + hook + b'b'), 'a state for'
  for kind, victim in dict(mapping=MAPPING, function=ENCODE, array=ARRAY).items():
    yield f'setattr of a {kind}', file(call(name('builtins', 'setattr'), victim, text('__call__'),
                                            text(COMMAND))), 'setattr for something other'
  yield 'setattr of a named tuple', file(call(
      name('builtins', 'setattr'), call(FACTORY, text('T'), b')', text('m')), text('make'),
      name('os', 'system'))), 'os.system'
  yield 'state with slots', file(MAPPING + b'N' + hook + b'\x86b'), 'a state for'
  yield 'state for a mapping', file(MAPPING + b')\x81' + hook + b'b'), 'state is not Haiku'
  yield 'state for an array', file(ARRAY + hook + b'b'), 'state is not numpy'
  yield 'state twice', file(ARRAY + (state(b')', call(ENCODE, text('abcd'), text('latin1'))) + b'b')
                            * 2), 'twice'
  yield 'items for an array', file(ARRAY + text('k') + text('v') + b's'), 'items for'
  yield 'append to a tuple', file(b')' + text('v') + b'a'), 'a list'


def instructions():
  """Persistent ids, extension codes, old and new instructions that no checkpoint needs."""
  for title, body, word in (
      ('persistent id', text('x') + b'Q', 'BINPERSID'), ('persistent id, line', b'Px\n', 'PERSID'),
      ('extension 1', b'\x82\x01', 'EXT1'), ('extension 2', b'\x83\x01\0', 'EXT2'),
      ('extension 4', b'\x84\x01\0\0\0', 'EXT4'), ('buffer', b'\x97', 'NEXT_BUFFER'),
      ('read-only buffer', b'N\x98', 'READONLY_BUFFER'), ('set', b'\x8f', 'EMPTY_SET'),
      ('instance', b'(' + text(COMMAND) + b'ios\nsystem\n', 'INST'),
      ('object', b'(' + name('os', 'system') + text(COMMAND) + b'o', 'os.system'),
      ('line of a number', b'I' + b'9' * 100 + b'\n', 'INT'),
      ('unknown code', b'\xff', 'not exist'),
      ('line of Python', b"S'x'\n", 'STRING'), ('frozen set', b'(\x91', 'FROZENSET')):
    yield f'instruction {title}', file(body), word
  yield 'protocol 0', b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR.", 'os.system'
  yield 'protocol 9', file(b'N', protocol=9), 'protocol 9'


def memo():
  first = text('x') + put(0) + b'0'
  double = b'0'.join(get(i) + get(i) + b'\x86' + put(i + 1) for i in range(30))
  yield 'memo bomb', file(first + double), 'parts'
  lists = b'0'.join(b']' + put(i + 1) + b'(' + get(i) * 9 + b'e' for i in range(30))
  yield 'memo bomb of lists', file(first + lists), 'parts'
  yield 'memo of nothing', file(get(7)), 'KeyError'
  yield 'memo far away', file(b'N' + put(2 ** 32 - 1) + get(2 ** 32 - 2)), 'KeyError'
  yield 'dict in itself', file(b'}' + put(0) + text('k') + get(0) + b's'), 'nested'
  yield 'list in itself', file(b']' + put(0) + get(0) + b'a'), 'nested'
  some = b''.join(text(f'{i}') + b'N' for i in range(50_000))
  inner = b'}' + put(0) + b'(' + some + b'u'
  copies = (MAPPING + b')\x81' + b'}' + text('_storage') + get(0) + b'sb') * 20_000
  yield 'copies of a mapping', file(b'(', inner, copies, b'l'), 'parts'
  data = b'B' + struct.pack('<I', 4 << 20) + bytes(4 << 20) + put(0)
  shape = number(1 << 20) + b'\x85'
  yield 'one text for many arrays', file(
      data, b'0(', (ARRAY + state(shape, get(0)) + b'b') * 1000, b'l'), 'larger than the file'


def repetition():
  """What is cheap to ask for again and again, and not to give."""
  many = b'(' + b'N' * 300_000 + b't' + put(0) + b'0'
  calls = (name('numpy', 'dtype') + get(0) + b'R0') * 10_000
  yield 'many arguments', file(many, calls, b'N'), '300000 arguments'
  key = '\N{GRINNING FACE}' + 'k' * 240
  array = ARRAY + state(number(1) + b'\x85', call(ENCODE, text('abcd'), text('latin1'))) + b'b'
  deep = (b'}' + text(key)) * 37
  wide = b'}(' + b''.join(text(f'{i}') + get(1) for i in range(190_000)) + b'u'
  yield 'long names for many arrays', file(
      array, put(1), b'0', b'(', deep, wide, b's' * 37, MAPPING, b'l'), 'instead of data'


def lengths():
  most = struct.pack('<Q', 2 ** 63 - 1)
  for title, code in dict(text=b'\x8d', bytes=b'\x8e', array=b'\x96', frame=b'\x95').items():
    yield f'length of {title}', file(code + most, protocol=5), 'too early'
  yield 'length of a text', file(b'X\xff\xff\xff\xff'), 'too early'
  yield 'length of an integer', file(b'\x8b' + struct.pack('<i', 2 ** 31 - 1)), 'integer of'
  yield 'length below zero', file(b'\x8b' + struct.pack('<i', -5)), 'too early'
  yield 'length of a name', file(b'c' + b'a' * 10_000 + b'\nb\n'), 'without an end'
  word = call(ENCODE, text('abcd'), text('latin1'))
  for title, shape in dict(large=number(2 ** 39) + b'\x85', product=number(2 ** 39) * 3 + b'\x87',
                           negative=number(-1) + b'\x85', none=b'N', text=text('x') + b'\x85',
                           many=b'(' + b'K\x01' * 40 + b't', short=b'K\0\x85').items():
    yield f'shape {title}', file(ARRAY + state(shape, word) + b'b'), 'an array'


def nesting():
  wrap = b'\x85' + put(0) + b'0' + MAPPING + b'}' + text('a') + get(0) + b's\x85R'
  for title, body in dict(tuples=b')' + b'\x85' * 400_000, lists=b']' * 400_000 + b'a' * 399_999,
                          mappings=b')' + wrap * 20_000).items():
    yield f'nesting of {title}', file(body), 'nested'
  yield 'nesting of marks', file(b'(' * 900_000 + b't' * 900_000), 'instructions'
  yield 'nested key', file(b'}' + b')' + b'\x85' * 400_000 + b'Ns'), 'key of type tuple'
  yield 'endless', file(b'N0' * 600_000 + b'N'), 'instructions'
  yield 'endless dicts', file(b'}\x94' * 600_000, protocol=4), 'instructions'


def look_alikes():
  for title, module, attribute in (
      ('cyrillic', 'numpy', 'nd\u0430rray'), ('full width', '\uff4eumpy', 'ndarray'),
      ('greek', 'numpy', 'dtyp\u03b5'), ('zero width', 'num\u200bpy', 'dtype'),
      ('space', 'numpy', 'dtype '), ('capital', 'Numpy', 'dtype'),
      ('combining', '_codecs', 'encode\u0301'), ('right to left', '\u202enumpy', 'dtype'),
      ('composed', 'haiku._src.data_structures', '\ufb02atMapping'),
      ('inner', 'numpy', 'ndarray.__reduce__'), ('dotted', 'numpy.core', 'multiarray._reconstruct'),
      ('private', 'haiku._src.data_structures', 'FlatMapping.__init__'),
      ('nothing', '', ''), ('zero', 'numpy\0', 'dtype')):
    yield f'look-alike {title}', file(call(stack_name(module, attribute), text(COMMAND)),
                                      protocol=4), 'which no checkpoint needs'
  yield 'look-alike lone surrogate', file(stack_name('numpy', 'dtype\ud800'), protocol=4), 'needs'
  yield 'look-alike byte', file(b'cnumpy\ndt\xff\n'), 'damaged'
  yield 'name of numbers', file(b'K\x01K\x02\x93', protocol=4), 'not text'


def keys():
  yield 'key number', file(b'}' + number(2 ** 61 - 1) + b'Ns'), 'key of type int'
  yield 'key bytes', file(b'}' + b'C\x01a' + b'Ns', protocol=3), 'key of type bytes'
  yield 'key escape', file(entry(b'N', '\x1b[2Jall is well')), 'control'


def damage(sound):
  """Files that end too early, or go on after their end."""
  for share in (1, 2, 100, 500, 900, 999):
    yield f'truncated {share}', sound[:len(sound) * share // 1000], 'damaged|early'
  yield 'empty', b'', 'early'
  yield 'protocol alone', sound[:2], 'early'
  yield 'second pickle', sound + file(call(name('os', 'system'), text(COMMAND))), 'damaged'
  yield 'zeros', bytes(1000), 'not exist'
  yield 'zip', b'PK\x03\x04' + bytes(100), 'PERSID|early|not exist'
  yield 'text', b'hello world\n', 'damaged'
  yield 'nothing on the stack', file(b''), 'damaged'
  yield 'pop of nothing', file(b'0'), 'damaged'
  yield 'half a pair', file(b'}(' + text('k') + b'u'), 'damaged'
  yield 'mark missing', file(b'u'), 'damaged'
  yield 'too few for a tuple', file(b'N\x87'), 'damaged'
  yield 'call in the place of data', file(entry(MAPPING)), 'instead of data'


def everything(sound):
  """{title: (bytes, regular expression that the error has)}."""
  found = {}
  for kind in (calls(), chains(), arguments(), attributes(), instructions(), memo(),
               repetition(), lengths(),
               nesting(), look_alikes(), keys(), damage(sound)):
    for title, data, reason in kind:
      assert title not in found, title
      found[title] = data, reason
  return found


class Executed:
  """What an ordinary unpickler does with such files."""

  def __reduce__(self):
    import os
    return os.system, (COMMAND,)


CONTROL = pickle.dumps(Executed(), protocol=2)
