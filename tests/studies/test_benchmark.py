"""Each part of the benchmark on a tiny run."""

import collections
import json

import numpy as np
from PIL import Image
import pytest

from byol_jax.input_pipeline.records import DataError
from experiments.studies import benchmark
from experiments.studies.benchmark import input as benchmark_input
from experiments.studies.benchmark import profile, retrieval
from tests import tiny
from tests.commands import run

CASES = dict(
    input={'pipeline'},
    augment={'views', 'views without blur', 'views without jitter', 'views without colours',
             'blur', 'blur by convolution'},
    step={'matrix product', 'views', 'step'}, end_to_end={'step alone', 'run'},
    dispatch={'one step per dispatch', '8 steps per dispatch'},
    eval={'encoder', 'features', 'kNN of 20000'}, retrieval={'similarities', 'retrieval'})


@pytest.mark.parametrize('part', [
    pytest.param(part, marks=[pytest.mark.slow] * (part in ('step', 'end_to_end')))
    for part in benchmark.PARTS])
def test_every_part_runs(part, monkeypatch):
  monkeypatch.setattr(retrieval, 'GALLERY', 3000)
  results = benchmark.run(part, tiny.config(), repeats=1, trace=None)
  assert {result.name for result in results} == CASES[part]
  assert all(result.per_second > 0 for result in results)
  table = benchmark.as_table(results)
  lines = benchmark.as_json(results).splitlines()
  assert [json.loads(line)['name'] for line in lines] == [result.name for result in results]
  assert all(f'| {name} |' in table for name in CASES[part])


def folder_config(folder, kinds, size=40):
  """The config of a folder of random images, of which those of no kind are no images."""
  for number, kind in enumerate(kinds):
    path = folder / 'a' / f'{number:02d}.{kind or "jpg"}'
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path) if kind else path.write_text('no image')
  return tiny.config(data__dataset='image_folder', data__pipeline='tf_data', data__options=dict(
      train=str(folder), validation=None, test=None, labels='none', validation_share=0.,
      exif_orientation=True, subset_share=1., subset_seed=0))


@pytest.mark.parametrize('kinds, parts', [
    (['jpg'] * 8, {'read', 'decode', 'crops', 'published', 'pipeline'}),
    (['tif', 'png'] * 4, {'read', 'decode', 'crops', 'pipeline'})])
def test_the_input_of_a_folder_is_timed_by_its_parts(tmp_path, monkeypatch, kinds, parts):
  monkeypatch.setattr(benchmark_input, 'IMAGES', 8)
  results = benchmark.run('input', folder_config(tmp_path, kinds), repeats=1, trace=None)
  assert {result.name for result in results} == parts


@pytest.mark.parametrize('action', ['skip', 'stop'])
def test_an_image_that_cannot_be_read_is_named(tmp_path, monkeypatch, action):
  monkeypatch.setattr(benchmark_input, 'IMAGES', 8)
  config = folder_config(tmp_path, ['jpg', '', *['jpg'] * 6])
  config.data.unreadable = action
  with pytest.raises(DataError) as error:
    benchmark.run('input', config, repeats=1, trace=None)
  assert str(error.value) == (
      f"{tmp_path}/a/01.jpg cannot be read as an image: its content is text: 'no image'. The parts "
      'of the benchmark need all images to be readable: replace or remove it.')


@pytest.mark.slow
def test_the_steps_loss_is_told_and_falls():
  *_, step = benchmark.run('step', tiny.config(), repeats=4, trace=None)
  assert step.facts['last_loss'] < step.facts['first_loss']
  assert 0 < step.share_of_bound < 1


def test_eight_steps_in_a_dispatch_take_less_of_the_hosts_time():
  one, eight = benchmark.run('dispatch', tiny.config(), repeats=1, trace=None)
  assert one.facts['arrays'] == eight.facts['arrays'] > 100
  assert 0 < eight.facts['host_ms_per_step'] < one.facts['host_ms_per_step']


@pytest.mark.slow
def test_the_profile_names_the_parts_of_the_step(tmp_path):
  config = tiny.config(model__compute_dtype='float32')
  found = profile.costs(config, tmp_path)
  parts = {profile.part(cost.origin) for cost in found}
  assert parts >= {'views', 'online network, forward', 'online network, backward',
                   'target network, forward', 'update'}
  sums = {kind: sum(cost.seconds for cost in found if profile.kind(cost.origin) == kind)
          for kind in ('convolutions', 'BatchNorm', 'matrix products')}
  assert all(seconds > 0 for seconds in sums.values())
  assert '| online network, backward | BatchNorm |' in profile.as_table(found)


Event = collections.namedtuple('Event', 'name start_ns duration_ns stats')


def test_an_instructions_time_leaves_out_those_inside_it():
  op = lambda name, start, duration: Event(name, start, duration, [('hlo_op', name)])
  events = [op('inner', 20, 30), op('outer', 10, 90), op('inner', 60, 10), op('after', 100, 5),
            op('innermost', 25, 5), Event('end: inner', 50, 1, [('hlo_op', 'inner')]),
            Event('thread', 0, 500, [])]
  times = collections.Counter()
  for name, duration in profile._own_times(events):
    times[name] += duration
  assert times == dict(outer=50, inner=35, innermost=5, after=5)


PROGRAM = """
%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %tanh = f32[2]{0} tanh(%p), metadata={op_name="jit(body)/views/tanh"}
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %fusion.1 = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused
  %copy = f32[2]{0} copy(%fusion.1)
  ROOT %add = f32[2]{0} add(%copy, %x), metadata={op_name="jit(body)/add" stack_frame_id=2}
}
"""


def test_origins_of_instructions():
  origins = profile._origins(PROGRAM)
  assert {name: origins[name] for name in ('fusion.1', 'copy', 'add')} == {
      'fusion.1': 'jit(body)/views/tanh', 'copy': '', 'add': 'jit(body)/add'}


@pytest.mark.parametrize('origin, part, kind', [
    ('', 'unknown', 'others'),
    ('jit(body)/views/vmap()/dot_general', 'views', 'matrix products'),
    ('jit(body)/jvp(res_net18)/conv_1/conv_general_dilated', 'online network, forward',
     'convolutions'),
    ('jit(body)/jvp(target)/res_net18/conv_1/conv_general_dilated', 'target network, forward',
     'convolutions'),
    ('jit(body)/transpose(jvp(projector))/batch_norm/mul', 'online network, backward',
     'BatchNorm'),
    ('jit(body)/jit(norm)/sqrt', 'update', 'others')])
def test_parts_and_kinds(origin, part, kind):
  assert (profile.part(origin), profile.kind(origin)) == (part, kind)


def test_a_profile_needs_a_folder():
  done = run('benchmark', 'profile', config='tests/tiny.py')
  assert done.returncode == 1 and 'Give the folder for the profile: --trace=DIR' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_pytorch_step_trains(dtype):
  pytest.importorskip('torch')
  done = run('benchmark_torch', depth='10', width=.125, stem='small', image_size=16, batch_size=8,
             hidden=32, repeats=1, compile=False, dtype=dtype)
  result = json.loads(done.stdout)
  assert result['last_loss'] < result['first_loss'] and result['per_second'] > 0


def test_the_command_prints_one_line_of_json_per_case():
  done = run('benchmark', 'input', config='tests/tiny.py', json=True, repeats=1)
  line, = done.stdout.splitlines()
  assert json.loads(line)['unit'] == 'images'
