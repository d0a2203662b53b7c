import collections
import functools
import io
import itertools
import pathlib
import re
import shutil

import jax
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from byol_jax.augment import crops
from byol_jax.config import plugin_options
from byol_jax.input_pipeline import loading, preprocess, splits, tf_pipeline
from byol_jax.input_pipeline.records import DataError, Shards, one_host
from byol_jax.input_pipeline.streams import Stream
from experiments.configs import default
from tests.datasets.test_tfds import features, record_files, write_set
from tests.input_pipeline.same_batches import assert_same_batches, concatenated

TOTAL = 4  # virtual shards
ONE_HOST = Shards(TOTAL, tuple(range(TOTAL)))
# Shards of 5 and of 6 images, so that batches straddle passes.
NUM_EXAMPLES, BATCH, STEPS = 22, 8, 12
NUM_CLASSES = 3
FILES = dict(train=(6, 3, 8, 5))
# Small windows: no two of them are the same, not even in these images.
VIEW = dict(crop_area=(.2, .6), crop_aspect=(3 / 4, 4 / 3))
PAIR = (VIEW, VIEW)


def encode(array, kind, **options):
  file = io.BytesIO()
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image.save(file, kind, **options)
  return file.getvalue()


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_images(folder, files):
  """Writes the bytes of each file by its name."""
  for name, content in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def write_records(data_dir, contents, kind='jpeg'):
  """The images as a set 'tiny' of TFRecord files, image i of class i % NUM_CLASSES."""
  return write_set(data_dir, [dict(image=content, label=i % NUM_CLASSES)
                              for i, content in enumerate(contents)],
                   FILES, features(kind, NUM_CLASSES))


def open_records(data_dir, shards=ONE_HOST):
  options = dict(
      name='tiny', data_dir=str(data_dir), train_split='train', validation_split='', test_split='',
      held_out='last', held_out_images=0, held_out_share=0., image_key='image', label_key='label',
      shuffle_buffer=4, download=False)
  return splits.read('tfds', 'train', purpose='a test', shards=shards, options=options)


def open_folder(folder, shards=ONE_HOST, labels='folders', **changes):
  options = dict(train=str(folder), validation=None, test=None, labels=labels, validation_share=0.)
  return splits.read('image_folder', 'train', purpose='a test', shards=shards,
                     options=options | changes)


OPENED = dict(tfds=open_records, image_folder=open_folder)


@pytest.fixture(scope='module')
def stores(tmp_path_factory):
  """The same JPEG images, of several sizes, as TFRecord files and as class folders."""
  root = tmp_path_factory.mktemp('stores')
  contents = [encode(noise(20 + i % 4, 24 + i % 3, 3, seed=i), 'JPEG') for i in range(NUM_EXAMPLES)]
  write_records(root / 'tfds', contents)
  write_images(root / 'image_folder',
               {f'class{i % NUM_CLASSES}/{i}.jpg': content for i, content in enumerate(contents)})
  return root


@pytest.fixture(scope='module', params=OPENED)
def load(request, stores):
  """Shards -> the stream of each kind of store."""
  return functools.partial(OPENED[request.param], stores / request.param)


def forbidden(ids):
  raise AssertionError(f'The images {ids} should be readable.')


def train(stream, first_step=0, last_step=STEPS, *, shards=ONE_HOST, seed=0, workers=1,
          batch_size=BATCH, unreadable=forbidden, policies=(VIEW,)):
  return list(stream.train_batches(
      'tf_data', policies=policies, resize='bicubic', image_size=4, seed=seed,
      shards=shards, workers=workers, unreadable=unreadable, batch_size=batch_size,
      first_step=first_step, last_step=last_step))


def evaluation(stream, *, shards=ONE_HOST, batch_size=BATCH, image_size=4, share=1.,
               order='crop_first', unreadable=forbidden):
  return list(stream.evaluation_batches(
      image_size=image_size, share=share, order=order, batch_size=batch_size,
      shards=shards, workers=2, unreadable=unreadable))


@pytest.fixture(scope='module')
def whole(load):
  """The batches of a single host with one worker."""
  return train(load(), policies=PAIR)


