"""The configs of the paper's tables."""

import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import build
from byol_jax.config import as_json, overridden
from byol_jax.errors import InputError
from byol_jax.input_pipeline.memory import Split
from byol_jax.sweep import hyper
from experiments.configs.ablations import base, table_15a, table_16, table_19, table_22

FOLDER = pathlib.Path(base.__file__).parent
TABLES = sorted(path.stem for path in FOLDER.glob('*.py') if path.stem not in ('__init__', 'base'))
EXAMPLES = dict(imagenet=1_271_158, cifar10=45_000, demo=8192)
DOCS = pathlib.Path(__file__).parents[1] / 'docs' / 'measurements'


def module_of(table):
  return importlib.import_module(f'experiments.configs.ablations.{table}')


def resolved(config, examples):
  split = Split(np.arange(examples), np.broadcast_to(np.uint8(0), (examples, 1, 1, 3)), None,
                examples, 10)
  return build.resolve(config, split)


def changed(module, scale, row):
  return overridden(module.get_config(scale), {
      key.removeprefix('config.'): value for key, value in row.changes.items()})


@pytest.mark.parametrize('scale', base.SCALES)
@pytest.mark.parametrize('table', TABLES)
def test_every_row_resolves_at_every_scale(table, scale):
  module = module_of(table)
  rows = module.rows(module.get_config(scale))
  assert len(module.get_hyper(hyper, scale)) == 3 * len(rows)
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    assert 0 <= float(row.published.split()[0]) < 80
    config = changed(module, scale, row)
    build.build_recipe(config, resolved(config, EXAMPLES[scale]))


@pytest.fixture(scope='module')
def shapes():
  """The parameters of a config in shapes; those of equal networks are found once."""
  known = {}

  def of(config):
    key = json.dumps(config.model.to_dict(), default=str)
    if key not in known:
      size = config.data.image_size
      networks = build.build_model(config.model, 10)
      known[key], _ = jax.eval_shape(networks.init, jax.random.key(0),
                                     jnp.zeros((2, size, size, 3)))
    return known[key]
  return of


@pytest.mark.parametrize('table', TABLES)
def test_every_row_has_networks(table, shapes):
  module = module_of(table)
  for row in module.rows(module.get_config('demo')):
    config = changed(module, 'demo', row)
    params = shapes(config)
    last = max(name for name in params if name.startswith('projector/linear'))
    assert params[last]['w'].shape[-1] == config.model.projector[-1]
    assert any(name.startswith('predictor') for name in params) == bool(config.model.predictor)


@pytest.mark.parametrize('table', [table for table in TABLES if not table.endswith('17')])
def test_the_baseline_comes_first_where_the_paper_has_it(table):
  module = module_of(table)
  config = module.get_config('imagenet')
  first = module.rows(config)[0]
  assert first.published == ('3.2' if table == 'table_22' else '72.5')
  if table != 'table_22':
    assert as_json(changed(module, 'imagenet', first)) == as_json(config)


def test_values_that_go_with_the_run_keep_their_ratio():
  rows = {scale: table_15a.rows(table_15a.get_config(scale)) for scale in ('imagenet', 'demo')}
  rates = {scale: [row.changes['config.train.base_learning_rate'] for row in found]
           for scale, found in rows.items()}
  assert rates['imagenet'] == [.3, .01, .1, .2, .4, .5, 1.]
  np.testing.assert_allclose(rates['demo'], np.array(rates['imagenet']) / .3, rtol=1e-5)


def test_published_numbers_of_the_tables_that_are_spelled_out():
  lambdas = {row.name: row.published for row in table_22.rows(table_22.get_config())}
  assert lambdas['mu 1, lambda 10'] == '66.9' and lambdas['mu 10, lambda 1'] == '0.1'
  targets = {row.name: row.published for row in table_19.rows(table_19.get_config())}
  assert (targets['predictor, sg, beta 0'], targets['theta, beta 1']) == ('5.5', '69.4')
  sizes = [row.name for row in table_16.rows(table_16.get_config())]
  assert sizes[0] == 'BYOL, batch 4096' and sizes[-1] == 'SimCLR, batch 64'


def test_an_unknown_scale_is_said():
  with pytest.raises(InputError, match="'tiny' after the colon .* imagenet, cifar10, demo"):
    base.get_config('tiny')


def test_the_map_names_every_config():
  text = (DOCS / 'ablations.md').read_text()
  assert all(f'ablations/{table}.py' in text for table in TABLES)
