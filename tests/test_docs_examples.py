"""The examples of the page on extending, as files, in a run."""

import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import build, evaluate, plugins, train, train_step
from byol_jax.errors import InputError
from byol_jax.evaluation import contract
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import SPLITS, Shards
from byol_jax.model import Outputs
from experiments.configs.eval import default as eval_default
from tests import digits

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'extending.md'


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  """{name: module} of the page's blocks, written where their first lines say and imported."""
  folder = tmp_path_factory.mktemp('own')
  paths = []
  for block in re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S):
    path = folder / block.splitlines()[0].removeprefix('# ')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block)
    paths.append(path)
  sys.path.insert(0, str(folder))
  names = {path.stem: '.'.join(path.relative_to(folder).with_suffix('').parts) for path in paths}
  yield {stem: importlib.import_module(name) for stem, name in names.items()}
  sys.path.remove(str(folder))
  for name in (*names.values(), 'my_project'):
    sys.modules.pop(name, None)


def small(own):
  """The page's config with two steps."""
  config = own['my_config'].get_config().unlock()
  config.train.update(batch_size=32, stop_at_step=2)
  config.model.update(projector=(16, 8), predictor=(16, 8))
  config.evals.every_epochs = 0.
  return config.lock()


def state_shapes(own):
  """The state of a run by the page's config, as shapes."""
  config = small(own)
  data = splits.select('my_project.digits', 'train', dict(enlarge=4))
  recipe = build.build_recipe(config, build.resolve(config, data))
  return jax.eval_shape(lambda key: train_step.init_state(key, jnp.zeros((2, 32, 32, 3)), recipe),
                        jax.random.key(0))


@pytest.mark.slow
def test_a_run_takes_all_of_them(own, tmp_path):
  config = small(own)
  state = train.pretrain(config, tmp_path)
  assert state.step == 2
  assert all(np.isfinite(array).all() for array in jax.tree.leaves(state.online_params))
  evaluation = eval_default.get_config().unlock()
  evaluation.encoders = ('pretrained', 'pixels')
  evaluation.evaluators['my_project.class_means'] = dict()
  found = evaluate.evaluate(evaluation.lock(), tmp_path, tmp_path / 'evaluation')
  assert found['images'] == dict(train=1300, validation=100, test=397)
  top1 = {name: row['my_project.class_means']['top1'] for name, row in found['encoders'].items()}
  assert top1['pixels'] > .85 and top1['pretrained'] > .2
  assert (tmp_path / 'evaluation' / 'results.md').read_text().startswith(
      '| encoder | class means top-1 |\n| --- | --- |\n'
      f'| BYOL, frozen | {100 * top1["pretrained"]:.1f} |\n'
      f'| raw pixels | {100 * top1["pixels"]:.1f} |\n')


def test_the_data_set_keeps_the_contract(own):
  parts = {split: splits.read('my_project.digits', split, purpose='a test',
                              options=dict(enlarge=4)) for split in SPLITS}
  assert [len(part.images) for part in parts.values()] == [1300, 100, 397, 1400]
  assert parts['train'].images.shape[1:] == (32, 32, 3) and parts['train'].images.max() == 255
  np.testing.assert_array_equal(parts['train'].images[3, ::4, ::4, 0],
                                parts['train'].images[3, 3::4, 3::4, 2])
  shard = splits.read('my_project.digits', 'test', purpose='a test', shards=Shards(2, (1,)),
                      options=dict(enlarge=1))
  np.testing.assert_array_equal(shard.labels, parts['test'].labels[1::2])


def test_the_objective_is_the_huber_distance_of_directions(own):
  outputs = lambda prediction, projection: Outputs(
      None, jnp.array([projection]), jnp.array([prediction]), None)
  online = outputs([3., 0.], [0., 0.]), outputs([0., 2.], [0., 0.])
  target = outputs([0., 0.], [0., 5.]), outputs([0., 0.], [1., 0.])
  np.testing.assert_allclose(own['huber'].loss(online, target, delta=.5), [0.], atol=1e-6)
  far = outputs([0., 0.], [0., 5.]), outputs([0., 0.], [-1., 0.])
  # One pair is 2 apart: delta (2 - delta / 2).
  np.testing.assert_allclose(own['huber'].loss(online, far, delta=.5), [.5 * 1.75], rtol=1e-6)
  with pytest.raises(InputError, match='delta is 0'):
    plugins.function('objectives', 'my_project.huber', 'loss', dict(delta=0))


def test_the_config_builds_a_state_of_the_encoder(own):
  shapes = state_shapes(own)
  assert shapes.online_params['patches/~/conv2_d']['w'].shape == (4, 4, 3, 64)
  assert 'patches/~/patch_norm/~/mean_ema' in shapes.online_state


def test_the_optimizer_decays_weights_alone(own):
  heavy_ball = own['heavy_ball'].build(weight_decay=.1, momentum=.9)
  params = {'linear': dict(w=jnp.array([2.]), b=jnp.array([2.]))}
  gradients = {'linear': dict(w=jnp.array([1.]), b=jnp.array([1.]))}
  state = heavy_ball.init(params)
  for expected in (dict(w=1.2, b=1.), dict(w=2.28, b=1.9)):
    updates, state = heavy_ball.update(gradients, state, params)
    for name, value in expected.items():
      np.testing.assert_allclose(updates['linear'][name], [value], rtol=1e-6)
  shapes = state_shapes(own)
  assert len(jax.tree.leaves(shapes.opt_state)) == len(jax.tree.leaves(shapes.online_params))


def test_the_evaluator_tells_digits_apart(own):
  train_part, validation, test = digits.split(1200, 1300)
  evaluator = own['class_means']
  fitting, scoring = contract.of_features(10, train=train_part, validation=validation, test=test)
  fitted = evaluator.fit(fitting)
  scores = evaluator.evaluate(fitted, scoring)
  distances = np.linalg.norm(test.embeddings[:, None] - fitted[None], axis=-1)
  assert scores['top1'] == np.mean(distances.argmin(axis=1) == test.labels) > .85
  assert evaluator.describe(fitted)['num_classes'] == 10
