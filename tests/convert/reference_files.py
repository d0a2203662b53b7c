"""Files as the reference implementation writes them, of trees of arrays."""

import collections
import contextlib
import pickle
import sys
import types

import numpy as np

FIELDS = ('online_params', 'target_params', 'online_state', 'target_state', 'opt_state')
# Names of 2020 for what is written today; GLOBAL holds no lengths.
OF_2020 = {b'cnumpy._core.multiarray\n': b'cnumpy.core.multiarray\n',
           b'cnumpy._core.numeric\n': b'cnumpy.core.numeric\n',
           b'chaiku._src.data_structures\nFlatMapping\n':
               b'chaiku._src.data_structures\nfrozendict\n',
           b'cbuiltins\n': b'c__builtin__\n'}


class FlatMapping(collections.abc.Mapping):
  """Haiku's immutable mapping as far as pickles know it."""

  def __init__(self, mapping):
    self._mapping = mapping

  def __getitem__(self, key):
    return self._mapping[key]

  def __iter__(self):
    return iter(self._mapping)

  def __len__(self):
    return len(self._mapping)

  def __reduce__(self):
    return type(self), (dict(self._mapping),)


def immutable(tree):
  return FlatMapping({module: FlatMapping(arrays) for module, arrays in tree.items()})


@contextlib.contextmanager
def modules(monkeypatch):
  """The reference's modules with its named tuples, and Haiku's with our mapping."""
  found = {name: types.ModuleType(name) for name in (
      'byol', 'byol.byol_experiment', 'byol.utils', 'byol.utils.optimizers', 'haiku',
      'haiku._src', 'haiku._src.data_structures')}
  for name, module in found.items():
    parent, _, child = name.rpartition('.')
    if parent:
      setattr(found[parent], child, module)
  state = collections.namedtuple('_ByolExperimentState', FIELDS, module='byol.byol_experiment')
  lars = collections.namedtuple('ScaleByLarsState', ['mu'], module='byol.utils.optimizers')
  found['byol.byol_experiment']._ByolExperimentState = state
  found['byol.utils.optimizers'].ScaleByLarsState = lars
  found['haiku._src.data_structures'].FlatMapping = FlatMapping
  with monkeypatch.context() as patch:
    patch.setattr(FlatMapping, '__module__', 'haiku._src.data_structures')
    for name, module in found.items():
      patch.setitem(sys.modules, name, module)
    yield state, lars


def contents(trees, momentum, step, kinds):
  """What the reference pickles, of {field: tree}."""
  state, lars = kinds
  trees = {name: immutable(tree) for name, tree in trees.items()}
  return dict(experiment_state=state(**trees, opt_state=((), lars(immutable(momentum)), ())),
              step=step, rng=np.zeros(2, np.uint32))


def write(path, trees, momentum, step, monkeypatch, *, library=pickle, protocol=2, old=False):
  """Writes {field: tree} with `pickle` or `dill`; with `old`, under the names of 2020."""
  with modules(monkeypatch) as kinds:
    data = library.dumps(contents(trees, momentum, step, kinds), protocol=protocol)
  if old:
    for today, then in OF_2020.items():
      data = data.replace(today, then)
  path.write_bytes(data)
