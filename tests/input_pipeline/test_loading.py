"""The `data` section of a config, with folders of real files, good and bad."""

import io
import json
import os
import pwd
import shutil

import numpy as np
from PIL import Image
import pytest

from byol_jax import build, evaluate, train
from byol_jax.config import plugin_options
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline import loading, tf_pipeline
from tests import tiny

GOOD, BAD = 70, 50


def encoded(image, kind='PNG'):
  file = io.BytesIO()
  Image.fromarray(image).save(file, kind)
  return file.getvalue()


def damaged(number, rng):
  """Bytes that look more or less like an image."""
  whole = encoded(rng.integers(0, 256, (30, 20, 3), np.uint8), 'JPEG')
  return [whole[:len(whole) // 2], b'', b'no image at all', rng.bytes(300),
          b'\x89PNG\r\n\x1a\n' + rng.bytes(50), whole[100:]][number % 6]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two classes of images of several sizes, and fifty files that are none."""
  root, rng = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
  for name in 'ab':
    (root / name).mkdir()
  for i in range(GOOD):
    shape = (16 + i % 5, 20 - i % 3, 3)
    (root / 'ab'[i % 2] / f'good{i:02}.png').write_bytes(encoded(
        rng.integers(0, 256, shape, np.uint8)))
  for i in range(BAD):
    (root / 'ab'[i % 2] / f'bad{i:02}.jpg').write_bytes(damaged(i, rng))
  return root


@pytest.fixture(scope='module')
def other_folder(folder):
  return shutil.copytree(folder, folder.with_name('test'))


@pytest.fixture
def config(folder, other_folder):
  def make(**overrides):
    config = tiny.config(train__epochs=1.0, train__warmup_epochs=.2, evals__every_epochs=1.0,
                         **overrides).unlock()
    config.data.update(dataset='image_folder', pipeline='tf_data', center_share=.875)
    config.data.options = plugin_options('datasets', 'image_folder')
    config.data.options.update(train=str(folder), test=str(other_folder))
    return config
  return make


def named(text):
  return {word.split('/')[-1] for word in text.split() if '/bad' in word}


@pytest.mark.slow
def test_a_run_with_fifty_damaged_files_ends_and_names_them(config, folder, tmp_path, capsys):
  state = train.pretrain(config(data__unreadable='skip'), tmp_path)
  assert int(state.step) == (GOOD + BAD) * 9 // 10 // 16
  printed = capsys.readouterr().out
  listed = loading.unreadable_images(tmp_path)
  # A pass over all training images for kNN, and the held-out ones, find every one.
  assert sorted(name[-9:] for name in listed) == [f'bad{i:02}.jpg' for i in range(BAD)]
  assert f'left out as unreadable: {BAD} images, listed in ' in printed
  assert len(named(printed)) == loading.NAMED and str(tmp_path / loading.UNREADABLE) in printed
  found = evaluate.evaluate(tiny.eval_config(encoders=('pretrained',)), tmp_path,
                            tmp_path / 'evaluation')
  assert found['unreadable']['test'] == BAD
  assert sum(found['unreadable'][part] for part in ('train', 'validation')) == BAD
  row = found['encoders']['pretrained']['knn']
  assert row['train_images'] + row['validation_images'] == GOOD


def test_a_damaged_file_stops_the_run_with_its_name(config, tmp_path):
  with pytest.raises(InputError, match=r'/bad\d\d\.jpg cannot be read as an image.*skip'):
    train.pretrain(config(), tmp_path)


def test_what_the_number_of_images_decides_is_said_before_they_are_decoded(
    config, tmp_path, monkeypatch):
  monkeypatch.setattr(tf_pipeline, 'in_memory', lambda *_, **options: pytest.fail('decoded'))
  for change, message in (
      (dict(train__steps_per_dispatch=99), 'steps_per_dispatch cannot be 99 in a run of 6 steps'),
      (dict(evals__knn__k=200), 'evals.knn.k is 200 with 108 training images'),
      (dict(train__batch_size=120, data__virtual_shards=120), '108 images cannot fill 120 virt')):
    small = config(**change)
    small.data.pipeline = 'memory'
    with pytest.raises(InputError, match=message):
      train.pretrain(small, tmp_path)


def test_classes_and_files_that_are_left_out_are_said(config, folder, tmp_path, capsys):
  (folder / 'notes.txt').touch()
  loader = loading.load(config().data, 'train', purpose='a test', workdir=tmp_path)
  text = f'train: 1 file in {folder} is left out, leaving {GOOD + BAD} images: 1 .txt'
  first, second = capsys.readouterr().out.splitlines()
  assert first.startswith(f'train: images of {folder} by class: a ') and second == text
  loading.say_left_out(dict(train=lambda: loader, test=lambda: loader))
  assert capsys.readouterr().out.splitlines() == [text, text.replace('train', 'test', 1)]


@pytest.mark.parametrize('change, message', [
    (dict(unreadable='ignore'), "data.unreadable is 'ignore'; it can be 'stop' or 'skip'"),
    (dict(pipeline='grain'), "data.pipeline is 'grain'; it can be 'memory', 'device' or 'tf_data'"),
    (dict(options=dict(train='')), "data.options.train is ''; it can be a path")])
def test_impossible_values_are_said_before_a_split_is_read(config, change, message):
  data = config().data
  data.update(change)
  with pytest.raises(InputError, match=message):
    build.check_data(data.to_dict())


def test_the_memory_pipeline_decodes_a_folder_of_one_size(tmp_path):
  rng, folder = np.random.default_rng(0), tmp_path / 'images'
  images = rng.integers(0, 256, (12, 9, 11, 3), np.uint8)
  folder.mkdir()
  for i, image in enumerate(images):
    (folder / f'{i:02}.png').write_bytes(encoded(image))
  data = tiny.config().unlock().data
  data.dataset, data.options = 'image_folder', plugin_options('datasets', 'image_folder')
  data.options.update(train=str(folder), labels='none', validation_share=0.)
  loader = loading.load(data, 'train', purpose='a test', workdir=tmp_path)
  assert loader.data.labels is None
  np.testing.assert_array_equal(loader.data.images, images)
  record = json.loads((tmp_path / loading.ACCESS_LOG).read_text())
  assert record == dict(dataset='image_folder', split='train', purpose='a test', examples=12)


def test_the_fingerprint_changes_with_every_writing_of_a_file(tmp_path, monkeypatch):
  folder = tmp_path / 'images'
  folder.mkdir()
  for number in range(3):
    (folder / f'{number}.png').write_bytes(encoded(np.zeros((9, 9, 3), np.uint8)))
  data = tiny.config().unlock().data
  data.update(dataset='image_folder', pipeline='tf_data')
  data.options = plugin_options('datasets', 'image_folder')
  data.options.update(train=str(folder), labels='none', validation_share=0.)
  fingerprint = lambda: loading.load(
      data, 'train', purpose='a test', workdir=tmp_path).fingerprint()
  one, found = folder / '1.png', [fingerprint()]
  # In the same second, and as long as before.
  os.utime(one, ns=(0, one.stat().st_mtime_ns // 10 ** 9 * 10 ** 9 + 7))
  found.append(fingerprint())
  one.unlink()
  one.symlink_to(folder / 'nothing')
  found.append(fingerprint())
  assert len({*found}) == 3
  # Of a file whose owner has no name on this machine.
  monkeypatch.setattr(pwd, 'getpwuid', lambda number: {}[number])
  assert fingerprint() == found[-1]


def test_the_fingerprint_in_memory_is_that_of_all_processes_however_many(tmp_path, monkeypatch):
  loader = loading.load(tiny.config().data, 'train', purpose='a test', workdir=tmp_path)
  data, gather = loader.data, parallel.gather_rows
  part = lambda rows: loader._replace(data=data._replace(
      images=data.images[rows], labels=data.labels[rows], sample_id=data.sample_id[rows]))
  own = []
  monkeypatch.setattr(parallel, 'gather_rows', lambda rows: own.append(rows) or rows)
  whole = loader.fingerprint()
  for rows in (slice(0, None, 2), slice(1, None, 2), slice(0, 0)):
    part(rows).fingerprint()
  monkeypatch.setattr(parallel, 'gather_rows', lambda rows: np.concatenate(own[1:]))
  assert part(slice(0, None, 2)).fingerprint() == whole
  monkeypatch.setattr(parallel, 'gather_rows', gather)
  for field in ('images', 'labels', 'sample_id'):
    values = getattr(data, field)
    rolled = data._replace(**{field: np.roll(values, 1, 0)})
    assert loader._replace(data=rolled).fingerprint() != whole
  assert loader._replace(data=data._replace(labels=None)).fingerprint() != whole


def test_the_memory_pipeline_refuses_what_it_cannot_hold(config, tmp_path):
  data = config().data
  data.pipeline = 'memory'
  with pytest.raises(InputError, match='data.pipeline=tf_data'):
    loading.load(data, 'train', purpose='a test', workdir=tmp_path)


def test_labels_are_those_of_all_images_in_the_order_of_their_ids(tmp_path):
  loader = loading.load(tiny.config().data, 'train', purpose='a test', workdir=tmp_path)
  np.testing.assert_array_equal(loader.labels(), loader.data.labels)
  shuffled = loader.data._replace(
      **{name: getattr(loader.data, name)[::-1] for name in ('sample_id', 'images', 'labels')})
  np.testing.assert_array_equal(loader._replace(data=shuffled).labels(), loader.data.labels)


def test_labels_are_known_without_reading_an_image(config, tmp_path):
  """Those of folders from their names, those in memory from the split; by id."""
  options = config().data.to_dict()
  stream = loading.load(options, 'test', purpose='a test', workdir=tmp_path).known()
  assert stream.images == GOOD + BAD and len(stream.labels) == stream.images
  assert sorted(set(stream.labels.tolist())) == [0, 1]
  loader = loading.load(tiny.config().data.to_dict(), 'test', purpose='a test', workdir=tmp_path)
  assert loader.known().images == 30
  np.testing.assert_array_equal(loader.known().labels, loader.data.labels)
  unlabelled = loader._replace(data=loader.data._replace(labels=None, num_classes=0))
  assert unlabelled.known() == (30, None)
