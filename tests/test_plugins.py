import json.decoder
import subprocess
import sys

import pytest

from byol_jax import plugins
from byol_jax.errors import InputError
from byol_jax.objectives import byol

SOME = dict(datasets='image_folder', encoders='resnet', evaluators='knn', objectives='byol',
            optimizers='lars')
# Modules in these folders that plug-ins use.
OTHERS = dict(encoders='convolution', optimizers='multipliers')


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
  """A package outside of byol_jax, with a module that works and one that does not."""
  package = tmp_path / 'own_plugins'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'works.py').write_text('ANSWER = 42\n')
  (package / 'needs_more.py').write_text('import a_library_that_is_not_installed\n')
  (package / 'ranged.py').write_text(
      'from byol_jax import ranges\nRANGES = dict(size=ranges.whole(1))\n'
      'def loss(online, target, *, size, other=0): pass\n'
      'def check_options(*, size, other=0):\n'
      '  if size == other: raise ranges.InputError("size equals other")\n')
  (package / 'unranged.py').write_text('def loss(online, target, *, size): pass\n')
  monkeypatch.syspath_prepend(tmp_path)
  yield
  for name in [name for name in sys.modules if name.split('.')[0] == 'own_plugins']:
    del sys.modules[name]


def test_a_plain_name_is_a_module_of_the_kind():
  assert plugins.load('objectives', 'byol') is byol


def test_a_dotted_path_is_any_importable_module(own_modules):
  assert plugins.load('encoders', 'own_plugins.works').ANSWER == 42
  assert plugins.load('encoders', 'json.decoder') is json.decoder


@pytest.mark.parametrize('kind', plugins.FUNCTIONS)
def test_the_known_plugins_are_those_that_keep_the_contract(kind):
  found = plugins.known(kind)
  assert SOME[kind] in found and OTHERS.get(kind) not in found and found == sorted(found)
  for name in found:
    assert callable(getattr(plugins.load(kind, name), plugins.FUNCTIONS[kind]))


def test_a_list_of_plugins_imports_none_of_them():
  code = ('import sys; from byol_jax import plugins; '
          '[plugins.known(kind) for kind in plugins.FUNCTIONS]; '
          'assert not {"tensorflow", "haiku", "byol_jax.datasets"} & {*sys.modules}')
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('kind', plugins.FUNCTIONS)
@pytest.mark.parametrize('name', [
    'nothing', '', 'no_such_package.module', 'json.no_such_module', 'byol_jax.model.build',
    'folder/file.py'])
def test_an_unknown_name_lists_the_modules_of_the_kind(kind, name):
  with pytest.raises(InputError) as error:
    plugins.load(kind, name)
  assert str(error.value) == (
      f'No module {name!r} among the {kind}. There are: {", ".join(plugins.known(kind))}; '
      'or give the dotted path of a module of your own.')


def test_options_are_checked_where_a_module_says_what_they_can_be(own_modules):
  function = lambda name, **options: plugins.function(
      'objectives', f'own_plugins.{name}', 'loss', options)
  assert function('ranged', size=2, other='any').__name__ == 'loss'
  assert function('unranged', size=-1).__name__ == 'loss'
  for options, message in (
      (dict(size=0), '^train.objective_options.size is 0; it can be a whole number of 1 or more.$'),
      (dict(size=2, other=2), 'size equals other'), (dict(), 'it misses size')):
    with pytest.raises(InputError, match=message):
      function('ranged', **options)


def test_a_module_that_fails_to_import_shows_its_own_error(own_modules):
  with pytest.raises(ModuleNotFoundError, match='a_library_that_is_not_installed'):
    plugins.load('encoders', 'own_plugins.needs_more')
