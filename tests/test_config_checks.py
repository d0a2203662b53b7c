"""Every key of a run has a range, and no value outside of it gets past the first line of a run."""

import ast
import inspect
import io
import math
import re
import tokenize

import ml_collections
import pytest

from experiments import config_files
from byol_jax import evaluate, plugins, train
from byol_jax.augment import views
from byol_jax.config import EVALUATION, PRETRAINING, plugin_options, range_of, table_of
from byol_jax.errors import InputError
from byol_jax.evaluation import checks
from byol_jax.input_pipeline import splits
from byol_jax.objectives import infonce
from byol_jax.ranges import OPTIONS
from experiments.configs import arrays, default, demo
from experiments.configs.eval import default as eval_default
from tests import tiny

EVALUATORS = plugins.known('evaluators')
PLUGINS = [(kind, name) for kind in plugins.FUNCTIONS for name in plugins.known(kind)]
# For whole numbers, numbers, words, texts and tuples alike; each key has most of them.
VALUES = (-1, 0, 1.5, 32.5, math.nan, -math.inf, 2 ** 63, 10 ** 400, True, None, '', 'wrong',
          'no.module', (), (0.,), (32.5, 16), (.9, .1), (.5, .5, math.nan), ('x', 'x'), ('',),
          (None,), {'a': 1})


def own(kind, name):
  return plugins.load(kind, name).RANGES


def some(table, *keys):
  return {key: table[key] for key in keys}


# Functions and modules that introduce keys, and the table of their ranges.
SOURCES = [
    (default.get_config, some(PRETRAINING, 'seed', 'log', 'checkpoint')),
    (default._data, PRETRAINING['data']),
    (default._model, PRETRAINING['model']),
    (default._view, PRETRAINING['view1']),
    (default._small_view, some(PRETRAINING['view_small'], 'count', 'image_size', 'crop_area')),
    (default._train, PRETRAINING['train']),
    (default._evals, PRETRAINING['evals']),
    *((plugins.load(kind, name), own(kind, name)) for kind, name in PLUGINS
      if hasattr(plugins.load(kind, name), 'OPTIONS')),
    (views, views.CROP_RANGES),
    (eval_default.get_config, some(EVALUATION, 'seed', 'batch_size', 'encoders', 'data')),
    (eval_default.supervised, EVALUATION['supervised']),
    ]
# No config sets them.
UNSET = ('query_chunk', 'bank_chunk')


def flat(table, prefix=''):
  for key, value in table.items():
    if hasattr(value, 'items') and value:
      yield from flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def source_of(place):
  """The text of a function, or of OPTIONS in a module."""
  text = inspect.getsource(place)
  return text if inspect.isfunction(place) else re.search(
      r'^\w*OPTIONS = dict\(\n.*?\n\)\n|^OPTIONS = .*?\n(?=RANGES)', text, re.M | re.S)[0]


def comments(place):
  """{key: comment} of the dicts in a place: behind the value, or the lines above the key."""
  source = source_of(place)
  lines = ['', *source.splitlines()]
  said = {token.start[0]: token.string[1:].strip()
          for token in tokenize.generate_tokens(io.StringIO(source).readline)
          if token.type == tokenize.COMMENT}

  def of(node, value):
    if value.end_lineno in said:
      return said[value.end_lineno]
    first = node.lineno
    while lines[first - 1].lstrip().startswith('#'):
      first -= 1
    return ' '.join(said[line] for line in range(first, node.lineno))

  def walk(node, prefix):
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
      prefix = ast.unparse(node.targets[0]).removeprefix('config.')
      yield prefix, of(node, node.value)
      yield from walk(node.value, f'{prefix}.')
    elif isinstance(node, ast.keyword):
      yield f'{prefix}{node.arg}', of(node, node.value)
      yield from walk(node.value, f'{prefix}{node.arg}.')
    else:
      for child in ast.iter_child_nodes(node):
        yield from walk(child, prefix)

  return dict(walk(ast.parse(source), ''))


