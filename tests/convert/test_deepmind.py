import copy
import json
import pickle
import tracemalloc

import jax
import numpy as np
import pytest

import byol_jax
from byol_jax import checkpoint, evaluate
from byol_jax.config import as_json
from byol_jax.convert import architecture, deepmind, imported
from byol_jax.errors import InputError
from byol_jax.input_pipeline import loading
from experiments.configs import default
from tests import commands, tiny
from tests.convert import reference_files
from tests.convert.test_pickles import GOLDEN, MOMENTUM, TREES
from tests.test_fidelity import assert_trees_close, golden

CONFIG = as_json(default.get_config())


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('deepmind') / 'run'
  deepmind.convert(GOLDEN, folder, CONFIG)
  return folder


def write(tmp_path, monkeypatch, change, **options):
  """A file of the golden trees after `change(trees)`."""
  trees = copy.deepcopy(TREES)
  change(trees)
  path = tmp_path / 'file.pkl'
  reference_files.write(path, trees, options.get('momentum', MOMENTUM), options.get('step', 3),
                        monkeypatch)
  return path


def test_trees_are_taken_over_as_they_are(workdir):
  trees, meta = checkpoint.restore_trees(workdir, checkpoint.TREES)
  for found, wanted in ((trees['online'], TREES['online_params']),
                        (trees['target'], TREES['target_params']),
                        (trees['state']['online'], TREES['online_state']),
                        (trees['state']['target'], TREES['target_state']),
                        (trees['optimizer']['trace'], MOMENTUM)):
    assert_trees_close(found, wanted, 0, 0)
  assert meta['step'] == 3
  assert meta['resolved']['num_classes'] == 10
  assert meta['config']['model']['encoder_options'] == dict(
      depth='tiny', width=1., version=1, stem='imagenet', padding='SAME', first_projection=True,
      zero_init_last_scale=False, rematerialize=False)
  assert meta['source']['licence'].startswith('CC BY-NC 4.0')
  assert meta['source']['sha256'] == imported.sha256(GOLDEN)
  assert meta['source']['notes'] == []


def test_outputs_are_those_of_the_reference(workdir):
  values = golden('deepmind_format_outputs')
  trees, meta = checkpoint.restore_trees(workdir, ('online', 'state'))
  networks = architecture.networks(meta['config']['model'], 10)
  outputs, _ = jax.jit(networks.apply, static_argnums=3)(
      trees['online'], trees['state']['online'], values['images'], False)
  for name in ('embedding', 'projection', 'prediction', 'logits'):
    np.testing.assert_allclose(getattr(outputs, name), values[name], 1e-4, 1e-5, err_msg=name)
  encoder = byol_jax.load_encoder(workdir)
  np.testing.assert_allclose(encoder(values['images']), values['embedding'], 1e-4, 1e-5)


def test_the_checkpoint_can_be_evaluated(workdir, tmp_path):
  config = tiny.eval_config(encoders=('pretrained',)).unlock()
  config.data.update({key: value for key, value in tiny.config().data.items()
                      if key in config.data})
  del config.evaluators['linear']
  results = evaluate.evaluate(config.lock(), workdir, tmp_path)
  assert results['step'] == 3
  assert 0 <= results['encoders']['pretrained']['knn']['top1'] <= 1
  assert (tmp_path / loading.ACCESS_LOG).exists()


def run(kind, **flags):
  return commands.run('convert', kind, **flags)


def test_commands_say_what_they_found(tmp_path):
  result = run('from_deepmind', input=GOLDEN, scan='true')
  assert result.returncode == 0, result.stderr
  assert 'haiku._src.data_structures.FlatMapping' in result.stdout
  assert 'can be read to its end' in result.stdout
  result = run('from_deepmind', input=GOLDEN, workdir=tmp_path / 'run')
  assert result.returncode == 0, result.stderr
  assert 'ResNet-tiny, width 1, version 1' in result.stdout and 'CC BY-NC 4.0' in result.stdout
  inspected = commands.run('inspect', checkpoint=tmp_path / 'run')
  assert inspected.returncode == 0, inspected.stderr
  source = next(line for line in inspected.stdout.splitlines() if line.startswith('source: '))
  assert json.loads(source.removeprefix('source: '))['file'] == GOLDEN.name
  assert run('nonsense').returncode == run('to_torch').returncode == 1
  again = run('from_deepmind', input=GOLDEN, workdir=tmp_path / 'run')
  assert again.returncode == 1 and 'already has checkpoints' in again.stderr


