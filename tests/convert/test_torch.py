import functools
import json
import pathlib
import re

import ml_dtypes
import numpy as np
import optax
import pytest
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open
from sklearn import datasets

import byol_jax
from byol_jax import checkpoint, tensors, train
from byol_jax.config import as_json
from byol_jax.convert import architecture, from_torch, imported, to_torch
from byol_jax.errors import InputError
from byol_jax.train_step import TrainState
from experiments.configs import default
from tests import commands, tiny

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = as_json(default.get_config())
# Small heads, which these tests do not look at, are made sooner.
CONFIG['model'].update(projector=[8, 4], predictor=[8, 4])
CONFIG['data']['image_size'] = 64
SAME = dict(padding='SAME', first_projection=True)
TORCH = dict(padding='torch', first_projection=False)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def photographs(size):
  """Crops of two photographs [4, size, size, 3] in [0, 1]."""
  whole = np.stack(datasets.load_sample_images().images).astype(np.float32) / 255
  return np.concatenate([whole[:, 100:100 + size, 200:200 + size],
                         whole[:, 150:150 + 2 * size:2, 50:50 + 2 * size:2]])


def random_run(folder, *, batches=5000, **options):
  """A checkpoint with random weights and BatchNorm values, none of them 0 or 1."""
  section = dict(CONFIG['model'], encoder_options=dict(
      CONFIG['model']['encoder_options'], **options))
  generator = np.random.default_rng(0)

  def values(module, leaf, like):
    uniform = lambda low, high: generator.uniform(low, high, like.shape).astype(np.float32)
    if leaf == 'w':
      return uniform(-1, 1) * np.float32(np.sqrt(6 / np.prod(like.shape[:-1])))
    if leaf == 'counter':
      return np.int32(batches)
    return uniform(.4, .9) if leaf == 'scale' else uniform(.5, 2) if 'var_ema' in module else (
        uniform(-.3, .3))

  trees = [{module: {leaf: values(module, leaf, array) for leaf, array in leaves.items()}
            for module, leaves in tree.items()} for tree in architecture.shapes(section, 0)]
  for leaves in trees[1].values():
    # As Haiku corrects its averages for their zero start.
    leaves['average'] = leaves['hidden'] / np.float32(1 - .9 ** batches)
  state = TrainState(np.int32(9), trees[0], trees[0], trees[1], trees[1],
                     optax.TraceState(trees[0]))
  imported.write(folder, lambda: state,
                 dict(config=dict(CONFIG, model=section), resolved=dict(num_classes=0)))
  return folder


@pytest.fixture(scope='module')
def narrow(tmp_path_factory):
  """A ResNet-18 of narrow layers after few batches, with torch's padding."""
  return random_run(tmp_path_factory.mktemp('narrow'), depth=18, width=.125, batches=12, **TORCH)


def encoder_tensors(folder):
  """{path: array} of the online encoder, parameters and statistics."""
  trees, _ = checkpoint.restore_trees(folder, ('online', 'state'))
  return {path: array for tree in (trees['online'], trees['state']['online'])
          for path, array in tensors.flat(tree).items() if path.startswith('res_net')}


def recipe():
  """What the code of docs/convert.md defines."""
  pytest.importorskip('torch', reason='PyTorch is not installed')
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/convert.md').read_text(), re.S)
  names = {}
  exec(next(block for block in blocks if 'def load_encoder' in block), names)
  return names


def embed_in_torch(model, images):
  import torch
  mean, std = (np.array(CONFIG['model'][key], np.float32) for key in ('image_mean', 'image_std'))
  with torch.no_grad():
    return model(torch.tensor(((images - mean) / std).transpose(0, 3, 1, 2))).numpy()


def stock(depth):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  from tests.convert import stock_resnet
  return stock_resnet.ResNet(depth)


def assert_agree(found, wanted):
  assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)
  # And tell the images apart.
  assert np.linalg.norm(wanted - wanted.mean(axis=0)) > 1e-2 * np.linalg.norm(wanted)