def streams(batches):
  """The (epoch, id) pairs of each virtual shard in their order."""
  found = collections.defaultdict(list)
  for batch in batches:
    pairs = list(zip(batch['epoch'].tolist(), batch['sample_id'].tolist()))
    for shard in range(TOTAL):
      each = len(pairs) // TOTAL
      found[shard] += pairs[shard * each:(shard + 1) * each]
  return found


def own_ids(stream):
  """The ids of each virtual shard, in the order of evaluation."""
  if stream.source(0).startswith('record'):
    return np.split(np.arange(stream.num_examples), np.cumsum(stream.shard_sizes)[:-1])
  return [np.arange(shard, stream.num_examples, TOTAL) for shard in range(TOTAL)]


def labels_by_id(stream):
  """Label of each image, from where it lies."""
  if stream.source(0).startswith('record'):
    return np.arange(stream.num_examples) % NUM_CLASSES
  return np.array([int(pathlib.Path(stream.source(i)).parent.name.removeprefix('class'))
                   for i in range(stream.num_examples)])


def test_batches_have_their_shapes_and_the_labels_of_their_ids(load, whole):
  labels = labels_by_id(load())
  assert len(whole) == STEPS
  for batch in whole:
    assert batch.keys() == {'sample_id', 'epoch', 'labels', 'crop1', 'crop2'}
    for name in ('sample_id', 'epoch', 'labels'):
      assert batch[name].shape == (BATCH,) and batch[name].dtype == np.int32
    for name in ('crop1', 'crop2'):
      assert batch[name].shape == (BATCH, 4, 4, 3) and batch[name].dtype == np.uint8
    assert (batch['crop1'] != batch['crop2']).any((1, 2, 3)).all()
    np.testing.assert_array_equal(batch['labels'], labels[batch['sample_id']])