def test_missing_and_extra_tensors_are_all_listed(tmp_path, monkeypatch):
  def change(trees):
    del trees['online_params']['projector/linear']['b']
    del trees['online_params']['tiny_res_net/~/block_group_1/~/block_0/~/conv_1']
    trees['online_params']['tiny_res_net/~/extra'] = dict(w=np.zeros(3, np.float32))
    trees['online_params']['classifier']['b'] = np.zeros(7, np.float32)
  path = write(tmp_path, monkeypatch, change)
  with pytest.raises(InputError) as error:
    deepmind.convert(path, tmp_path / 'run', CONFIG)
  for line in ('2 missing:', '  projector/linear/b float32[32]',
               '  tiny_res_net/~/block_group_1/~/block_0/~/conv_1/w float32[3, 3, 8, 8]',
               '1 extra:', '  tiny_res_net/~/extra/w float32[3]', '1 of another shape or kind:',
               '  classifier/b float32[7], where float32[10] is needed'):
    assert line in str(error.value).splitlines()
  assert not checkpoint.steps(tmp_path / 'run')


def test_what_only_a_further_training_needs_may_be_missing(tmp_path, monkeypatch):
  def change(trees):
    for module in list(trees['target_state']):
      if module.startswith('predictor'):
        del trees['target_state'][module]
  path = write(tmp_path, monkeypatch, change, momentum={})
  found = deepmind.convert(path, tmp_path / 'run', CONFIG)
  assert len(found.notes) == 2
  assert 'target_state: what is missing was taken from the online network' in str(found)
  trees, meta = checkpoint.restore_trees(tmp_path / 'run', ('state', 'optimizer'))
  name = 'predictor/batch_norm/~/mean_ema'
  np.testing.assert_array_equal(trees['state']['target'][name]['average'],
                                TREES['online_state'][name]['average'])
  assert not any(array.any() for array in jax.tree.leaves(trees['optimizer']))
  assert meta['source']['notes'] == list(found.notes)


def no_projector(trees):
  for module in list(trees['online_params']):
    if module.startswith('projector'):
      del trees['online_params'][module]


def not_finite(trees):
  trees['online_params']['projector/linear']['w'][0, 0] = np.nan


def other_name(trees):
  trees['online_params'] = {module.replace('tiny_res_net', 'res_net18'): arrays
                            for module, arrays in trees['online_params'].items()}


def classifier_of_no_dimension(trees):
  trees['online_params']['classifier']['w'] = np.zeros((), np.float32)


def slash_in_the_name_of_an_array(trees):
  trees['online_params']['projector'] = {
      'linear/b': trees['online_params']['projector/linear'].pop('b')}


@pytest.mark.parametrize('change, step, message', [
    (classifier_of_no_dimension, 3, 'classifier/w has 0 dimensions'),
    (slash_in_the_name_of_an_array, 3, 'no online_params of arrays by module'),
    (lambda trees: None, [[1], [1, 2]], 'no step from 0'),
    (lambda trees: trees['target_params']['projector/linear']['w'].fill(np.inf), 3,
     'target_params: 1 tensors have values that are not finite'),
    (no_projector, 3, 'the projector is missing'), (not_finite, 3, 'projector/linear/w the first'),
    (other_name, 3, 'named res_net18, but at this depth tiny_res_net'),
    (lambda trees: trees.update(online_params={}), 3, 'it has no ResNet'),
    (lambda trees: None, -1, 'no step from 0'), (lambda trees: None, 'x', 'no step from 0')])
def test_files_that_cannot_be_used(tmp_path, monkeypatch, change, step, message):
  path = write(tmp_path, monkeypatch, change, step=step)
  with pytest.raises(InputError, match=message):
    deepmind.convert(path, tmp_path / 'run', CONFIG)


def test_a_file_without_a_state(tmp_path):
  path = tmp_path / 'file.pkl'
  path.write_bytes(pickle.dumps(dict(params=np.zeros(3)), protocol=2))
  with pytest.raises(InputError, match='no experiment_state'):
    deepmind.convert(path, tmp_path / 'run', CONFIG)


def test_a_step_of_many_references_to_one_array_takes_no_memory(tmp_path, monkeypatch):
  large = np.zeros(1 << 20, np.uint8)
  path = write(tmp_path, monkeypatch, lambda trees: None, step=1000 * [large])
  tracemalloc.start()
  with pytest.raises(InputError, match='no step from 0'):
    deepmind.convert(path, tmp_path / 'run', CONFIG)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1 << 27


def test_an_image_size_can_be_given(tmp_path):
  done = run('from_deepmind', input=GOLDEN, workdir=tmp_path / 'run', image_size=32)
  assert done.returncode == 0, done.stderr
  assert checkpoint.read_meta(tmp_path / 'run')['config']['data']['image_size'] == 32