@pytest.mark.parametrize('depth, width, options', [
    (18, 1., SAME), (18, 1., TORCH), (18, 1., dict(TORCH, padding='SAME')), (50, 1., SAME),
    slow(50, 1., TORCH), slow(101, 1., SAME), slow(101, 1., TORCH), slow(50, 2., SAME),
    slow(18, 2., TORCH), (18, .5, dict(TORCH, padding='SAME')), (18, .25, dict(SAME, stem='small')),
    (18, .25, dict(TORCH, stem='medium'))])
def test_the_recipe_gives_our_embeddings(tmp_path, depth, width, options):
  names = recipe()
  random_run(tmp_path / 'run', depth=depth, width=width, **options)
  to_torch.write(tmp_path / 'run', tmp_path / 'encoder.safetensors')
  model = names['load_encoder'](stock(depth), tmp_path / 'encoder.safetensors')
  ours = byol_jax.load_encoder(tmp_path / 'run')
  for size in (64, 75):
    assert_agree(embed_in_torch(model, photographs(size)), np.asarray(ours(photographs(size))))


@pytest.mark.parametrize('depth', [18, slow(50), slow(101)])
def test_a_torch_padded_encoder_loads_into_the_stock_network(tmp_path, depth):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  from safetensors.torch import load_file
  model = stock(depth)
  random_run(tmp_path / 'run', depth=depth, **TORCH)
  to_torch.write(tmp_path / 'run', tmp_path / 'encoder.safetensors')
  model.fc = torch.nn.Identity()
  model.load_state_dict(load_file(tmp_path / 'encoder.safetensors'))
  ours = byol_jax.load_encoder(tmp_path / 'run')
  assert_agree(embed_in_torch(model.eval(), photographs(75)), np.asarray(ours(photographs(75))))


@pytest.mark.slow
def test_a_trained_encoder_agrees(tmp_path):
  names, folder = recipe(), tmp_path / 'run'
  train.pretrain(tiny.config(evals__every_epochs=0.), folder)
  to_torch.write(folder, tmp_path / 'encoder.safetensors')
  model = names['load_encoder'](stock(10), tmp_path / 'encoder.safetensors')
  images = photographs(33)
  found, wanted = embed_in_torch(model, images), byol_jax.load_encoder(folder)(images)
  assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_the_stock_network_pads_otherwise(tmp_path):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  from safetensors.torch import load_file
  random_run(tmp_path / 'run', depth=18, padding='SAME', first_projection=False)
  to_torch.write(tmp_path / 'run', tmp_path / 'encoder.safetensors')
  model = stock(18)
  model.fc = torch.nn.Identity()
  model.load_state_dict(load_file(tmp_path / 'encoder.safetensors'))
  wanted = np.asarray(byol_jax.load_encoder(tmp_path / 'run')(photographs(64)))
  found = embed_in_torch(model.eval(), photographs(64))
  assert np.linalg.norm(found - wanted) > 1e-2 * np.linalg.norm(wanted)


def test_there_and_back_gives_the_same_bits(narrow, tmp_path):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  from_torch.read(tmp_path / 'encoder.safetensors', tmp_path / 'back',
                  dict(CONFIG, data=dict(CONFIG['data'], image_size=224)))
  before, after = encoder_tensors(narrow), encoder_tensors(tmp_path / 'back')
  assert set(before) == set(after) and len(before) > 100
  for path, array in before.items():
    assert array.dtype == after[path].dtype and array.tobytes() == after[path].tobytes(), path
  # After twelve batches the averages are still corrected, which the file had to keep.
  path = 'res_net18/~/initial_batchnorm/~/mean_ema'
  assert not np.array_equal(before[f'{path}/hidden'], before[f'{path}/average'])
  there, back = (checkpoint.read_meta(folder) for folder in (narrow, tmp_path / 'back'))
  assert there['config']['model'] == back['config']['model']
  assert there['config']['data']['image_size'] == back['config']['data']['image_size'] == 64
  assert back['source']['origin'] == dict(step=9, digest=there['digests']['online'])


