"""The README names only what exists."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / 'README.md').read_text()


def resolve(dotted):
  """The object that a dotted name below byol_jax stands for."""
  parts = dotted.split('.')
  for count in range(len(parts), 0, -1):
    try:
      found = importlib.import_module('.'.join(['byol_jax', *parts[:count]]))
    except ModuleNotFoundError:
      continue
    for attribute in parts[count:]:
      found = getattr(found, attribute)
    return found
  raise AttributeError(dotted)


def map_rows():
  """The right-hand sides of the map for readers of DeepMind's release."""
  section = TEXT.split("## For readers of DeepMind's release")[1].split('\n\n')[1]
  return [line.split('|')[2] for line in section.splitlines()[2:]]


def test_the_map_names_symbols_that_exist():
  names = [name for row in map_rows() for name in re.findall(r'`([\w.]+)`', row)]
  assert len(names) > 20
  for name in names:
    assert resolve(name) is not None


def test_a_name_that_does_not_exist_would_be_found():
  with pytest.raises(AttributeError):
    resolve('train_step.no_such_function')


def test_commands_name_modules_configs_and_targets_that_exist():
  modules = set(re.findall(r'python -m (experiments\.\w+)', TEXT))
  assert modules >= {f'experiments.{name}' for name in ('pretrain', 'evaluate', 'inspect', 'table')}
  for module in modules:
    assert importlib.util.find_spec(module)
  for path in re.findall(r'--config=([\w/]+\.py)', TEXT) + re.findall(r'\]\(([\w/.]+)\)', TEXT):
    assert (ROOT / path).exists(), path
  makefile = (ROOT / 'Makefile').read_text()
  for target in re.findall(r'(?m)(?:^|`)make (?:PYTHON=\S+ )?([a-z][\w-]+)', TEXT):
    assert re.search(rf'^{target}:', makefile, re.M) or target in ('made',), target


def test_configs_say_how_they_are_run():
  for path in (ROOT / 'experiments' / 'configs').rglob('*.py'):
    if path.stem not in ('__init__', 'default', 'data_sets'):
      assert 'python -m experiments.' in path.read_text(), path