@pytest.mark.parametrize('hosts, workers', [(2, 3), (4, 1)])
def test_any_number_of_hosts_and_workers_makes_the_same_global_batches(
    load, whole, hosts, workers):
  parts = []
  for index in range(hosts):
    shards = one_host(index, hosts, TOTAL)
    parts.append(train(load(shards), shards=shards, workers=workers, policies=PAIR))
  assert all(len(part[0]['sample_id']) == BATCH // hosts for part in parts)
  assert_same_batches(concatenated(parts), whole)


def test_resuming_in_the_middle_and_at_the_end_of_a_pass_gives_the_rest_of_the_batches(
    load, whole):
  # 6 images of each shard are done: a pass and an image, or a pass.
  assert_same_batches(train(load(), 3, policies=PAIR), whole[3:])


def test_each_shard_gives_every_image_once_per_pass(load, whole):
  for pairs, own in zip(streams(whole).values(), own_ids(load())):
    assert len(pairs) == STEPS * BATCH // TOTAL
    for start in range(0, len(pairs), len(own)):
      epochs, ids = zip(*pairs[start:start + len(own)])
      assert set(epochs) == {start // len(own)}
      assert len(set(ids)) == len(ids) and set(ids) <= set(own.tolist())


@pytest.mark.slow
def test_memory_does_not_grow_from_pass_to_pass(tmp_path):
  # 22 images of 100 KB: 2 MB in a pass, 3 GB in all of them.
  write_records(tmp_path, [encode(noise(256, 256, 3, seed=i), 'JPEG', quality=95)
                           for i in range(NUM_EXAMPLES)])
  batches = open_records(tmp_path).train_batches(
      'tf_data', policies=PAIR, resize='bicubic', image_size=64, seed=0,
      shards=ONE_HOST, workers=0, unreadable=forbidden, batch_size=BATCH, first_step=0,
      last_step=10 ** 6)
  resident = []
  for _ in range(5):
    for batch in itertools.islice(batches, 200 * NUM_EXAMPLES // BATCH):
      assert len(batch['crop1']) == BATCH
    resident.append(int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096)
  # The first 200 passes fill the buffers and the pools of the allocator.
  assert max(resident[1:]) < resident[0] + 50e6, resident


def test_the_order_and_the_crops_change_with_the_seed_and_from_pass_to_pass(load, whole):
  other = train(load(), seed=1, policies=PAIR)
  orders = collections.Counter()
  for batches in (whole, other):
    passes = collections.defaultdict(list)
    for pairs in streams(batches).values():
      for epoch, sample_id in pairs:
        passes[epoch].append(sample_id)
    full = [tuple(ids) for ids in passes.values() if len(ids) == NUM_EXAMPLES]
    assert len(full) == 4
    orders.update(full)
  assert len(orders) == 8
  drawn = collections.defaultdict(set)
  for batch in (*whole, *other):
    for row, sample_id in enumerate(batch['sample_id']):
      drawn[sample_id] |= {batch[name][row].tobytes() for name in ('crop1', 'crop2')}
  shown = collections.Counter(i for batch in (*whole, *other) for i in batch['sample_id'])
  assert {i: len(found) for i, found in drawn.items()} == {i: 2 * n for i, n in shown.items()}


def test_evaluation_gives_each_image_once_in_the_order_of_ids(load):
  batches = []
  for index in range(2):
    shards = one_host(index, 2, TOTAL)
    own = evaluation(load(shards), shards=shards, batch_size=5)
    assert {len(batch['sample_id']) for batch in own[:-1]} == {5}
    batches += own
  ids = np.concatenate([batch['sample_id'] for batch in batches])
  np.testing.assert_array_equal(ids, np.concatenate(own_ids(load())))
  assert all(batch.keys() == {'sample_id', 'labels', 'crop1'} for batch in batches)
  np.testing.assert_array_equal(
      np.concatenate([batch['labels'] for batch in batches]), labels_by_id(load())[ids])


# Landscape and portrait images, odd margins, and one that is smaller than the view.
SHAPES = [(21, 34), (37, 22), (5, 3)]


@pytest.mark.parametrize('share', [.875, 1.])
@pytest.mark.parametrize('order', ['crop_first', 'resize_first'])
def test_the_view_for_evaluation_is_that_of_the_device(tmp_path, order, share):
  images = [noise(*shape, 3, seed=i) for i, shape in enumerate(SHAPES)]
  write_images(tmp_path, {f'{i}.png': encode(image, 'PNG') for i, image in enumerate(images)})
  stream = open_folder(tmp_path, Shards(), labels='none')
  (batch,) = evaluation(stream, shards=Shards(), image_size=16, share=share, order=order)
  assert batch.keys() == {'sample_id', 'crop1'} and batch['crop1'].dtype == np.uint8
  view = jax.jit(functools.partial(crops.center_view, size=16, share=share, order=order))
  for ours, image in zip(batch['crop1'], images, strict=True):
    difference = np.abs(ours - 255 * np.asarray(view(image / np.float32(255))))
    # Rounding to whole steps, and TensorFlow's weights, which are from a table.
    assert difference.max() < .75 and difference.mean() < .26


RGB = noise(7, 9, 3)
# Smooth, as photographs are: lossy formats keep it.
ROWS, COLUMNS = np.mgrid[:24, :32]
SMOOTH = np.stack([8 * COLUMNS, 8 * ROWS + COLUMNS, 255 - 4 * (COLUMNS + ROWS)], -1).clip(
    0, 255).astype(np.uint8)
PALETTE = Image.fromarray(RGB).quantize(16)
ANIMATION = dict(save_all=True, append_images=[Image.fromarray(255 - RGB).quantize(16)])


@pytest.mark.parametrize('encoded, atol', [
    (encode(RGB, 'PNG'), 0),
    (encode(RGB[:1, :1], 'PNG'), 0),
    (encode(RGB[..., 0], 'PNG'), 0),
    (encode(RGB[..., 0] > 99, 'PNG'), 0),
    (encode(PALETTE, 'PNG'), 0),
    (encode(PALETTE, 'GIF'), 0),
    (encode(PALETTE, 'GIF', **ANIMATION), 0),
    (encode(RGB, 'BMP'), 0),
    (encode(RGB, 'WEBP', lossless=True), 0),
    (encode(SMOOTH, 'WEBP', quality=90), 2),
    (encode(SMOOTH, 'JPEG', quality=95), 8),
    (encode(SMOOTH, 'JPEG', quality=95, progressive=True), 8),
    (encode(SMOOTH[..., 0], 'JPEG', quality=95), 8),
    (encode(Image.fromarray(SMOOTH).convert('CMYK'), 'JPEG', quality=95), 8),
], ids=['png', 'png_of_one_pixel', 'gray', 'black_and_white', 'palette', 'gif', 'animated_gif',
        'bmp', 'webp', 'lossy_webp', 'jpeg', 'progressive_jpeg', 'gray_jpeg', 'cmyk_jpeg'])
def test_images_decode_to_the_colours_that_pil_finds(encoded, atol):
  image = preprocess.decode(encoded).numpy()
  expected = np.array(Image.open(io.BytesIO(encoded)).convert('RGB'))
  assert image.dtype == np.uint8 and image.shape == expected.shape
  np.testing.assert_allclose(image.astype(int), expected, rtol=0, atol=atol)


@pytest.mark.parametrize('encoded, expected', [
    (encode(np.dstack([RGB, RGB[..., :1]]), 'PNG'), RGB),
    (encode(Image.fromarray(RGB[..., :2].copy(), 'LA'), 'PNG'), RGB[..., :1]),
    (encode(np.dstack([RGB, RGB[..., :1]]), 'WEBP', lossless=True, exact=True), RGB),
], ids=['png', 'gray_png', 'webp'])
def test_transparency_is_dropped(encoded, expected):
  image = preprocess.decode(encoded).numpy()
  np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))


@pytest.mark.parametrize('encoded', [
    encode(PALETTE, 'BMP'), encode(PALETTE, 'WEBP', **ANIMATION, lossless=True)],
    ids=['bmp_with_palette', 'animated_webp'])
def test_what_tensorflow_decodes_wrongly_is_refused(encoded):
  with pytest.raises(tf.errors.InvalidArgumentError, match='animated WebP or BMP with a palette'):
    preprocess.decode(encoded)


def test_an_animation_among_the_files_gives_its_first_frame(tmp_path):
  # Photographs in several frames end the process if the decoder sees them.
  frames = [Image.fromarray(noise(48, 64, 3, seed=i)) for i in range(3)]
  animation = encode(frames[0], 'WEBP', lossless=True, save_all=True, append_images=frames[1:])
  write_images(tmp_path, {
      f'{i}.webp': animation if i % 2 else encode(frames[0], 'WEBP', lossless=True)
      for i in range(20)})
  found = np.concatenate([batch['crop1'] for batch in evaluation(
      open_folder(tmp_path, labels='none'))])
  assert len(found) == 20
  np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))