def test_convolutions_are_written_as_torch_has_them(narrow, tmp_path):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  weights = safetensors_numpy.load_file(tmp_path / 'encoder.safetensors')
  ours = encoder_tensors(narrow)['res_net18/~/block_group_1/~/block_0/~/conv_0/w']
  theirs = weights['layer2.0.conv1.weight']
  assert ours.shape == (3, 3, 8, 16) and theirs.shape == (16, 8, 3, 3)
  for index in np.ndindex(ours.shape):
    height, width, into, out = index
    assert ours[index] == theirs[out, into, height, width]


def test_metadata_say_what_tensors_cannot(narrow, tmp_path):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  with safe_open(tmp_path / 'encoder.safetensors', 'np') as file:
    about, names = file.metadata(), set(file.keys())
  assert about['padding'] == 'torch'
  assert json.loads(about['image_mean']) == [0.485, 0.456, 0.406]
  source = json.loads(about['source'])
  assert source['step'] == 9
  assert source['digest'] == checkpoint.read_meta(narrow)['digests']['online']
  assert {'conv1.weight', 'bn1.running_var', 'bn1.num_batches_tracked',
          'layer4.1.bn2.bias'} <= names
  assert not any(name.startswith(('fc', 'layer1.0.downsample')) for name in names)


@pytest.mark.parametrize('ending', ['safetensors', 'pth'])
def test_weights_of_torch_become_a_checkpoint(tmp_path, ending):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  from safetensors.torch import save_file
  torch.manual_seed(0)
  model = stock(18)
  for _ in range(3):
    model.train()(torch.randn(4, 3, 64, 64))
  path = tmp_path / f'resnet.{ending}'
  weights = {f'module.{name}': array for name, array in model.state_dict().items()}
  if ending == 'pth':
    torch.save(dict(state_dict=weights, epoch=3), path)
  else:
    save_file(weights, path)
  done = from_torch.read(path, tmp_path / 'run', CONFIG)
  assert "'module.fc.bias', 'module.fc.weight'" in str(done)
  model.fc = torch.nn.Identity()
  encoder = byol_jax.load_encoder(tmp_path / 'run')
  assert encoder.embedding_size == 512
  assert_agree(np.asarray(encoder(photographs(75))),
               embed_in_torch(model.eval(), photographs(75)))
  counters = [array for path, array in encoder_tensors(tmp_path / 'run').items()
              if path.endswith('counter')]
  assert counters and min(counters) == 1000


class Executed:

  def __reduce__(self):
    return exec, ('raise SystemExit("executed")',)


def test_a_hostile_pth_is_refused(tmp_path):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  torch.save(dict(a=Executed()), tmp_path / 'evil.pth')
  with pytest.raises(InputError, match=r'evil.pth names exec beside the weights'):
    from_torch.read(tmp_path / 'evil.pth', tmp_path / 'run', CONFIG)


def written(narrow, tmp_path, change, metadata=None):
  """A file of the narrow encoder after `change(weights)`, without our metadata."""
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  weights = safetensors_numpy.load_file(tmp_path / 'encoder.safetensors')
  change(weights)
  safetensors_numpy.save_file(weights, tmp_path / 'other.safetensors', metadata)
  return tmp_path / 'other.safetensors'


def test_missing_and_extra_tensors_are_all_listed(narrow, tmp_path):
  def change(weights):
    del weights['layer3.1.conv2.weight'], weights['bn1.running_mean']
    weights['layer1.0.se.weight'] = weights['layer1.5.conv1.bias'] = np.zeros(3, np.float32)
    weights['layer2.0.bn1.weight'] = np.zeros(7, np.float32)
  path = written(narrow, tmp_path, change)
  with pytest.raises(InputError) as error:
    from_torch.read(path, tmp_path / 'run', CONFIG)
  for words in ('block_group_2/~/block_1/~/conv_1/w float32[3, 3, 32, 32]',
                'initial_batchnorm/~/mean_ema/average', "'layer1.0.se.weight'",
                "'layer1.5.conv1.bias'", 'float32[1, 1, 1, 7], where float32[1, 1, 1, 16]'):
    assert words in str(error.value)


