"""The page on scale: its formulas against values worked out by hand, and the page itself."""

import functools
import pathlib
import re

import jax
import pytest

from experiments import scaling
from byol_jax import train_step
from byol_jax.config import plugin_options
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from experiments.configs import default, imagenet_r50
from experiments.studies.scaling import arithmetic, compiler, document, input_rate, record, shapes
from tests import commands
from tests.input_pipeline.test_tf_pipeline import encode, noise, write_records
from tests.test_train_step import initial_state, make_batch, make_recipe

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'measurements'


@pytest.fixture(scope='module')
def networks():
  """Those of the page, by name."""
  found = document.networks(scaling.networks(), record.read(DOCS)['compiled'])
  return {network.name: network for network in found}


def test_the_published_run():
  paper = document.PAPER
  assert paper.steps == 312_784  # 1000 * 1,281,167 / 4096
  assert paper.seconds_per_step == pytest.approx(28_800 / 312_784)
  assert paper.images_per_second == pytest.approx(44_484.8, abs=.1)


def test_sizes_of_resnet50_are_torchvisions_and_those_of_the_heads(networks):
  sizes = networks['ResNet-50 1x'].sizes
  encoder = 25_557_032 - 2_049_000  # torchvision's, without its classifier
  projector = 2048 * 4096 + 4096 + 2 * 4096 + 4096 * 256
  predictor = 256 * 4096 + 4096 + 2 * 4096 + 4096 * 256
  assert sizes.parameters == encoder + projector + predictor + 2_049_000
  assert sizes.parameter_bytes == 4 * sizes.parameters
  assert sizes.batch_norms == 53 + 2
  assert sizes.batch_norm_channels == 26_560 + 2 * 4096
  # 53 convolutions, scale and offset of 55 norms, 3 + 3 arrays in the heads, 2 in the
  # classifier; parameters, target and momentum. Per norm two averages of three arrays.
  assert sizes.state_leaves == 1 + 3 * (53 + 2 * 55 + 3 + 3 + 2) + 2 * 6 * 55
  # Hidden and average of two moments per channel, and two counters per norm.
  statistics = 4 * (4 * sizes.batch_norm_channels + 2 * 55)
  assert sizes.checkpoint_bytes == 3 * sizes.parameter_bytes + 2 * statistics


def test_resnet200_2x_has_the_papers_number_of_parameters(networks):
  sizes = networks['ResNet-200 2x'].sizes
  heads = 4096 * 4096 + 256 * 4096 + 2 * (3 * 4096 + 4096 * 256) + 4096 * 1000 + 1000
  assert round((sizes.parameters - heads) / 1e6) == 250  # Table 9
  assert sizes.batch_norms == 3 * (3 + 24 + 36 + 3) + 1 + 4 + 2


def test_all_reduces_of_the_formulas_are_those_of_the_step():
  recipe = make_recipe()
  state = initial_state(recipe)
  # Augmentation reduces nothing, and is slow to trace.
  recipe = recipe._replace(views=lambda batch: 2 * (batch['images'][:, :16, :16] / 255,))
  step = parallel.jit_step(functools.partial(train_step.train_step, recipe=recipe), jax.devices())
  traced = step.trace(*parallel.abstract_inputs(state, make_batch(0), jax.devices()))
  reduced = []
  for found in re.finditer(r'stablehlo\.all_reduce.*?\}\) : \((.*?)\) ->',
                           traced.lower(lowering_platforms=('tpu',)).as_text(), re.DOTALL):
    for shape in re.findall(r'tensor<([\dx]*?)x?f32>', found.group(1)):
      reduced.append([int(side) for side in shape.split('x') if side])
  _, scalars = traced.out_info
  averaged = [state.online_params, {k: v for k, v in scalars.items()
                                    if k not in ('learning_rate', 'tau')}]
  sizes = arithmetic.sizes(state)
  assert len(reduced) - len(jax.tree.leaves(averaged)) == (
      arithmetic.batch_norm_reductions(sizes.batch_norms))
  count = lambda sides: functools.reduce(lambda a, b: a * b, sides, 1)
  assert 4 * sum(map(count, reduced)) - arithmetic.num_bytes(averaged) == (
      arithmetic.batch_norm_bytes(sizes.batch_norm_channels))


def test_formulas():
  assert arithmetic.batch_norm_reductions(1) == 12
  assert arithmetic.batch_norm_bytes(10) == 480
  assert arithmetic.ring_bytes(1000, 4) == 1500
  assert arithmetic.ring_bytes(1000, 1) == 0
  assert arithmetic.host_images_per_second(4096, .5, 8) == 1024
  assert arithmetic.dispatch_seconds(1119, 18e-6) == pytest.approx(.020142)
  run = arithmetic.Published(accelerators=10, hours=1, epochs=2, images=450, batch_size=9)
  assert run.steps == 100 and run.seconds_per_step == 36 and run.images_per_second == .25
  assert arithmetic.scaled_seconds(run, 5) == 72
  assert arithmetic.scaled_seconds(run, 20, work=3.) == 54
  assert arithmetic.break_even(run, 18) == 20
  assert arithmetic.break_even(run, 54, work=3.) == 20
  # 2 bytes for each image and 4 besides.
  assert arithmetic.largest_batch((1, 6), (10, 24), 100) == 48


