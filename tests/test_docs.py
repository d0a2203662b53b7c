"""README and pages name only what exists: every command, flag, key, file and link in them."""

import ast
import functools
import importlib.util
import pathlib
import re
import shlex

from absl import flags
from ml_collections import ConfigDict, config_flags
import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / 'experiments' / 'configs'
PAGES = [ROOT / 'README.md', *sorted(
    path for path in (ROOT / 'docs').rglob('*.md') if '_build' not in path.parts)]
FENCE = re.compile(r'^( *)```([^\n`]*)\n(.*?)^\1```$', re.M | re.S)
# Files that runs write, which look like the name of a module and an attribute.
WRITTEN = re.compile(r'\.(csv|html|jsonl?|md|npz|pkl|png|safetensors|stablehlo|txt)$')
# Not of this project.
THEIRS = {'byol.main_loop'}
every_page = pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page):
  text = page.read_text()
  if page.stem == 'coming-from-deepmind':  # The left column names what is elsewhere.
    text = re.sub(r'(?m)^\| [^|]* \|', '|', text)
  return text


def commands(page):
  """The commands of a page's `sh` blocks, one string each."""
  for _, language, body in FENCE.findall(text_of(page)):
    if language == 'sh':
      yield from filter(None, re.sub(r' *\\\n *', ' ', body).splitlines())


def spans(page):
  """What stands in single backticks outside of blocks."""
  return re.findall(r'(?<!`)`([^`\n]+)`(?!`)', FENCE.sub('', text_of(page)))


def check_command(command):
  """Fails where a command names what does not exist; what is optional is in brackets."""
  words = shlex.split(re.sub(r'\[(--[^]]*)\]', r'\1', command), comments=True)
  while re.match(r'[A-Z_]+=', words[0]):
    del words[0]
  program, *rest = words
  if program == 'python' and rest[0] == '-m':
    check_module(rest[1], rest[2:])
  elif program == 'python':
    assert rest[0] == '-c' and ast.parse(rest[1])
  elif program == 'make':
    targets = [word for word in rest if '=' not in word]
    makefile = (ROOT / 'Makefile').read_text()
    assert targets and all(re.search(rf'^{target}:', makefile, re.M) for target in targets)
  elif program == 'pip':
    extras = re.findall(r'\[(\w+)\]', command)
    assert rest[0] == 'install' and all(f"'{name}': [" in (ROOT / 'setup.py').read_text()
                                        for name in extras)
  elif program == 'pytest':
    assert (ROOT / rest[-1]).exists()
  elif program == 'sbatch' or program.endswith('.sh'):
    script = next(word for word in words if word.endswith('.sh'))
    assert (ROOT / script).is_file()
    check_module('experiments.pretrain', words[words.index(script) + 1:])
  elif program == 'sed':
    assert all((ROOT / word).is_file() for word in rest if word.startswith('experiments/'))
  else:
    assert program == '.', f'{program} is a program that this test does not know'


def check_module(module, words):
  """Fails for a module, flag, config, key or value of `python -m module words` that is wrong."""
  if module in THEIRS:
    return
  assert importlib.util.find_spec(module), module
  own, _, other = ' '.join(map(shlex.quote, words)).partition(' -- ')
  if other:
    check_command(other)
    words = shlex.split(own.removeprefix('-- '))
  given = [word[2:] for word in words if word.startswith('--')]
  names = {word.split('=')[0] for word in given if not re.match('config[.=]', word)}
  known = flags_of(module)
  assert all(name in known or name.removeprefix('no') in known for name in names), names - known
  if any(word.startswith('config=') for word in given):
    parse_config([f'--{word}' for word in given if word.startswith('config')])
  words = [word for word in words if not word.startswith('-')]
  assert not words or 'positional=True' in source(module), words
  if words and module != 'experiments.report':  # Which takes folders; the others a word of theirs.
    assert re.search(rf'\b{words[0]}\b', source(module)), words[0]