def test_a_strip_is_looked_at_in_its_middle(tmp_path):
  """Resized as a whole, 1 x 100,000 pixels would need gigabytes."""
  strip = np.zeros((1, 100_000, 3), np.uint8)
  strip[:, 49_900:50_100] = 200
  write_images(tmp_path, {'strip.png': encode(strip, 'PNG')})
  (batch,) = evaluation(open_folder(tmp_path, Shards(), labels='none'), shards=Shards(),
                        image_size=32, share=.875, order='resize_first')
  np.testing.assert_array_equal(batch['crop1'], 200)


def test_a_file_that_is_gone_is_no_bad_image(tmp_path):
  write_images(tmp_path, {f'{i}.png': encode(noise(3, 2, 3), 'PNG') for i in range(4)})
  stream = open_folder(tmp_path, labels='none')
  (tmp_path / '2.png').unlink()
  with pytest.raises(DataError, match=r'Reading the data set failed \(NotFoundError\): .*2\.png'):
    evaluation(stream)


def test_sixteen_bits_become_eight():
  deep = np.random.default_rng(0).integers(0, 1 << 16, (7, 9), np.uint16)
  image = preprocess.decode(encode(deep, 'PNG')).numpy()
  assert image.shape == (7, 9, 3)
  np.testing.assert_allclose(image.astype(int), np.repeat(deep[..., None] / 257, 3, -1), atol=1)