@pytest.mark.parametrize('place, table', SOURCES, ids=lambda x: getattr(x, '__name__', ''))
def test_the_comment_of_a_key_ends_in_its_range(place, table):
  expected = {key: str(allowed) for key, allowed in flat(table)
              if allowed is not OPTIONS and key not in UNSET and not key.startswith('view.')}
  found = comments(place)
  assert {key: found.get(key, 'no comment').split('; ')[-1] for key in expected} == expected


def test_the_sources_are_those_of_all_sections():
  assert {*PRETRAINING} == {'seed', 'log', 'checkpoint', 'data', 'model', 'view1', 'view2',
                            'view_small', 'train', 'evals'}
  assert {*EVALUATION} == {'seed', 'batch_size', 'encoders', 'data', 'evaluators', 'supervised'}


@pytest.mark.parametrize('config', [
    tiny.config(), tiny.records_config(), demo.get_config(), arrays.get_config(),
    tiny.eval_config(), tiny.tuning_config(),
    eval_default.with_evaluators(eval_default.get_config().unlock(), ','.join(EVALUATORS)).lock()],
    ids=str)
def test_every_key_has_a_range(config):
  keys = {key for key, _ in flat(config.to_dict())}
  known = {key for key, _ in flat(table_of(config))}
  assert keys - known == set()
  assert {key for key in known - keys if key.split('.')[-1] not in UNSET} == set()


@pytest.mark.parametrize('kind, name', PLUGINS)
def test_every_option_of_a_plugin_has_a_range(kind, name):
  module = plugins.load(kind, name)
  parameters = inspect.signature(getattr(module, plugins.FUNCTIONS[kind])).parameters.values()
  selecting = {*splits.SHARE, *splits.HELD_OUT, *splits.SUBSET} if kind == 'datasets' else set()
  own = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY
         and one.name not in plugins.PASSED_BY_THE_CODE}
  assert not own & selecting and set(module.RANGES) - selecting == own


def changed(config, key, value):
  """The config with any value at all: setting it in the config would check its type."""
  *sections, last = key.split('.')
  everything = config.to_dict()
  section = everything
  for name in sections:
    section = section[name]
  section[last] = value
  return ml_collections.ConfigDict(everything).lock()


PRETRAININGS = dict(
    shapes=tiny.config(),
    infonce=tiny.config(train__objective='infonce',
                        train__objective_options=infonce.OPTIONS),
    **{name: tiny.config(data__dataset=name,
                         data__options=plugin_options('datasets', name))
       for name in ('tfds', 'stl10', 'image_folder', 'retrieval')},
    arrays=tiny.config(data__dataset='arrays', data__options=arrays.get_config().data.options))
# That float32 makes 0, infinite or not a number of, or no memory holds.
NONSENSE = {
    'data.center_share': 1e-9, 'view1.crop_area': (1e-30, 1.), 'view2.crop_aspect': (1., 1e30),
    'view1.blur_sigma': (1e-30, 2.), 'view_small.blur_divider': 1e300,
    'model.batch_norm_decay': .99999999999, 'model.batch_norm_epsilon': 1e300,
    'model.image_std': (1., 1e-300, 1.), 'model.image_mean': (0., 0., 1e300),
    'model.initial_scale': 1e-300, 'model.encoder_options.width': 1e6,
    'train.optimizer_options.weight_decay': 1e300, 'train.optimizer_options.eta': 1e300,
    'train.learning_rate_multipliers.predictor': 1e300,
    'train.objective_options.temperature': 1e-300, 'train.objective_options.beta': 1e300}
EVALUATIONS = dict(
    all=eval_default.with_evaluators(
        eval_default.get_config().unlock(), ','.join(EVALUATORS)).lock())


def cases(configs):
  """(config, key, its range) for every key; those of data.options once for each data set."""
  seen = set()
  for name, config in configs.items():
    table = dict(flat(table_of(config)))
    for key in dict(flat(config.to_dict())):
      case = (key, name if key.startswith('data.options') else '')
      if case not in seen and hasattr(table.get(key), 'allows'):
        seen.add(case)
        yield pytest.param(config, key, table[key], id=f'{name}-{key}')


def refused(run, key, allowed):
  """Checks that a run raises one line with the key and its range."""
  with pytest.raises(InputError) as error:
    run()
  message = str(error.value)
  assert message.startswith(f'{key} is ') and '\n' not in message, message
  assert f'; it can be {allowed}' in message and len(message) < 400, message


