"""Imports go down, and libraries stay where they belong: read from the source."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MAY_USE = dict(
    tensorflow={'datasets', 'input_pipeline'},
    tensorflow_datasets={'input_pipeline'},
    ml_collections={'build', 'config', 'evaluate', 'evaluation', 'sweep', 'train'},
    matplotlib={'plots', 'report'}, sklearn={'plots'}, PIL={'input_pipeline', 'plots', 'report'},
    jinja2={'report'}, orbax={'checkpoint'}, tensorboardX={'metric_log'},
    torch={'convert'}, safetensors={'convert'})
# What does not know of what.
NEVER = dict(evaluation={'evaluators', 'report'}, sweep={'report'}, files={'distributed'},
             input_pipeline={'datasets', 'evaluation', 'config', 'build'},
             datasets={'evaluation', 'config', 'build'}, plots={'evaluation', 'report', 'train'})
FILES = sorted((ROOT / 'byol_jax').rglob('*.py'))
SOURCES = FILES + sorted((ROOT / 'experiments').rglob('*.py'))
# Parsed before any test has run: if the garbage collector reports a lost asyncio task meanwhile,
# whose traceback is parsed too, Python 3.11 fails with an AST recursion depth mismatch.
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}


def unit(path):
  """A module of the package's top level, or the folder it lies in."""
  relative = path.relative_to(ROOT / 'byol_jax')
  return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
  """Dotted names of everything that a file imports, within functions too."""
  for node in ast.walk(TREES[path]):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def edges():
  """{unit: those of the package that its files import}."""
  found = {unit(path): set() for path in FILES}
  for path in FILES:
    for name in imports(path):
      parts = name.split('.')
      assert parts[0] != 'experiments', f'{path} imports {name}'
      if parts[0] == 'byol_jax' and parts[1] != unit(path):
        found[unit(path)].add(parts[1])
  return found


def test_imports_go_down():
  graph = edges()
  del graph['__init__']
  # Raises CycleError, which names the circle.
  assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize('own', sorted(NEVER))
def test_what_lies_below_does_not_know_of_what_lies_above(own):
  assert not edges()[own] & NEVER[own]


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_folders(path):
  for name in imports(path):
    library = name.split('.')[0]
    assert library not in MAY_USE or unit(path) in MAY_USE[library], f'{path} imports {name}'


def test_the_top_is_small():
  assert len([path for path in FILES if path.parent == ROOT / 'byol_jax']) <= 18


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
    for node in ast.walk(TREES[path]):
      if isinstance(node, ast.FunctionDef):
        docstring = ast.get_docstring(node, clean=False) or ''
        size = node.end_lineno - node.lineno - docstring.count('\n')
        assert size <= 45, f'{path}: {node.name} has {size} lines'


@pytest.mark.parametrize('path', SOURCES,
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_files_take_their_places_in_one_module_only(path):
  """Writers with temporary names of their own met each other; `files` gives each its own."""
  if path == ROOT / 'byol_jax' / 'files.py':
    return
  for node in ast.walk(TREES[path]):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      temporary = '.partial' in node.value and node.value != 'functools.partial'
      assert not temporary, f'{path}, line {node.lineno}: use files.atomic_write'
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      # str.replace takes two texts, pathlib's one path.
      moves = node.func.attr == 'replace' and len(node.args) == 1 and not node.keywords
      assert not moves and ast.unparse(node.func) != 'os.replace', f'{path}, line {node.lineno}'
