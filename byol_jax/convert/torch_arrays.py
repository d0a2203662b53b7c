"""NumPy's arrays in files of torch.save: what the file says of them, without a call of NumPy's.

torch's loader gets these classes in the place of the three functions that an array's pickle
names. They keep what they are given; numbers are made of it when an array is asked for.
"""

import math
from typing import Any

import numpy as np

from byol_jax.convert.stand_ins import DTYPES


class Text:
  """Bytes as the text that pickles of protocol 2 make of them; stands for _codecs.encode."""

  text = ''

  def __init__(self, text: Any = '', *_):
    self.text = text


class DType:
  """Stands for numpy.dtype."""

  code, order = '', '='

  def __init__(self, code: Any = '', *_):
    self.code = code

  def __setstate__(self, state):
    """Takes the byte order."""
    self.order = state[1]


class Array:
  """Stands for the function that makes an array; its state follows."""

  name_in_file = 'a NumPy array'
  state = None

  def __init__(self, *_):
    """Forgets the class and the first, empty shape."""

  def __setstate__(self, state):
    """Keeps version, shape, dtype, order, bytes."""
    self.state = state

  def holds_numbers(self) -> bool:
    """Whether it can be read: it is of ordinary numbers, and as large as it says."""
    if type(self.state) is not tuple or len(self.state) != 5:
      return False
    _, shape, dtype, _, data = self.state
    content = data.text if isinstance(data, Text) else data
    return (isinstance(dtype, DType) and dtype.code in DTYPES and dtype.order in tuple('<>|=')
            and type(shape) is tuple and all(type(side) is int and side >= 0 for side in shape)
            and type(content) is (str if isinstance(data, Text) else bytes)
            and len(content) == math.prod(shape) * int(dtype.code[1]))

  def numbers(self) -> np.ndarray:
    """The array, where it `holds_numbers`.

    Raises:
      ValueError: a text that stands for no bytes.
    """
    _, shape, dtype, fortran, data = self.state
    content = data.text.encode('latin1') if isinstance(data, Text) else data
    stored = np.frombuffer(content, dtype.order.replace('|', '=') + dtype.code)
    array = stored.reshape(shape, order='F' if fortran else 'C')
    return np.require(array, array.dtype.newbyteorder('='), 'C')


# What stands for which name.
NAMES = {'_codecs.encode': Text, 'numpy.dtype': DType,
         'numpy.core.multiarray._reconstruct': Array, 'numpy._core.multiarray._reconstruct': Array}
