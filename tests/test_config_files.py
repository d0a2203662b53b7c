"""A config that a command cannot use is one line that says what it is, and who takes it."""

import re

import pytest

from experiments import config_files
from byol_jax.errors import InputError
from byol_jax.sweep import hyper

PRETRAIN = 'from experiments.configs import default\n'


def put(tmp_path, text, name='own.py'):
  path = tmp_path / name
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize('path, kind, message', [
    ('tests/tiny.py', 'evaluation', 'tests/tiny.py is not an evaluation config but a '
     'pretraining config, which experiments.pretrain, sweep and benchmark take.'),
    ('tests/tiny.py:eval', 'pretraining', 'tests/tiny.py is not a pretraining config but an '
     'evaluation config, which experiments.evaluate takes.'),
    ('experiments/configs/eval/linear.py', 'pretraining', 'experiments/configs/eval/linear.py is '
     'not a pretraining config but an evaluation config, which experiments.evaluate takes.'),
    ('', 'pretraining', '--config is empty: is a shell variable not set? Give a file from '
     'experiments/configs or your own.'),
    ('none.py', 'pretraining', 'No config file none.py (--config).'),
    ('tests/tiny.py:', 'pretraining', '--config is tests/tiny.py: with nothing after the colon; '
     'leave the colon out, or give the argument of the config there.'),
    ('experiments/configs/demo.py:fast', 'pretraining',
     "experiments/configs/demo.py takes no argument, but 'fast' is given after the colon; leave "
     'both out.'),
    ('README.md', 'pretraining', 'README.md is not a Python file (--config): a config is one with '
     'a function get_config(), like those in experiments/configs.')])
def test_wrong_kinds_and_paths(path, kind, message):
  with pytest.raises(InputError, match=f'^{re.escape(message)}$'):
    config_files.read(path, kind)


@pytest.mark.parametrize('text, message', [
    ('x = 1', 'has no function get_config(), which returns the config; see '
     'experiments/configs/default.py.'),
    ('def get_config(): pass', 'get_config() of FILE returns nothing, not a ConfigDict'),
    ('def get_config(): return dict(seed=0)', 'get_config() of FILE returns a dict, not a'),
    (PRETRAIN + 'import ml_collections\ndef get_config(): return ml_collections.FrozenConfigDict('
     'default.get_config())', 'get_config() of FILE returns a FrozenConfigDict, not a'),
    ('def get_config(size): pass', 'FILE needs an argument after a colon, for its '
     'get_config(size): --config=FILE:VALUE.'),
    ('def get_config(): return 1 / 0',
     'FILE cannot be read as a config: ZeroDivisionError: division by zero'),
    ('def get_config(:', 'FILE cannot be read as a config: SyntaxError: invalid syntax'),
    ('import sys\ndef get_config(): sys.exit(3)', 'FILE cannot be read as a config: it ends the '
     'program, as sys.exit() does (3). A config only returns its values; it does not read the '
     'command line.'),
    ('raise SystemExit', 'FILE cannot be read as a config: it ends the program, as sys.exit() '
     'does. A'),
    ('raise SystemError', 'FILE cannot be read as a config: SystemError: no message'),
    (PRETRAIN + 'def get_config():\n  config = default.get_config().unlock()\n  del config.data\n'
     '  return config', 'FILE is not a pretraining config: it lacks key data. experiments/'),
    (PRETRAIN + 'def get_config():\n  config = default.get_config().unlock()\n'
     '  del config.train.base_tau\n  config.train.mine = 1\n  return config',
     'FILE is not a pretraining config: it lacks key train.base_tau and has the unknown key '
     'train.mine.')])
def test_own_configs_that_are_none(tmp_path, text, message):
  path = put(tmp_path, text)
  with pytest.raises(InputError, match=re.escape(message.replace('FILE', path))) as caught:
    config_files.read(path, 'pretraining')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('values, kind, message', [
    ('seed=1', 'pretraining', 'is not a pretraining config: it lacks keys checkpoint, data, '),
    ('seed=1', 'evaluation', 'is not an evaluation config: it lacks keys batch_size, data, '),
    ('seed=1, mine=2', 'pretraining', ' more and has the unknown key mine. '),
    ('train=dict(epochs=1.)', 'pretraining', 'it lacks keys checkpoint, data, '),
    ('evaluators={}', 'evaluation', 'it lacks keys batch_size, '),
    ('train=dict(epochs=1.)', 'evaluation', None), ('encoders=()', 'pretraining', None)])
def test_a_config_with_few_keys_is_told_what_it_lacks(tmp_path, values, kind, message):
  path = put(tmp_path, 'from ml_collections import ConfigDict\n'
             f'def get_config(): return ConfigDict(dict({values}))\n')
  with pytest.raises(InputError) as error:
    config_files.read(path, kind)
  if message is None:
    assert ' config but a' in str(error.value)
  else:
    assert message in str(error.value) and ' config but a' not in str(error.value)


def test_options_of_plug_ins_may_differ(tmp_path):
  path = put(tmp_path, PRETRAIN + 'def get_config():\n  config = default.get_config().unlock()\n'
             '  config.model.encoder_options = dict(mine=1)\n'
             '  config.data.options = dict(folder="there")\n  return config\n')
  assert config_files.read(path, 'pretraining').model.encoder_options.mine == 1


@pytest.mark.parametrize('override, message', [
    ('--config.data.options.train=', '--config.data.options.train is empty: is a shell variable'),
    ('--config.data.options.validation=', '--config.data.options.validation is empty'),
    ('--config.data.options.train=s3://b/x', '--config.data.options.train is s3://b/x; of object'),
    ('-config.train.epoch=1', "no key 'train.epoch'; the nearest is 'train.epochs'")])
def test_overrides_that_cannot_be(override, message):
  with pytest.raises(InputError, match=re.escape(message)):
    config_files.check_overrides('experiments/configs/image_folder.py', 'pretraining',
                                 ['pretrain', override])


def test_an_empty_path_that_the_config_itself_gives_means_none(tmp_path):
  path = put(tmp_path, PRETRAIN + 'def get_config():\n  config = default.get_config().unlock()\n'
             '  config.data.options = dict(test="")\n  return config\n')
  config_files.check_overrides(path, 'pretraining', ['pretrain', '--config.data.options.test='])


@pytest.mark.parametrize('points', [None, {'config.seed': 1}, [1]])
def test_points_of_a_sweep_are_a_list_of_changes(points):
  with pytest.raises(InputError, match='get_hyper of own.py must return a list of points'):
    hyper.checked(points, 'own.py')
