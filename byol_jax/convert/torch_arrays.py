"""NumPy arrays in files from torch.save, read without calling the functions in the file.

torch's loader gets these classes instead of the three functions that the pickle of an array
names. They store their arguments; the array is built from them on request.
"""

import math
from typing import Any

import numpy as np

from byol_jax.convert.stand_ins import DTYPES


class Text:
  """Bytes, stored as text as in pickles of protocol 2; replaces _codecs.encode."""

  text = ''

  def __init__(self, text: Any = '', *_):
    self.text = text


class DType:
  """Replaces numpy.dtype."""

  code, order = '', '='

  def __init__(self, code: Any = '', *_):
    self.code = code

  def __setstate__(self, state):
    """Takes the byte order."""
    self.order = state[1]


class Array:
  """Replaces the function that makes an array; its state is set afterwards."""

  name_in_file = 'a NumPy array'
  state = None

  def __init__(self, *_):
    """Ignores the class and the initial, empty shape."""

  def __setstate__(self, state):
    """Stores version, shape, dtype, order and bytes."""
    self.state = state

  def holds_numbers(self) -> bool:
    """Whether it can be read: it has ordinary numbers, and as many as its shape says."""
    if type(self.state) is not tuple or len(self.state) != 5:
      return False
    _, shape, dtype, _, data = self.state
    content = data.text if isinstance(data, Text) else data
    return (isinstance(dtype, DType) and dtype.code in DTYPES and dtype.order in tuple('<>|=')
            and type(shape) is tuple and all(type(side) is int and side >= 0 for side in shape)
            and type(content) is (str if isinstance(data, Text) else bytes)
            and len(content) == math.prod(shape) * int(dtype.code[1]))

  def numbers(self) -> np.ndarray:
    """The array; only call this if it `holds_numbers`.

    Raises:
      ValueError: its text does not represent bytes.
    """
    _, shape, dtype, fortran, data = self.state
    content = data.text.encode('latin1') if isinstance(data, Text) else data
    stored = np.frombuffer(content, dtype.order.replace('|', '=') + dtype.code)
    array = stored.reshape(shape, order='F' if fortran else 'C')
    return np.require(array, array.dtype.newbyteorder('='), 'C')


# The replacement for each name.
NAMES = {'_codecs.encode': Text, 'numpy.dtype': DType,
         'numpy.core.multiarray._reconstruct': Array, 'numpy._core.multiarray._reconstruct': Array}