def source(module):
  # A folder without __init__.py has no origin.
  found = importlib.util.find_spec(module).origin or importlib.util.find_spec(
      f'{module}.__main__').origin
  return pathlib.Path(found).read_text()


@functools.cache
def flags_of(module):
  """Names of the flags that a command defines, read from its source."""
  tree, names = ast.parse(source(module)), set()
  loops = {loop.target.elts[0].id: [pair.elts[0].value for pair in loop.iter.elts]
           for loop in tree.body if isinstance(loop, ast.For)}
  for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
    name = getattr(call.func, 'attr', '')
    if name.startswith('DEFINE_') or name == 'define_path':
      first = call.args[0]
      names.update([first.value] if isinstance(first, ast.Constant) else loops.get(first.id, ()))
    elif name == 'run' and getattr(call.func.value, 'id', '') == 'command_line':
      keywords = {keyword.arg for keyword in call.keywords}
      names |= keywords - {'job', 'positional', 'computes', 'kind'}
      names |= flags_of('experiments.command_line') - {'config'} if 'job' in keywords else set()
  return names


def parse_config(words):
  """The config that --config=FILE:ARGUMENT and --config.KEY=VALUE make; raises where none."""
  values = flags.FlagValues()
  path = words[0].removeprefix('--config=').partition(':')[0]
  assert (ROOT / path).is_file(), path
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=['', *words])
  values(['', *words])
  return values.config


@functools.cache
def known_keys():
  """Every key that some config has."""
  found = set()
  for path in CONFIGS.rglob('*.py'):
    if 'def get_config' in path.read_text() or 'get_config =' in path.read_text():
      found.update(keys(parse_config([f'--config={path}'])))
  return found


def keys(config, prefix=''):
  for key in config:
    yield f'{prefix}{key}'
    value = config.get_ref(key).get() if config.get_type(key) is ConfigDict else None
    if value is not None:
      yield from keys(value, f'{prefix}{key}.')


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


def check_span(span, page):
  """Fails where code in a sentence names a command, flag, key or file that does not exist."""
  if re.match(r'(python -[cm]|make|pip|pytest) ', span):
    check_command(span)
  elif span.startswith('experiments.'):
    check_command(f'python -m {span}')
  elif span.startswith('--config=my_'):
    assert f'# {span[9:]}\n' in page.read_text()
  elif span.startswith('--'):
    for word in shlex.split(span):
      name = word[2:].split('=')[0]
      assert (name.startswith('config.') and name.removeprefix('config.') in known_keys()
              or any(name in flags_of(module) for module in modules())), word
  elif re.fullmatch(r'[\w/-]+\.(py|sh|yaml)(:.*)?', span):
    path, _, argument = span.partition(':')
    found = [parent / path for parent in (ROOT, CONFIGS, CONFIGS / 'eval', CONFIGS / 'ablations',
                                          ROOT / 'byol_jax') if (parent / path).exists()]
    assert found or f'# {path}\n' in page.read_text(), path
    if argument:
      parse_config([f'--config={found[0]}:{argument.split("|")[0]}'])
  elif re.fullmatch(r'(experiments|byol_jax|tests|docs)/[\w/.-]*', span):
    assert (ROOT / span).exists() or span == 'docs/_build/html'
  elif re.fullmatch(r'[a-z_]\w*(\.\w+)+(=.*)?', span) and not WRITTEN.search(span):
    name = span.split('=')[0].removeprefix('config.')
    first = ROOT / 'byol_jax' / name.split('.')[0]
    of_module = first.with_suffix('.py').exists() or first.is_dir()
    of_config = span.startswith('config.') or first.name in sections()
    assert name in known_keys() or not (of_module or of_config) or resolve(name) is not None


@functools.cache
def modules():
  return [f'experiments.{path.stem}' for path in (ROOT / 'experiments').glob('*.py')
          if path.stem != '__init__'] + ['experiments.launch.local_processes']


