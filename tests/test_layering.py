"""Imports go down: the layers of the package, read from its source."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = [
    {'convolution', 'crops', 'devices', 'errors', 'file_kinds', 'files', 'hashing', 'hyper',
     'loops', 'parallel', 'plugins', 'preemption', 'processes', 'ranges', 'tensors'},
    {'augment', 'schedules', 'optimizers', 'metrics', 'normalization', 'encoders', 'objectives'},
    {'model', 'multi_crop', 'train_step'},
    {'balanced', 'checkpoint', 'folders', 'image_files', 'metric_log', 'monitor', 'datasets',
     'local_copies', 'preprocess', 'prepare', 'prepared', 'retrieval_lists', 'tf_pipeline',
     'tfrecords', 'input_pipeline'},
    {'convert', 'evaluators'},
    {'assembly', 'baselines', 'benchmark', 'changed_files', 'config_checks', 'evaluate',
     'evaluation_checks', 'extract', 'fingerprint', 'loading', 'locations', 'ranked_lists',
     'report', 'results', 'scaling', 'search', 'sweep', 'sweep_runner', 'sweep_table',
     'train', 'walkthrough'},
]
MAY_USE = dict(
    tensorflow={'folders', 'prepare', 'preprocess', 'tf_pipeline', 'tfrecords', 'datasets',
                'local_copies', 'prepared', 'benchmark'},
    tensorflow_datasets={'prepared'},
    ml_collections={'assembly', 'benchmark', 'config_checks', 'train', 'evaluate', 'scaling',
                    'sweep', 'walkthrough'},
    matplotlib={'report'}, sklearn={'report'}, PIL={'image_files', 'report'},
    jinja2={'report', 'scaling', 'walkthrough'}, orbax={'checkpoint'}, tensorboardX={'metric_log'},
    torch={'convert'}, safetensors={'convert'})
FILES = sorted((ROOT / 'byol_jax').rglob('*.py'))


def unit(path):
  """A module of the package's top level, or the folder it lies in."""
  relative = path.relative_to(ROOT / 'byol_jax')
  return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
  """Dotted names of everything that a file imports, within functions too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def layer(name):
  return next(i for i, units in enumerate(LAYERS) if name in units)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
  own = unit(path)
  if own == '__init__':
    return
  for name in imports(path):
    parts = name.split('.')
    if parts[0] == 'experiments':
      pytest.fail(f'{path} imports {name}')
    if parts[0] == 'byol_jax' and parts[1] != own:
      assert layer(parts[1]) <= layer(own), f'{path} imports {name}'
      if layer(own) == 1:
        assert layer(parts[1]) < 1, f'{path} imports {name} of its own layer'
    if parts[0] in MAY_USE:
      assert own in MAY_USE[parts[0]], f'{path} imports {name}'


def test_every_module_has_a_layer():
  assert {unit(path) for path in FILES} - {'__init__'} == set.union(*LAYERS)


def test_no_drawers():
  names = {path.stem for path in FILES}
  assert not names & {'utils', 'helpers', 'common', 'misc'}


@pytest.mark.parametrize('module', ['byol_jax', 'byol_jax.train', 'byol_jax.evaluate',
                                    'byol_jax.datasets.arrays', 'byol_jax.datasets.shapes'])
def test_importing_needs_no_tensorflow(module):
  code = f'import sys; sys.modules["tensorflow"] = None; import {module}'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_files_of_strangers_are_read_without_jax():
  code = ('import sys; sys.modules.update(jax=None, haiku=None, dill=None, torch=None); '
          'import byol_jax.convert.pickles')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_files_and_functions_stay_small():
  for path in FILES:
    text = path.read_text()
    assert text.count('\n') <= 320, path
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef):
        docstring = ast.get_docstring(node, clean=False) or ''
        size = node.end_lineno - node.lineno - docstring.count('\n')
        assert size <= 45, f'{path}: {node.name} has {size} lines'


@pytest.mark.parametrize('path', FILES + sorted((ROOT / 'experiments').rglob('*.py')),
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_files_take_their_places_in_one_module_only(path):
  """Writers with temporary names of their own met each other; `files` gives each its own."""
  if path == ROOT / 'byol_jax' / 'files.py':
    return
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      temporary = '.partial' in node.value and node.value != 'functools.partial'
      assert not temporary, f'{path}, line {node.lineno}: use files.atomic_write'
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      # str.replace takes two texts, pathlib's one path.
      moves = node.func.attr == 'replace' and len(node.args) == 1 and not node.keywords
      assert not moves and ast.unparse(node.func) != 'os.replace', f'{path}, line {node.lineno}'