@pytest.mark.parametrize('change, metadata, message', [
    (lambda w: w.clear(), None, 'it has no ResNet'),
    (lambda w: w.update({f'ema.{name}': array for name, array in w.items()}), None, '2 ResNets'),
    (lambda w: w.update({'conv1.weight': np.zeros((8, 3, 3, 3), np.float32)}), None, 'kernel of 3'),
    (lambda w: w.update({'bn1.weight': np.zeros((8, 1), np.float32)}), None, 'dimensions'),
    (lambda w: None, dict(producer='byol_jax', source='{'), 'metadata are damaged')])
def test_files_that_cannot_be_used(narrow, tmp_path, change, metadata, message):
  path = written(narrow, tmp_path, change, metadata)
  with pytest.raises(InputError, match=message):
    from_torch.read(path, tmp_path / 'run', CONFIG)


@pytest.mark.parametrize('change, message', [
    (dict(hidden='QUJD'), 'metadata are damaged'), (dict(image_std='[1, 1, 0]'), 'impossible'),
    (dict(batch_norm_epsilon='"x"'), 'metadata are damaged'), (dict(image_size='0'), 'impossible'),
    (dict(encoder_options='[]'), 'metadata are damaged'), (dict(source='3'), 'impossible'),
    (dict(encoder_options='{"stem": ["small"], "padding": "torch", "zero_init_last_scale": false}'),
     'impossible')], ids=str)
def test_metadata_that_cannot_be(narrow, tmp_path, change, message):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  with safe_open(tmp_path / 'encoder.safetensors', 'np') as file:
    about = file.metadata()
  path = written(narrow, tmp_path, lambda weights: None, about | change)
  with pytest.raises(InputError, match=message):
    from_torch.read(path, tmp_path / 'run', CONFIG)


def test_the_tensors_decide_on_depth_and_width(narrow, tmp_path):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  with safe_open(tmp_path / 'encoder.safetensors', 'np') as file:
    about = file.metadata()
  options = json.loads(about['encoder_options']) | dict(depth=[18], width=1e9)
  path = written(narrow, tmp_path, lambda weights: None,
                 about | dict(encoder_options=json.dumps(options)))
  from_torch.read(path, tmp_path / 'run', CONFIG)
  options = checkpoint.read_meta(tmp_path / 'run')['config']['model']['encoder_options']
  assert (options['depth'], options['width']) == (18, .125)


def test_one_of_two_resnets_is_chosen_by_its_prefix(narrow, tmp_path):
  path = written(narrow, tmp_path, lambda w: w.update(
      {f'module.encoder_k.{name}': np.array(-array) for name, array in w.items()},
      **{'module.projector.0.weight': np.zeros((2, 2), np.float32)}))
  with pytest.raises(InputError, match="choose with --prefix: none \\(--prefix=\\), 'module.enc"):
    from_torch.read(path, tmp_path / 'run', CONFIG)
  with pytest.raises(InputError, match="no ResNet with the prefix 'encoder_q.'"):
    from_torch.read(path, tmp_path / 'run', CONFIG, 'encoder_q.')
  done = from_torch.read(path, tmp_path / 'run', CONFIG, 'module.encoder_k.')
  assert "'conv1.weight'" in done and "'module.projector.0.weight'" in done
  name = 'res_net18/~/initial_conv/w'
  np.testing.assert_array_equal(encoder_tensors(tmp_path / 'run')[name],
                                -encoder_tensors(narrow)[name])


def test_values_that_are_not_finite_are_refused(narrow, tmp_path):
  path = written(narrow, tmp_path, lambda w: w['bn1.bias'].fill(np.nan))
  with pytest.raises(InputError, match='initial_batchnorm/offset the first'):
    from_torch.read(path, tmp_path / 'run', CONFIG)


def test_bfloat16_becomes_float32(narrow, tmp_path):
  path = written(narrow, tmp_path, lambda w: w.update(
      {name: array.astype(ml_dtypes.bfloat16) for name, array in w.items()
       if array.dtype == np.float32}))
  from_torch.read(path, tmp_path / 'run', CONFIG)
  name = 'res_net18/~/initial_conv/w'
  np.testing.assert_allclose(encoder_tensors(tmp_path / 'run')[name],
                             encoder_tensors(narrow)[name], rtol=2 ** -8)