@functools.cache
def sections():
  return {key.split('.')[0] for key in known_keys() if '.' in key}


def slug(heading):
  """The anchor that GitHub, and MyST, give a heading."""
  return re.sub(r'[^\w\- ]', '', heading.lower().strip()).replace(' ', '-')


@every_page
def test_commands_are_ones_that_exist(page):
  for command in commands(page):
    try:
      check_command(command)
    except Exception as error:
      raise AssertionError(f'{command}: {error}') from error


@every_page
def test_code_in_sentences_names_what_exists(page):
  for span in spans(page):
    try:
      check_span(span, page)
    except Exception as error:
      raise AssertionError(f'`{span}`: {error}') from error


@every_page
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', FENCE.sub('', page.read_text())):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    file = (page.parent / path).resolve() if path else page
    assert file.is_file() and file.is_relative_to(ROOT), target
    if anchor:
      headings = re.findall(r'(?m)^#+ (.*)$', FENCE.sub('', file.read_text()))
      assert anchor in map(slug, headings), target


@every_page
def test_blocks_say_their_language(page):
  languages = {language for _, language, _ in FENCE.findall(page.read_text())}
  assert languages <= {'sh', 'python', 'text', 'bibtex'} | {
      language for language in languages if language.startswith('{')}


def test_every_page_is_in_the_navigation():
  index = (ROOT / 'docs' / 'index.md').read_text()
  for page in PAGES[1:]:
    name = str(page.relative_to(ROOT / 'docs').with_suffix(''))
    assert name == 'index' or f'\n{name}\n' in index, name


def test_the_readme_stays_short():
  assert len(PAGES[0].read_text().splitlines()) <= 150


def test_the_pages_show_the_commands():
  shown = {module for page in PAGES for command in commands(page)
           for module in re.findall(r'python -m (experiments\.\w+)', command)}
  assert shown >= {f'experiments.{name}' for name in (
      'pretrain', 'evaluate', 'sweep', 'report', 'table', 'inspect', 'extract', 'search', 'convert',
      'prepare', 'benchmark', 'scaling', 'ablations', 'walkthrough')}


@pytest.mark.parametrize('command', [
    'python -m experiments.no_such_command',
    'python -m experiments.pretrain --config=experiments/configs/no_such.py',
    'python -m experiments.pretrain --config=experiments/configs/demo.py:size=cpu',
    'python -m experiments.pretrain --config=experiments/configs/cifar10.py:size=tpu',
    'python -m experiments.pretrain --no_such_flag=1',
    'python -m experiments.pretrain --config=experiments/configs/demo.py --config.train.batch=1',
    'python -m experiments.pretrain --config=experiments/configs/demo.py --config.seed=one',
    'python -m experiments.pretrain runs/demo', 'python -m experiments.benchmark no_such_part',
    'python -m experiments.launch.local_processes -- python -m experiments.no_such_command',
    'sbatch experiments/launch/slurm.sh --no_such_flag=1', 'experiments/launch/no_such.sh',
    'make no-such-target', 'pip install -e .[no_such_extra]', 'pytest tests/no_such_test.py',
    'no-such-program'])
def test_wrong_commands_are_found(command):
  with pytest.raises(Exception, match='.'):  # Of whatever kind.
    check_command(command)


@pytest.mark.parametrize('span', [
    '--config.train.no_such_key', '--no_such_flag', 'experiments.no_such_command',
    'eval/no_such.py', 'cifar10.py:size=tpu', 'experiments/no_such/', 'train.no_such_key=1',
    'train_step.no_such_function', 'config.no_such_key'])
def test_wrong_names_are_found(span):
  with pytest.raises(Exception, match='.'):
    check_span(span, PAGES[0])


def test_configs_say_how_they_are_run():
  for path in CONFIGS.rglob('*.py'):
    if path.stem not in ('__init__', 'default', 'data_sets'):
      assert 'python -m experiments.' in path.read_text(), path
