"""Files of torch.save and safetensors: what is found in them; nothing of it is executed."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
import re
import shlex
import sys
import types

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from byol_jax.convert import deepmind, torch_arrays, torch_files, torch_globals
from byol_jax.errors import InputError

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

WEIGHTS = {'conv1.weight': torch.arange(6.).reshape(1, 6)}


def save(path, content, **options):
  torch.save(content, path, **options)
  return path


def read(path):
  return torch_files.read(path)[0]


def as_lists(state_dicts):
  return {keys: {name: np.asarray(tensor).tolist() for name, tensor in tensors.items()}
          for keys, tensors in state_dicts.items()}


def config_class(module, name, base):
  """A class of a library that is not installed, as pickle finds it while a file is written."""
  made = type(name, (base,), {})
  made.__module__ = module
  parts = module.split('.')
  modules = {'.'.join(parts[:i + 1]): types.ModuleType('.'.join(parts[:i + 1]))
             for i in range(len(parts))}
  setattr(modules[module], name, made)
  return made, modules


class Options:

  def __init__(self, **values):
    self.__dict__.update(values)


def usual():
  """What training programs save beside weights, and what must be imported to save it."""
  for module, name, base in (
      ('pytorch_lightning.utilities.parsing', 'AttributeDict', dict),
      ('lightning.pytorch.utilities.parsing', 'AttributeDict', dict),
      ('yacs.config', 'CfgNode', dict), ('mmengine.config.config', 'ConfigDict', dict),
      ('easydict', 'EasyDict', dict), ('omegaconf.dictconfig', 'DictConfig', Options),
      ('omegaconf.nodes', 'AnyNode', Options), ('timm.utils.metrics', 'AverageMeter', Options)):
    made, modules = config_class(module, name, base)
    yield f'{module}.{name}', made(lr=.1, inner=made(path=pathlib.Path('/x'))), modules
  counts = collections.defaultdict(int, a=1)
  for value in (argparse.Namespace(lr=.1, inner=argparse.Namespace(b=2)), np.float64(71.2),
                np.int64(3), np.array(['a', None], object), np.array(['a', 'b']), np.dtype('f4'),
                np.random.RandomState(0).get_state(), collections.OrderedDict(a=1), counts,
                collections.deque([1, 2], maxlen=3), collections.Counter('ab'),
                pathlib.PurePosixPath('/data'), datetime.datetime(2020, 1, 1), {1, 2},
                types.SimpleNamespace(a=1), torch.device('cpu'), torch.float16, torch.Size([2]),
                int, range(3), 1 + 2j):
    yield f'{type(value).__module__}.{type(value).__name__}', value, {}


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('value, modules', [
    pytest.param(value, modules, id=name) for name, value, modules in usual()])
def test_what_is_usual_beside_weights_is_passed_over(tmp_path, monkeypatch, value, modules, zipped):
  with monkeypatch.context() as installed:
    for name, module in modules.items():
      installed.setitem(sys.modules, name, module)
    save(tmp_path / 'a.pth', dict(args=value, model=WEIGHTS, epoch=[value]),
         _use_new_zipfile_serialization=zipped)
  assert as_lists(read(tmp_path / 'a.pth')) == {('model',): {'conv1.weight': [[0, 1, 2, 3, 4, 5]]}}
  # Other readers of this process get no stand-ins.
  assert not {one[1] for one in torch.serialization.get_safe_globals() if isinstance(one, tuple)
              } & set(torch_globals.stand_ins(torch_globals.names(tmp_path / 'a.pth')))


def called(*arguments):
  pathlib.Path(arguments[0]).touch()


class Calls:
  """Asks a reader to call a function, as a pickle can."""

  def __init__(self, function, *arguments, state=None):
    self.reduced = (function, arguments) if state is None else (function, arguments, state)

  def __reduce__(self):
    return self.reduced


def asks(sentinel):
  """{name that is refused, '' where its call does nothing: what asks a reader to call it}."""
  code = f'open({sentinel!r}, "w")'
  return {
      'exec': Calls(exec, code), 'eval': Calls(eval, code), 'getattr': Calls(getattr, 'a', 'b'),
      'posix.system': Calls(os.system, f'touch {sentinel}'),
      f'{__name__}.called': Calls(called, sentinel),
      'torch.serialization.load': Calls(torch.load, sentinel),
      'torch.nn.modules.linear.Linear': torch.nn.Linear(2, 2),
      'numpy.save': Calls(np.save, sentinel, np.zeros(1)),
      'numpy.memmap': Calls(np.memmap, sentinel, 'u1', 'w+', 0, (4,)),
      'a state': Calls(argparse.Namespace, state=dict(a=Calls(np.save, sentinel, np.zeros(1))))}


REFUSED = ('exec', 'eval', 'getattr', 'posix.system', f'{__name__}.called',
           'torch.serialization.load', 'torch.nn.modules.linear.Linear')


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', asks(''))
def test_nothing_of_a_hostile_file_is_executed(tmp_path, name, zipped):
  sentinel = tmp_path / 'sentinel'
  path = save(tmp_path / 'evil.pth', dict(model=WEIGHTS, a=asks(str(sentinel))[name]),
              _use_new_zipfile_serialization=zipped)
  if name in REFUSED:
    with pytest.raises(InputError, match=rf'evil\.pth names {re.escape(name)} beside the weights, '
                       'which could be any code; nothing in the file was executed') as error:
      read(path)
    assert str(error.value).isprintable()
  else:
    assert set(read(path)) == {('model',)}
  assert not sentinel.exists()


def test_an_ordinary_unpickler_would_have_executed_it(tmp_path):
  path = save(tmp_path / 'evil.pth', dict(a=asks(str(tmp_path / 'sentinel'))['exec']))
  torch.load(path, weights_only=False)
  assert (tmp_path / 'sentinel').exists()


def test_the_line_of_a_refusal_saves_the_tensors(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False))
  path = save(tmp_path / "it's.pth.tar", dict(net=module, deep=dict(weights=WEIGHTS), hook=called))
  with pytest.raises(InputError) as error:
    read(path)
  python, flag, code = shlex.split(str(error.value).partition('its tensors: ')[2])
  assert (python, flag) == ('python', '-c')
  exec(code, {})
  found = read(tmp_path / "it's_tensors.pth")
  assert set(found) == {('net',), ('deep', 'weights')}
  assert torch.equal(found['net',]['0.weight'], module[0].weight)


def test_torchscript_is_refused_with_a_line_that_saves_its_weights(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), tmp_path / 'net.pt')
  with pytest.raises(InputError, match=r'net\.pt is a TorchScript archive, wh') as error:
    read(tmp_path / 'net.pt')
  exec(shlex.split(str(error.value).partition('weights: ')[2])[2], {})
  assert set(read(tmp_path / 'net_tensors.pth')[()]) == {'weight', 'bias'}


@pytest.mark.parametrize('content, message', [
    ([1, 2], 'has no tensors by name, but a list'),
    ([torch.zeros(2), np.zeros(2)], 'has no tensors by name, but a list with 2 tensors without '
     'names'), (dict(epoch=3, state_dict=[torch.ones(1)]), "has no tensors by name, but a dict "
     "with 'epoch', 'state_dict' \\(a list with 1 tensor without names\\)"),
    (np.zeros(2), 'has no tensors by name, but a NumPy array'),
    (dict(epoch=3, best=.5), "has no tensors by name, but a dict with 'epoch', 'best'"),
    (argparse.Namespace(model=WEIGHTS), 'has no tensors by name, but argparse.Namespace'),
    (torch.zeros(2), 'has no tensors by name, but a Tensor')])
def test_files_without_a_state_dict(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    read(save(tmp_path / 'a.pth', content))


def test_state_dicts_at_any_depth_and_in_themselves(tmp_path):
  inner = dict(w=torch.ones(1))
  content = dict(model=dict(ema=inner, same=inner), top=torch.zeros(1))
  content['model']['again'] = content
  assert as_lists(read(save(tmp_path / 'a.pth', content))) == {
      (): dict(top=[0]), ('model', 'ema'): dict(w=[1])}


ARRAYS = dict(floats=np.arange(200, dtype='f8').reshape(2, 100) / 7, halves=np.ones(3, 'f2'),
              columns=np.asfortranarray(np.arange(6.).reshape(2, 3)), count=np.array(9),
              swapped=np.arange(3, dtype='>f4'), true=np.array([True]))


@pytest.mark.parametrize('options', [{}, dict(_use_new_zipfile_serialization=False)],
                         ids=['zip', 'legacy'])
def test_arrays_of_numpy_are_read_like_tensors(tmp_path, options):
  path = save(tmp_path / 'a.pth', dict(args=[1], state_dict=dict(ARRAYS, **WEIGHTS)), **options)
  (keys, found), = read(path).items()
  assert keys == ('state_dict',) and set(found) == {*ARRAYS, *WEIGHTS}
  for name, array in ARRAYS.items():
    mine = torch_files.to_numpy(found[name], name, path.stat().st_size)
    wanted = array.astype('f4') if array.dtype.kind == 'f' else array
    assert mine.dtype == wanted.dtype and mine.flags.c_contiguous, name
    np.testing.assert_array_equal(mine, wanted)


def test_dicts_in_lists_are_found_under_their_numbers(tmp_path):
  content = dict(models=[dict(w=torch.ones(1)), 3, (dict(w=torch.zeros(1)),)])
  content['models'].append(content['models'])
  assert as_lists(read(save(tmp_path / 'a.pth', content))) == {
      ('models', '0'): dict(w=[1]), ('models', '2', '0'): dict(w=[0])}


@pytest.mark.parametrize('change', [
    dict(shape=(2 ** 40,)), dict(shape=(-1, -3)), dict(shape=(3.,)), dict(code='O8'),
    dict(code='V1'), dict(order='='), dict(data='abc'), dict(data=None)])
def test_arrays_that_are_not_as_large_as_they_say_are_none(change):
  state = dict(shape=(3,), code='u1', order='|', data=b'abc') | change
  array, dtype = torch_arrays.Array(), torch_arrays.DType(state['code'])
  dtype.__setstate__((3, state['order']))
  array.__setstate__((1, state['shape'], dtype, False, state['data']))
  assert array.holds_numbers() == (change == dict(order='='))
  assert not torch_arrays.Array().holds_numbers()


def test_text_that_stands_for_no_bytes_is_damage():
  array = torch_arrays.Array()
  array.__setstate__((1, (1,), torch_arrays.DType('u1'), False, torch_arrays.Text('\u1234')))
  with pytest.raises(InputError, match='a.pth, w: the array is damaged'):
    torch_files.to_numpy(array, 'a.pth, w', 100)


def html(path):
  path.write_text('<html>404</html>')


def pointer(path):
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n')


def half(path):
  save(path, WEIGHTS)
  path.write_bytes(path.read_bytes()[:700])


def half_of_legacy(path):
  save(path, WEIGHTS, _use_new_zipfile_serialization=False)
  path.write_bytes(path.read_bytes()[:200])


def cut_safetensors(size):
  def write(path):
    safetensors_numpy.save_file(dict(a=np.zeros(9), b=np.zeros(1)), path, metadata=dict(x='y'))
    path.write_bytes(path.read_bytes()[:size])
  return write


def disordered_safetensors(path):
  header = json.dumps(dict(a=dict(dtype='F32', shape=[3], data_offsets=[0, 4]))).encode()
  path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))


@pytest.mark.parametrize('write, message', [
    (html, 'is an HTML page, as a server sends it .* Weights are read from safetensors files and'),
    (pointer, 'is a Git LFS pointer; `git lfs pull` fetches'), (pathlib.Path.touch, 'is an empty'),
    (pathlib.Path.mkdir, 'is a folder'), (lambda path: path.write_text('hello'), 'is a text file'),
    (lambda path: path.write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(20)), 'is an HDF5 file'),
    (lambda path: path.write_bytes(pickle.dumps(dict(a=1))),
     'is a Python pickle. .* of DeepMind.s is read by: python -m experiments.convert from_deep'),
    (half, 'is a zip archive whose end is missing'),
    (half_of_legacy, 'cannot be read by torch.load'),
    (cut_safetensors(223), 'is cut off: it has 223 bytes, but its header says 224; fetch it'),
    (cut_safetensors(100), 'is cut off: it has 100 bytes, but its header says at least 144; '),
    (disordered_safetensors, 'cannot be read as safetensors')])
@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_files_of_other_kinds(tmp_path, write, message, ending):
  write(tmp_path / f'a.{ending}')
  with pytest.raises(InputError, match=rf'a\.{ending} {message}') as error:
    read(tmp_path / f'a.{ending}')
  assert str(error.value).isprintable()


@pytest.mark.parametrize('name', ['a.safetensors', 'a.PTH', 'a'])
def test_the_name_of_a_file_does_not_matter(tmp_path, name):
  wanted = {(): {'conv1.weight': [[0, 1, 2, 3, 4, 5]]}}
  assert as_lists(read(save(tmp_path / name, WEIGHTS))) == wanted
  safetensors_numpy.save_file({key: one.numpy() for key, one in WEIGHTS.items()}, tmp_path / name)
  assert as_lists(read(tmp_path / name)) == wanted


def test_numbers_that_numpy_does_not_have(tmp_path):
  from safetensors.torch import save_file
  save_file(dict(a=torch.zeros(2).to(torch.float8_e4m3fn)), tmp_path / 'a.safetensors')
  with pytest.raises(InputError, match=r'kind that NumPy does not have \(.*float8_e4m3'):
    read(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('write, message', [
    (lambda path: save(path, WEIGHTS),
     'is a file of torch.save, which another command reads: python -m experiments.convert from_t'),
    (lambda path: save(path, WEIGHTS, _use_new_zipfile_serialization=False), 'is a file of torch'),
    (lambda path: safetensors_numpy.save_file(dict(a=np.zeros(2)), path), 'is a safetensors file'),
    (html, 'is an HTML page, .* A pickled checkpoint like '),
    (pathlib.Path.mkdir, 'is a folder')])
def test_deepmind_is_given_something_else(tmp_path, write, message):
  write(tmp_path / 'a.pkl')
  with pytest.raises(InputError, match=f'a.pkl {message}'):
    deepmind.convert(tmp_path / 'a.pkl', tmp_path / 'run', dict(model={}))
  with pytest.raises(InputError, match=f'a.pkl {message}'):
    deepmind.scan(tmp_path / 'a.pkl')