@pytest.mark.parametrize('config, key, allowed', [*cases(PRETRAININGS)])
def test_no_pretraining_begins_with_a_value_out_of_its_range(config, key, allowed, tmp_path):
  wrong = [value for value in VALUES if not allowed.allows(value)]
  assert len(wrong) >= 10
  for value in wrong:
    refused(lambda one=changed(config, key, value): train.pretrain(one, tmp_path / 'run'), key,
            allowed)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('key', NONSENSE)
def test_no_pretraining_begins_with_numbers_that_end_as_a_loss_that_is_not_finite(key, tmp_path):
  config = PRETRAININGS['infonce']
  refused(lambda: train.pretrain(changed(config, key, NONSENSE[key]), tmp_path / 'run'), key,
          range_of(config, key))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('config, key, allowed', [*cases(EVALUATIONS)])
def test_no_evaluation_begins_with_a_value_out_of_its_range(config, key, allowed, tmp_path):
  wrong = [value for value in VALUES if not allowed.allows(value)]
  assert len(wrong) >= 10
  for value in wrong:
    refused(lambda one=changed(config, key, value): evaluate.evaluate(
        one, tmp_path / 'no_run', tmp_path / 'results'), key, allowed)
  assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('change, message', [
    (dict(rerank=True, k2=30), 'evaluators.retrieval.k2 is 30 and k1 20; k2 can be at most k1 + 1'),
    (dict(most_bytes=2 ** 63), 'a whole number of 1 or more, at most 9223372036854775807')])
def test_options_of_an_evaluator_that_cannot_be_together(change, message):
  config = eval_default.with_evaluators(eval_default.get_config().unlock(), 'retrieval')
  config.evaluators.retrieval = dict(config.evaluators.retrieval.to_dict(), **change)
  with pytest.raises(InputError, match=re.escape(message)):
    checks.check_evaluation(config)


def test_an_evaluation_without_evaluators_and_images_held_out_of_no_class():
  with pytest.raises(InputError, match='config.evaluators names no evaluator'):
    checks.check_evaluation(eval_default.get_config())
  options = plugin_options('datasets', 'tfds').to_dict() | dict(held_out='per_class')
  with pytest.raises(InputError, match="held_out_per_class is 0; held_out='per_class' needs 1 or"):
    splits.divide_options('tfds', options)


NO_VALUES = {int: ('abc', '1e3', '4.0', '', '(1,)', 'None'), float: ('abc', '', '(1.,)', 'None'),
             bool: ('2', 'abc', '0.5'), tuple: ('(1,', '[1, 2', '1 2')}


@pytest.mark.parametrize('path, config', [
    ('tests/tiny.py', tiny.config()), ('tests/tiny.py:eval', tiny.eval_config())])
def test_an_override_of_another_type_is_said_with_the_range(path, config):
  table, tried = dict(flat(table_of(config))), set()
  for key, value in flat(config.to_dict()):
    # Each pair of type and range once; a text is never of another type.
    kind = type(value), str(table.get(key))
    if kind in tried:
      continue
    tried.add(kind)
    for text in NO_VALUES.get(type(value), ()):
      with pytest.raises(InputError) as error:
        config_files.check_types(path, config, [f'--config.{key}={text}'])
      assert str(error.value) == f'--config.{key} is {text!r}; it can be {table[key]}.'
  assert len(tried) > 8


def test_an_override_without_a_value_or_with_the_next_argument_as_value():
  for arguments, said in ((['--config.seed'], 'without a value'),
                          (['--config.seed', 'x', '--workdir=y'], "'x'")):
    with pytest.raises(InputError) as error:
      config_files.check_types('tests/tiny.py', tiny.config(), arguments)
    assert str(error.value) == f'--config.seed is {said}; it can be a whole number of 0 or more.'
  config_files.check_types('tests/tiny.py', tiny.config(), [
      '--config.seed', '3', '--config.model.projector=[32, 16]', '--config.model.predictor=(16,)',
      '--config.train.epochs=2', '--config.evals.afterwards=()'])