@pytest.mark.parametrize('shape', [(1, 1), (3, 2), (1, 40)], ids='{0[0]}x{0[1]}'.format)
def test_images_smaller_than_the_crop_are_enlarged(shape):
  colour = np.array([20, 130, 240], np.uint8)
  image = preprocess.decode(encode(np.broadcast_to(colour, (*shape, 3)).copy(), 'PNG'))
  found = preprocess.crops(image, tf.constant([0, 1]), policies=PAIR, size=16,
                           resize='bicubic')
  for order in ('crop_first', 'resize_first'):
    found[order] = preprocess.center_view(image, size=16, share=.875, order=order)
  for crop in found.values():
    np.testing.assert_array_equal(crop, np.broadcast_to(colour, (16, 16, 3)))


# Two hundred files in the order of their names. One of every four is damaged, in turn
# of each virtual shard.
NUM_FILES = 200
BAD = [4 * i + i % TOTAL for i in range(NUM_FILES // 4)]
JPEG = encode(SMOOTH, 'JPEG')
DAMAGE = [JPEG[:len(JPEG) // 2], b'', b'no image', noise(300).tobytes(),
          b'\x89PNG\r\n\x1a\n' + JPEG[8:], encode(RGB, 'PNG')[:60], JPEG[:-30],
          encode(PALETTE, 'GIF')[:40]]


def colour_of(sample_id):
  """Whole images of it tell in any crop from which file they are."""
  return [sample_id, 255 - sample_id, 7]


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  """A folder of two classes and of which the images BAD cannot be read."""
  folder = tmp_path_factory.mktemp('damaged')
  contents = [encode(np.full((4, 5, 3), colour_of(i), np.uint8), 'PNG') for i in range(NUM_FILES)]
  for number, i in enumerate(BAD):
    contents[i] = DAMAGE[number % len(DAMAGE)]
  write_images(folder, {f'class{i // 100}/{i:03d}.png': content
                        for i, content in enumerate(contents)})
  return folder


def copied_ids(batch):
  """The images that the crops show."""
  shown = batch['crop1'][:, 0, 0, 0].astype(int)
  colours = np.stack([colour_of(i) for i in shown])[:, None, None]
  for name in {'crop1', 'crop2'} & batch.keys():
    np.testing.assert_array_equal(batch[name], np.broadcast_to(colours, batch[name].shape))
  return shown


@pytest.fixture(scope='module')
def filled(damaged):
  """Two passes over the damaged folder, and the ids that were reported in each batch."""
  found = []
  batches = train(open_folder(damaged), last_step=10, batch_size=40, policies=PAIR,
                  unreadable=found.append)
  return batches, found


def test_unreadable_images_are_reported_and_replaced_in_their_batch(filled):
  batches, reports = filled
  assert len(batches) == 10 and len(reports) == 10
  for epoch in range(2):
    ids = [i for batch in batches[5 * epoch:5 * epoch + 5] for i in batch['sample_id']]
    assert sorted(ids) == list(range(NUM_FILES))
    assert sorted(sum(reports[5 * epoch:5 * epoch + 5], [])) == BAD
  for number, (batch, report) in enumerate(zip(batches, reports)):
    ids, shown = batch['sample_id'], copied_ids(batch)
    assert {array.shape[0] for array in batch.values()} == {40}
    assert set(batch['epoch']) == {number // 5}
    bad = np.isin(ids, BAD)
    assert report == ids[bad].tolist()
    np.testing.assert_array_equal(shown[~bad], ids[~bad])
    np.testing.assert_array_equal(batch['labels'], shown // 100)
    # What is copied is of the same virtual shard, and so on the same host.
    np.testing.assert_array_equal(shown % TOTAL, ids % TOTAL)


def test_what_replaces_unreadable_images_does_not_depend_on_the_hosts(damaged, filled):
  found = []
  second = one_host(1, 2, TOTAL)
  batches = train(open_folder(damaged, second), last_step=3, shards=second, batch_size=40,
                  policies=PAIR, workers=3, unreadable=found.append)
  whole, reports = filled
  assert_same_batches(batches, [{name: array[20:] for name, array in batch.items()}
                                for batch in whole[:3]])
  assert found == [[i for i in report if i % TOTAL in second.owned] for report in reports[:3]]


def test_a_shard_without_readable_images_is_filled_from_the_others(tmp_path):
  write_images(tmp_path, {f'{i}.png': b'' if i % TOTAL == 3 else
                          encode(np.full((4, 4, 3), colour_of(i), np.uint8), 'PNG')
                          for i in range(8)})
  found = []
  (batch,) = train(open_folder(tmp_path, labels='none'), last_step=1, unreadable=found.extend)
  assert sorted(found) == [3, 7] and batch['sample_id'][6:].tolist() == found
  # The next ones after the end of the batch are those at its start.
  np.testing.assert_array_equal(copied_ids(batch)[6:], batch['sample_id'][[0, 0]])
  np.testing.assert_array_equal(copied_ids(batch)[:6], batch['sample_id'][:6])


def test_evaluation_leaves_unreadable_images_out(damaged):
  found = []
  batches = evaluation(open_folder(damaged), batch_size=30, unreadable=found.extend)
  assert sorted(found) == BAD
  ids = np.concatenate([batch['sample_id'] for batch in batches])
  assert sorted(ids) == [i for i in range(NUM_FILES) if i not in BAD]
  for batch in batches:
    np.testing.assert_array_equal(batch['crop1'][:, 0, 0, 0], batch['sample_id'])
    np.testing.assert_array_equal(batch['labels'], batch['sample_id'] // 100)


@pytest.mark.parametrize('read', [train, evaluation])
def test_an_error_of_the_callback_ends_the_run(damaged, read):
  class Stop(Exception):
    pass

  def stop(ids):
    raise Stop(ids)

  with pytest.raises(Stop):
    read(open_folder(damaged), unreadable=stop)


def test_a_batch_needs_one_readable_image(tmp_path):
  write_images(tmp_path, {f'{i}.jpg': JPEG[:50] for i in range(8)})
  stream = open_folder(tmp_path, labels='none')
  found = []
  with pytest.raises(DataError, match='None of the 8 images of a batch can be read; the first is'):
    train(stream, unreadable=found.extend)
  assert sorted(found) == list(range(8))
  assert evaluation(stream, unreadable=found.extend) == []
  assert sorted(found[8:]) == list(range(8))


@pytest.mark.parametrize('read, kind', [(train, 'tfds'), (evaluation, 'image_folder')])
def test_labels_outside_the_classes_name_the_record(stores, read, kind):
  stream = OPENED[kind](stores / kind)._replace(num_classes=NUM_CLASSES - 1)
  with pytest.raises(DataError, match='labels run from 0 to 2, outside 0 ... 1') as error:
    read(stream)
  source = str(error.value).split(': labels')[0]
  (sample_id,) = (i for i in range(NUM_EXAMPLES) if stream.source(i) == source)
  assert labels_by_id(stream)[sample_id] == NUM_CLASSES - 1


def test_secret_labels_are_refused(stores):
  stream = open_records(stores / 'tfds')
  secret = stream._replace(read=lambda record: dict(stream.read(record), labels=tf.constant(-1)))
  with pytest.raises(DataError, match='labels run from -1 to -1, .*hidden labels have -1'):
    evaluation(secret)


@pytest.fixture(scope='module')
def pixels(tmp_path_factory):
  """Images of one size as PNG: their pixels, and both kinds of store."""
  root = tmp_path_factory.mktemp('pixels')
  images = [noise(5, 6, 3, seed=i) for i in range(NUM_EXAMPLES)]
  contents = [encode(image, 'PNG') for image in images]
  write_records(root / 'tfds', contents, 'png')
  write_images(root / 'image_folder', {f'class{i % NUM_CLASSES}/{i:02d}.png': content
                                       for i, content in enumerate(contents)})
  return np.stack(images), root


@pytest.mark.parametrize('kind, shards', [
    ('tfds', ONE_HOST), ('tfds', Shards(TOTAL, (1, 2))), ('image_folder', Shards(TOTAL, (1, 2)))])
def test_memory_holds_the_exact_pixels_of_a_host(pixels, kind, shards):
  images, root = pixels
  stream = OPENED[kind](root / kind, shards)
  split = tf_pipeline.in_memory(stream, shards=shards, workers=2)
  ids = sorted(np.concatenate([own_ids(stream)[shard] for shard in shards.owned]))
  # Files of a folder are numbered in the order of their paths, class after class.
  rows = ids if kind == 'tfds' else [int(pathlib.Path(stream.source(i)).stem) for i in ids]
  np.testing.assert_array_equal(split.sample_id, ids)
  np.testing.assert_array_equal(split.images, images[rows])
  np.testing.assert_array_equal(split.labels, np.array(rows) % NUM_CLASSES)
  assert split.images.dtype == np.uint8
  assert split.sample_id.dtype == split.labels.dtype == np.int32
  assert (split.num_examples, split.num_classes) == (NUM_EXAMPLES, NUM_CLASSES)


def test_memory_holds_images_without_labels(tmp_path):
  write_images(tmp_path, {f'{i}.png': encode(noise(3, 2, 3, seed=i), 'PNG') for i in range(3)})
  split = tf_pipeline.in_memory(open_folder(tmp_path, Shards(), labels='none'), shards=Shards(),
                                workers=1)
  assert split.labels is None and split.num_classes == 0
  np.testing.assert_array_equal(split.images, [noise(3, 2, 3, seed=i) for i in range(3)])


@pytest.mark.parametrize('content, message', [
    (encode(noise(3, 4, 3), 'PNG'), r'/2\.png is 4 x 3 pixels, other images are 2 x 3; .*tf_data'),
    (b'GIF89a', r'/2\.png cannot be read as an image: it begins like GIF .* give '
     r'--config\.data\.pipeline=tf_data --config\.data\.unreadable=skip')],
    ids=['size', 'unreadable'])
def test_images_that_do_not_fit_into_memory_are_named(tmp_path, content, message):
  write_images(tmp_path, {f'{i}.png': encode(noise(3, 2, 3), 'PNG') for i in range(4)})
  write_images(tmp_path, {'2.png': content})
  with pytest.raises(DataError, match=f'^{re.escape(str(tmp_path))}{message}'):
    tf_pipeline.in_memory(open_folder(tmp_path, labels='none'), shards=ONE_HOST, workers=1)


@pytest.mark.parametrize('hosts', [2, 4])
def test_the_memory_pipeline_gives_every_host_its_part_of_a_tfds_set(
    tmp_path, monkeypatch, hosts):
  write_records(tmp_path, [encode(noise(5, 6, 3, seed=i), 'PNG') for i in range(NUM_EXAMPLES)],
                'png')
  data = dict(default.get_config().data.to_dict(), dataset='tfds', image_size=4,
              virtual_shards=TOTAL, options=plugin_options('datasets', 'tfds').to_dict())
  data['options'] |= dict(name='tiny', data_dir=str(tmp_path), test_split='', held_out_images=0)

  def batches(index, count):
    monkeypatch.setattr(jax, 'process_index', lambda: index)
    monkeypatch.setattr(jax, 'process_count', lambda: count)
    loader = loading.load(data, 'train', purpose='a test', workdir=tmp_path)
    return list(loader.train_batches([VIEW], seed=0, batch_size=BATCH, first_step=0, last_step=4))

  assert_same_batches(concatenated([batches(i, hosts) for i in range(hosts)]), batches(0, 1))


@pytest.fixture
def third_file(stores, tmp_path):
  """A file of a copy of the set in tmp_path: its path and content."""
  copy = shutil.copytree(stores / 'tfds' / 'tiny', tmp_path / 'tiny') / '1.0.0'
  path = record_files(copy, FILES['train'], 'train')[2]
  return path, path.read_bytes()


@pytest.mark.parametrize('read, damage, message', [
    (train, lambda content: content[:-5], 'truncated record'),
    (evaluation, lambda content: content[:200] + bytes(8) + content[208:], 'corrupted record')],
    ids=['truncated', 'corrupted'])
def test_damaged_record_files_are_an_error(third_file, tmp_path, read, damage, message):
  path, content = third_file
  path.write_bytes(damage(content))
  with pytest.raises(DataError,
                     match=rf'^Reading the data set failed \(DataLossError\): .*{message}.*'
                           rf'{re.escape(str(path))}: {message}'):
    read(open_records(tmp_path))


@pytest.mark.parametrize('read', [train, evaluation])
def test_record_files_with_too_few_records_are_an_error(third_file, tmp_path, read):
  path, _ = third_file
  whole = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in whole[:3]:
      writer.write(record)
  with pytest.raises(DataError, match=f'{re.escape(str(path))} has 3 records but should '
                                      r'have at least \d'):
    read(open_records(tmp_path))


class Failing:
  """Batches 0, 1, 2, ... of which some fail to be read, so often each."""

  def __init__(self, error, failures):
    self.error, self.failures, self.asked = error, dict(failures), []

  def __call__(self, done, careful):
    self.asked.append((done, careful))
    def batches():
      for number in range(done, 5):
        if self.failures.get(number):
          self.failures[number] -= 1
          raise self.error(None, None, 'the storage is away')
        yield dict(number=np.int32(number))
    return Iterated(batches)


class Iterated:
  """What `host_batches` needs of a data set."""

  def __init__(self, batches):
    self.as_numpy_iterator = batches


@pytest.fixture
def pauses(monkeypatch):
  """The pauses in seconds, which are not made."""
  made = []
  monkeypatch.setattr(tf_pipeline.time, 'sleep', made.append)
  return made


def numbers(failing, diagnosis=''):
  stream = Stream(None, None, None, None, lambda: diagnosis, 0, 0)
  return [int(batch['number']) for batch in tf_pipeline.host_batches(failing, stream)]


@pytest.mark.parametrize('error', tf_pipeline.TRANSIENT)
def test_errors_that_pass_are_tried_again_without_losing_a_batch(pauses, capsys, error):
  assert numbers(Failing(error, {0: 1, 3: 3})) == [0, 1, 2, 3, 4]
  assert pauses == [1., 1., 2., 4.]
  assert 'the storage is away' in capsys.readouterr().err


def test_errors_that_do_not_pass_end_after_some_attempts(pauses):
  with pytest.raises(DataError, match='UnavailableError.*the storage is away. The file is x'):
    numbers(Failing(tf.errors.UnavailableError, {2: 9}), 'The file is x')
  assert pauses == [1., 2., 4.]


def test_care_begins_with_the_first_image_that_cannot_be_decoded(pauses):
  failing = Failing(tf.errors.InvalidArgumentError, {3: 1})
  assert numbers(failing) == [0, 1, 2, 3, 4]
  assert failing.asked == [(0, False), (3, True)]
  with pytest.raises(DataError, match='InvalidArgumentError'):
    numbers(Failing(tf.errors.InvalidArgumentError, {3: 2}))
  assert not pauses


@pytest.mark.parametrize('error', [tf.errors.DataLossError, tf.errors.NotFoundError])
def test_damage_is_not_tried_again(pauses, error):
  with pytest.raises(DataError, match='the storage is away'):
    numbers(Failing(error, {2: 1}))
  assert not pauses


@pytest.mark.parametrize('turned_back', [True, False])
def test_every_pipeline_sees_photographs_upright(tmp_path, turned_back):
  """Upper halves are white: in crops of the lying image, left halves would be."""
  upright = np.zeros((64, 32, 3), np.uint8)
  upright[:32] = 255
  exif = Image.Exif()
  exif[0x0112] = 6
  lying = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
  write_images(tmp_path, {f'{i}.jpg': encode(lying, 'JPEG', quality=95, exif=exif)
                          for i in range(4)})
  stream = open_folder(tmp_path, labels='none', exif_orientation=turned_back)
  axis = 1 if turned_back else 2
  # Crops as wide as the image is, whose halves tell the direction.
  whole = dict(crop_area=(1., 1.), crop_aspect=(1., 1.))
  (trained,) = train(stream, last_step=1, batch_size=4, policies=(whole,))
  (judged,) = evaluation(stream)
  memory = tf_pipeline.in_memory(stream, shards=ONE_HOST, workers=1)
  assert memory.images.shape == ((4, 64, 32, 3) if turned_back else (4, 32, 64, 3))
  for images in (trained['crop1'], judged['crop1'], memory.images):
    first, second = np.array_split(images.astype(int), 2, axis=axis)
    assert first.mean() > second.mean() + 100
    other = np.array_split(images.astype(int), 2, axis=3 - axis)
    assert abs(other[0].mean() - other[1].mean()) < 5