def test_the_page_is_what_the_command_writes(networks):
  text = document.text(list(networks.values()), record.read(DOCS))
  assert text == (DOCS / 'scaling.md').read_text()


def test_the_page_says_the_numbers_worked_out_by_hand():
  text = (DOCS / 'scaling.md').read_text()
  lines = [line for line in text.splitlines() if line.startswith('| 512 |')]
  # 4096 images in 92.08 ms over 64 hosts; both ways are one at the paper's own size.
  assert lines[0].startswith('| 512 | 64 | 8 | 92 ms | 0.3 | 695 |') and '| 695 |' in lines[0][30:]
  # 2 * 511 / 512 * 148.5 MB, and 48 bytes for each of 34,752 channels.
  assert lines[2].startswith('| 512 | 296.3 MB | 3.3 MB |')


def test_the_compiler_counts_the_operations_of_the_published_network():
  rows = record.find(record.read(DOCS)['compiled'], depth=50, width=1., dtype='float32')
  assert rows
  for row in rows:
    # torchvision: 4.09 billion multiply-adds per image. Two views, once through the target;
    # online forward and twice as much backward.
    expected = 2 * 4.09e9 * 2 * (1 + 3) * row['batch_per_core']
    assert row['flops'] == pytest.approx(expected, rel=.05)


def test_a_compilation_replaces_an_earlier_one_of_the_same():
  row = dict(depth=50, width=1., dtype='float32', topology='v3:2x2', batch_per_core=8, flops=1.)
  results = record.with_compiled(record.read('nowhere'), row)
  results = record.with_compiled(results, dict(row, depth=18))
  results = record.with_compiled(results, dict(row, flops=2.))
  assert [(r['depth'], r['flops']) for r in results['compiled']] == [(18, 1.), (50, 2.)]
  assert len(record.find(results['compiled'], depth=50, dtype='float32')) == 1


def test_what_is_missing_is_said(networks):
  with pytest.raises(InputError, match='--measure'):
    document.text(list(networks.values()), record.read('nowhere'))
  with pytest.raises(InputError, match='--compile'):
    document.networks({'ResNet-50 1x': imagenet_r50.get_config()}, [])


def test_a_folder_without_compilations_is_refused_and_left_alone(tmp_path):
  result = commands.run('scaling', output=tmp_path / 'scaling.md')
  assert result.returncode == 1 and 'scaling.json has no compilation results' in result.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('hosts', [1, 2])
def test_a_hosts_rate_is_of_its_share_of_the_batches(tmp_path, hosts):
  write_records(tmp_path, [encode(noise(20, 24, 3, seed=i), 'JPEG') for i in range(22)])
  config = default.get_config().unlock()
  options = plugin_options('datasets', 'tfds')
  options.update(name='tiny', data_dir=str(tmp_path), test_split='', shuffle_buffer=4)
  config.data.update(dataset='tfds', options=options, virtual_shards=4, image_size=8)
  policies = [config.view1.to_dict(), config.view2.to_dict()]
  rate = input_rate.measure(config.data, policies, host_count=hosts, batch_size=8, steps=3,
                            warmup=1)
  assert rate['hosts'] == hosts and rate['shards'] == 4 // hosts
  assert rate['images'] == 3 * 8 // hosts
  assert rate['per_core_second'] > 0 and rate['per_second'] > 0
  found = input_rate.encoded(config.data, sample=10)
  assert found['images'] == 22 - 3  # a tenth is held out
  assert found['sample'] == found['distinct'] == 10 and 500 < found['mean_bytes'] < 5000


@pytest.mark.slow
def test_the_compiler_accounts_for_the_state():
  """Where libtpu is installed: no array is smaller on the TPU than in its shape."""
  pytest.importorskip('libtpu')
  config = imagenet_r50.get_config('depth=18')
  config.data.image_size = 32
  with config.model.encoder_options.ignore_type():
    config.model.encoder_options.depth = 'tiny'
  found = compiler.costs(config, 'v3:2x2', 8, 1000, 10)
  recipe = shapes.recipe(config, 1000, 10)
  state = shapes.state(recipe, 32)
  assert found['cores'] == 8 and found['device_kind'] == 'TPU v3'
  assert found['argument_bytes'] >= arithmetic.num_bytes(state)
  assert found['memory_bytes'] > found['argument_bytes'] and found['flops'] > 0


def test_an_unknown_topology_is_an_error():
  with pytest.raises(InputError, match='topology'):
    compiler.devices('v3:no')