@pytest.mark.parametrize('name, strange, message', [
    ('fc.weight', lambda torch: torch.nn.Parameter(torch.ones(2)), None),
    ('fc.weight', lambda torch: torch.ones(3, 3).to_sparse(), None),
    ('fc.weight', lambda torch: torch.zeros(2, device='meta'), None),
    # Only those of the encoder are made arrays.
    ('fc.weight', lambda torch: torch.zeros(1).half().expand(2 ** 33), None),
    ('bn1.bias', lambda torch: torch.zeros(1).half().expand(2 ** 33), 'larger than the file')])
def test_tensors_of_other_kinds_in_a_pth(narrow, tmp_path, name, strange, message):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  weights = safetensors_numpy.load_file(tmp_path / 'encoder.safetensors')
  torch.save({key: torch.tensor(array) for key, array in weights.items()}
             | {name: strange(torch)}, tmp_path / 'a.pth.tar')
  if message is None:
    from_torch.read(tmp_path / 'a.pth.tar', tmp_path / 'run', CONFIG)
    assert checkpoint.steps(tmp_path / 'run') == [0]
  else:
    with pytest.raises(InputError, match=message):
      from_torch.read(tmp_path / 'a.pth.tar', tmp_path / 'run', CONFIG)


@pytest.mark.parametrize('changes, loads', [
    (TORCH, True), (SAME, False), (dict(TORCH, first_projection=True), False),
    (dict(TORCH, width=.25), False), (dict(TORCH, stem='small'), False)])
def test_what_loads_into_a_stock_network_is_said(changes, loads):
  options = dict(CONFIG['model']['encoder_options'], depth=18) | changes
  section = dict(CONFIG['model'], encoder_options=options)
  assert to_torch._is_stock(section) == loads
  assert not to_torch._is_stock(section | dict(batch_norm_epsilon=1e-3))


def test_files_that_cannot_be_read(tmp_path):
  (tmp_path / 'a.safetensors').write_bytes(b'\xff' * 100)
  for name, message in (('a.safetensors', 'a.safetensors is a file of an unknown kind'),
                        ('b.pth', 'no such file')):
    with pytest.raises(InputError, match=message):
      from_torch.read(tmp_path / name, tmp_path / 'run', CONFIG)


def test_what_torchvision_has_no_names_for(tmp_path):
  random_run(tmp_path / 'run', depth=18, width=.25, version=2)
  with pytest.raises(InputError, match='only ResNets of version 1'):
    to_torch.write(tmp_path / 'run', tmp_path / 'encoder.safetensors')


def test_whoever_may_read_other_files_may_read_the_encoder(narrow, tmp_path):
  to_torch.write(narrow, tmp_path / 'encoder.safetensors')
  (tmp_path / 'other').touch()
  modes = [(tmp_path / name).stat().st_mode for name in ('encoder.safetensors', 'other')]
  assert modes[0] == modes[1]


def test_commands(narrow, tmp_path):
  result = commands.run('convert', 'to_torch', checkpoint=narrow,
                        output=tmp_path / 'none' / 'encoder.safetensors')
  assert result.returncode == 1 and 'cannot be written' in result.stderr
  (tmp_path / 'folder').mkdir()
  result = commands.run('convert', 'to_torch', checkpoint=narrow, output=tmp_path / 'folder')
  assert result.returncode == 1 and 'cannot be written' in result.stderr
  assert not list(tmp_path.glob('*.partial'))
  result = commands.run('convert', 'to_torch', checkpoint=narrow,
                        output=tmp_path / 'encoder.safetensors')
  assert result.returncode == 0 and 'padding torch' in result.stdout, result.stderr
  result = commands.run('convert', 'from_torch', input=tmp_path / 'encoder.safetensors',
                        workdir=tmp_path / 'run')
  assert result.returncode == 0 and 'nothing missing' in result.stdout, result.stderr
  assert commands.run('inspect', checkpoint=tmp_path / 'run').returncode == 0
