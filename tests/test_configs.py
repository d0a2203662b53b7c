"""Every config resolves, is locked, and is documented where its keys are defined."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import build, train_step
from byol_jax.config import (
  as_json,
  deciding,
  differing_keys,
  overridden,
)
from byol_jax.errors import InputError
from byol_jax.evaluators import fine_tuned_transfer, semi_supervised
from byol_jax.input_pipeline.memory import Split
from experiments.configs import cifar10, default, imagenet_r50
from experiments.configs.eval import data_sets
from experiments.configs.eval import semi_supervised as eval_semi_supervised
from experiments.configs.eval import tfds as eval_tfds
from experiments.configs.eval import transfer_finetune as eval_transfer_finetune
from experiments.configs.eval import transfer_linear as eval_transfer_linear

FOLDER = pathlib.Path(default.__file__).parent
PRETRAIN = sorted(p.stem for p in FOLDER.glob('*.py') if p.stem != '__init__')
# data_sets.py is a table from which configs take.
EVALUATE = sorted(p.stem for p in (FOLDER / 'eval').glob('*.py')
                  if p.stem not in ('__init__', 'data_sets'))


def load(name):
  return importlib.import_module(f'experiments.configs.{name}').get_config()


def keys(config, prefix=''):
  for key, value in config.items():
    if hasattr(value, 'items') and key != 'options':
      yield from keys(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


@pytest.mark.parametrize('name', PRETRAIN)
def test_pretraining_configs_have_the_keys_of_default_and_build_a_state(name):
  config = load(name)
  assert config.is_locked
  assert set(keys(config)) == set(keys(default.get_config()))
  batch, size = config.train.batch_size, config.data.image_size
  examples = 1_281_167 if batch == 4096 else 8192
  images = np.broadcast_to(np.uint8(0), (examples, 1, 1, 3))
  split = Split(np.arange(examples), images, np.zeros(examples, np.int32), examples, 10)
  resolved = build.resolve(config, split)
  recipe = build.build_recipe(config, resolved)
  state = jax.eval_shape(lambda key: train_step.init_state(
      key, jnp.zeros((2, size, size, 3)), recipe), jax.random.key(0))
  assert state.step.dtype == jnp.int32


def test_default_is_the_papers_run():
  config = load('default')
  split = Split(np.arange(1_281_167), np.broadcast_to(np.uint8(0), (1_281_167, 1, 1, 3)), None,
                1_281_167, 0)
  resolved = build.resolve(config, split)
  assert (resolved.max_steps, resolved.warmup_steps) == (312_784, 3_127)
  assert resolved.peak_learning_rate == pytest.approx(3.2)


@pytest.mark.parametrize('epochs, steps, rate, decay, tau', [
    (40, 12_511, 7.2, 1e-6, .97), (100, 31_278, 7.2, 1e-6, .99), (300, 93_835, 4.8, 1e-6, .99),
    (1000, 312_784, 3.2, 1.5e-6, .996)])
def test_imagenet_presets_are_the_papers_and_the_references(epochs, steps, rate, decay, tau):
  config = imagenet_r50.get_config(f'epochs={epochs}')
  split = Split(np.arange(1_281_167), np.broadcast_to(np.uint8(0), (1_281_167, 1, 1, 3)), None,
                1_281_167, 1000)
  resolved = build.resolve(config, split)
  assert (resolved.max_steps, resolved.warmup_steps) == (steps, 3_127)
  assert resolved.peak_learning_rate == pytest.approx(rate)
  assert (config.train.optimizer_options.weight_decay, config.train.base_tau) == (decay, tau)


def test_arguments_after_the_colon_reach_the_config():
  config = imagenet_r50.get_config('epochs=40,depth=101,width=2')
  assert (config.model.encoder_options.depth, config.model.encoder_options.width) == (101, 2.)
  assert cifar10.get_config('size=cpu,epochs=7').train.epochs == 7.
  assert set(eval_tfds.get_config('linear').evaluators) == {'linear'}


@pytest.mark.parametrize('get_config, argument, message', [
    (imagenet_r50.get_config, 'epoch=100', "'epoch=100' after the colon .*epochs=1000, depth=50"),
    (imagenet_r50.get_config, 'epochs=long', "'epochs=long' after the colon"),
    (imagenet_r50.get_config, 'epochs=50', 'No preset for 50 epochs; there are 40, 100, 300, 1000'),
    (cifar10.get_config, 'size=tpu', "size is 'tpu'; it can be gpu or cpu"),
    (eval_tfds.get_config, 'linaer',
     "'linaer' after the colon .* knn, knn_grid, linear, linear_features"),
    (eval_semi_supervised.get_config, 'cifar11', "'cifar11' after the colon .* cifar10,.*smoke"),
    (eval_transfer_finetune.get_config, 'cifar10,smok', "'cifar10,smok' after the colon"),
    (eval_transfer_linear.get_config, 'dtd,pets', "'dtd,pets' after the colon .* one data set")])
def test_wrong_arguments_are_said(get_config, argument, message):
  with pytest.raises(InputError, match=message):
    get_config(argument)


@pytest.mark.parametrize('name', EVALUATE)
def test_evaluation_configs_are_locked_and_share_their_keys(name):
  config = load(f'eval.{name}')
  assert config.is_locked
  assert set(config) == set(load('eval.default'))


def test_fine_tuning_takes_the_papers_grid_and_the_splits_of_cifar10():
  config = eval_semi_supervised.get_config('cifar10')
  splits = ('name', 'train_split', 'validation_split', 'test_split', 'held_out')
  own, theirs = (c.data.options for c in (config, cifar10.get_config()))
  assert [own[key] for key in splits] == [theirs[key] for key in splits]
  options = config.evaluators.semi_supervised.to_dict()
  assert {key: options[key] for key in semi_supervised.PAPER} == semi_supervised.PAPER
  options = eval_transfer_finetune.get_config().evaluators.fine_tuned_transfer.to_dict()
  assert {key: options[key] for key in fine_tuned_transfer.PAPER} == fine_tuned_transfer.PAPER
  rates, decays = options['learning_rates'], options['weight_decays']
  np.testing.assert_allclose(rates, np.logspace(-4, -1, 7))
  np.testing.assert_allclose(decays, [0, *np.logspace(-6, -3, 7)])


@pytest.mark.parametrize('name', data_sets.DATA_SETS)
def test_every_data_set_has_the_full_grids_and_its_metric(name):
  metric = data_sets.DATA_SETS[name].metric
  linear = eval_transfer_linear.get_config(name).evaluators.linear_transfer
  np.testing.assert_allclose(linear.l2_values, np.geomspace(1e-6, 1e5, 45))
  assert linear.metric == metric
  tuned = eval_transfer_finetune.get_config(name).evaluators.fine_tuned_transfer
  assert tuned.metric == metric
  assert (len(tuned.learning_rates), len(tuned.weight_decays), tuned.steps) == (7, 8, 20_000)


@pytest.mark.parametrize('module, name', [(eval_semi_supervised, 'semi_supervised'),
                                          (eval_transfer_finetune, 'fine_tuned_transfer')])
def test_smoke_is_two_points_and_a_few_steps(module, name):
  config = module.get_config('cifar10,smoke')
  options = config.evaluators[name]
  axes = [options[key] for key in ('learning_rates', 'epochs', 'weight_decays') if key in options]
  assert np.prod([len(axis) for axis in axes]) == 2
  assert 1 < options.get('max_steps', options.get('steps')) < 20
  assert config.data.dataset == 'tfds' and not module.get_config().data.dataset
  with pytest.raises(InputError, match='smoke alone, .* as in cifar10,smoke'):
    module.get_config('smoke')


def test_differing_keys_are_named_with_both_values():
  saved, current = dict(a=dict(b=1, c=(1, 2)), d=3), dict(a=dict(b=2, c=(1, 2)), e=4)
  assert differing_keys(saved, current) == [
      'a.b: 1 -> 2', 'd: 3 -> (absent)', 'e: (absent) -> 4']
  nan = float('nan')
  assert differing_keys(dict(a=nan, b=1.), dict(a=nan, b=nan)) == ['b: 1.0 -> nan']


def test_what_small_views_are_like_decides_only_where_there_are_some():
  config = as_json(load('default'))
  differing = lambda one: differing_keys(*map(deciding, (config, one)))
  assert differing(config | dict(view_small=config['view_small'] | dict(image_size=7))) == []
  assert differing(config | dict(view_small=config['view_small'] | dict(count=2))) != []


@pytest.mark.parametrize('change, message', [
    ({'train.target': 'none', 'train.target_statistics': 'moving_average'},
     "train.target_statistics is 'moving_average', which only train.target moving_average "
     'supports'),
    ({'model.small_predictor': (8, 256)},
     r'model.small_predictor is \(8, 256\) without small views'),
    ({'model.predictor': (8, 128)}, 'model.predictor ends in 128 units and model.projector in 256'),
    ({'model.encoder_options.width': .3},
     'model.encoder_options.width is 0.3, which makes 19.2 channels out of 64'),
    ({'model.encoder_options.version': 2, 'model.encoder_options.zero_init_last_scale': True},
     'zero_init_last_scale exists for version 1 only'),
    ({'train.warmup_epochs': 1000.},
     'train.warmup_epochs is 1000.0, not shorter than the run of train.epochs 1000.0'),
    ({'train.batch_size': 4100}, 'train.batch_size is 4100, which 8 virtual shards'),
    ({'train.epochs': 1e300}, r'1e\+300 epochs of 8192 images .* more than 2147483647 steps')])
def test_values_that_cannot_be_together_are_said_before_the_run(change, message):
  split = Split(np.arange(8192), np.broadcast_to(np.uint8(0), (8192, 1, 1, 3)), None, 8192, 0)
  with pytest.raises(InputError, match=message):
    build.resolve(overridden(load('default'), change), split)


@pytest.mark.parametrize('objective, options, message', [
    ('infonce', dict(beta=1., temperature=.1, normalization='l1'),
     "train.objective_options.normalization is 'l1'; it can be 'l2', 'layer_norm'"),
    ('infonce', dict(beta=1., temperature=-1., normalization='l2'),
     r'temperature is -1.0; it can be a number in \[0.0001, 1000\]'),
    ('closed_form', dict(ridge=0.), 'train.objective_options.ridge is 0.0; it can be a number'),
    ('byol', dict(beta=1.), 'it does not know beta')])
def test_impossible_options_of_an_objective_are_said_before_the_run(objective, options, message):
  config = load('default').unlock()
  config.train.update(objective=objective, objective_options=options)
  split = Split(np.arange(8192), np.broadcast_to(np.uint8(0), (8192, 1, 1, 3)), None, 8192, 0)
  with pytest.raises(InputError, match=message):
    build.build_recipe(config, build.resolve(config, split))
