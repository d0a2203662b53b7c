import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline import prefetch
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.order import dispatches, part_order, samples_of_step, shard_order
from byol_jax.input_pipeline.records import Shards, one_host
from tests.input_pipeline.same_batches import assert_same_batches, concatenated

TOTAL = 8  # virtual shards
ONE_HOST = Shards(TOTAL, tuple(range(TOTAL)))
# 21 images: shards of 3 and of 2, so that batches straddle passes.
NUM_EXAMPLES, BATCH = 21, 16
VIEW = dict(crop_area=(.2, 1.), crop_aspect=(3 / 4, 4 / 3))


def make_split(shards=ONE_HOST, labelled=True, num_examples=NUM_EXAMPLES):
  """Image i is filled with noise of its own and holds i in its first pixel; its label is 2 i."""
  ids = shards.sample_ids(num_examples)
  images = np.stack([np.random.default_rng(i).integers(0, 256, (5, 6, 3)) for i in ids])
  images[:, 0, 0] = ids[:, None]
  return Split(ids, images.astype(np.uint8), (2 * ids).astype(np.int32) if labelled else None,
               num_examples, 2 * num_examples if labelled else 0)


def batches(first_step=0, last_step=6, *, pipeline='memory', shards=ONE_HOST, seed=0,
            split=None, batch_size=BATCH):
  split = make_split(shards) if split is None else split
  return list(split.train_batches(
      pipeline, policies=[VIEW, VIEW], resize='bicubic', image_size=4, seed=seed,
      first_step=first_step, last_step=last_step, batch_size=batch_size, shards=shards,
      workers=0, unreadable=None))


def streams(steps, num_examples, batch_size):
  """The (epoch, id) pairs of each virtual shard in their order."""
  found = collections.defaultdict(list)
  for step in range(steps):
    ids, epochs = samples_of_step(
        step, seed=0, num_examples=num_examples, batch_size=batch_size, shards=ONE_HOST)
    for sample_id, epoch in zip(ids.tolist(), epochs.tolist()):
      found[sample_id % TOTAL].append((epoch, sample_id))
  return found


def test_the_order_is_pinned():
  # Another order would make a resumed run see some images twice.
  assert shard_order(0, 0, 0, 8).tolist() == [2, 0, 4, 3, 1, 7, 5, 6]
  assert shard_order(1, 2, 3, 8).tolist() == [0, 1, 2, 6, 4, 7, 3, 5]


def test_orders_differ_between_seeds_epochs_and_shards():
  drawn = [tuple(shard_order(*key, 20)) for key in itertools.product(
      range(3), repeat=3)]
  assert len(set(drawn)) == 27


def test_every_image_comes_first_equally_often():
  first = [shard_order(0, epoch, 0, 4)[0] for epoch in range(2000)]
  np.testing.assert_allclose(np.bincount(first), 500, atol=5 * np.sqrt(2000 * 3 / 16))


@pytest.mark.parametrize('num_examples, batch_size', [
    (21, 16), (64, 8), (8, 8), (9, 40)], ids=[
        'straddling', 'dividing', 'one_image_each', 'several_passes_per_step'])
def test_each_shard_gives_every_image_once_per_pass(num_examples, batch_size):
  steps = 4 * num_examples // batch_size + 2
  found = streams(steps, num_examples, batch_size)
  assert found.keys() == set(range(TOTAL))
  for shard, stream in found.items():
    assert len(stream) == steps * batch_size // TOTAL
    own = list(range(shard, num_examples, TOTAL))
    for i in range(0, len(stream), len(own)):
      epochs, ids = zip(*stream[i:i + len(own)])
      assert set(epochs) == {i // len(own)}
      assert sorted(ids) == own if len(ids) == len(own) else set(ids) < set(own)


def test_the_order_changes_with_the_seed_and_from_pass_to_pass():
  orders = [tuple(batch['sample_id']) for seed in (0, 1) for batch in batches(
      last_step=2, seed=seed, split=make_split(num_examples=64), batch_size=64)]
  assert len(set(orders)) == 4


@pytest.mark.parametrize('labelled', [True, False])
def test_batches_hold_the_images_and_labels_of_their_ids(labelled):
  for batch in batches(split=make_split(labelled=labelled)):
    ids = batch['sample_id']
    for name in ('sample_id', 'epoch'):
      assert batch[name].shape == (BATCH,) and batch[name].dtype == np.int32
    assert batch['images'].shape == (BATCH, 5, 6, 3) and batch['images'].dtype == np.uint8
    np.testing.assert_array_equal(batch['images'][:, 0, 0, 0], ids)
    assert ('labels' in batch) == labelled
    if labelled:
      np.testing.assert_array_equal(batch['labels'], 2 * ids)


@pytest.mark.parametrize('pipeline, hosts', [
    ('memory', 2), ('memory', 4), ('memory', 8), ('tf_data', 2)])
def test_any_number_of_hosts_makes_the_same_global_batches(pipeline, hosts):
  # Each host holds its own images only.
  parts = [batches(pipeline=pipeline, shards=one_host(i, hosts, TOTAL)) for i in range(hosts)]
  assert all(len(part[0]['sample_id']) == BATCH // hosts for part in parts)
  assert_same_batches(concatenated(parts), batches(pipeline=pipeline))


@pytest.mark.parametrize('pipeline, first_steps', [('memory', range(7)), ('tf_data', [3])])
def test_resuming_at_a_step_gives_the_rest_of_the_batches(pipeline, first_steps):
  whole = batches(pipeline=pipeline)
  for step in first_steps:
    assert_same_batches(batches(step, pipeline=pipeline), whole[step:])


def test_tf_data_crops_the_images_that_memory_gives():
  whole, cropped = batches(), batches(pipeline='tf_data')
  assert len(cropped) == 6
  for ours, theirs in zip(cropped, whole):
    assert ours.keys() == {'sample_id', 'epoch', 'labels', 'crop1', 'crop2'}
    for name in ('sample_id', 'epoch', 'labels'):
      np.testing.assert_array_equal(ours[name], theirs[name])
      assert ours[name].dtype == np.int32
    for name in ('crop1', 'crop2'):
      assert ours[name].shape == (BATCH, 4, 4, 3) and ours[name].dtype == np.uint8


def test_tf_data_draws_the_same_crops_in_every_run_and_others_in_every_epoch():
  split = make_split(labelled=False, num_examples=8)
  first, again = (batches(pipeline='tf_data', split=split, batch_size=8) for _ in range(2))
  assert_same_batches(again, first)
  by_id = {batch['crop1'][np.argsort(batch['sample_id'])].tobytes() for batch in first}
  assert len(by_id) == 6


def test_the_device_pipeline_names_the_images_that_memory_gives(devices):
  split = make_split(one_host(1, 2, TOTAL))
  steps = dict(split=split, shards=one_host(1, 2, TOTAL))
  host = batches(pipeline='device', **steps)
  placed = prefetch.to_devices(iter(host), devices,
                               resident=prefetch.resident(split, devices))
  for ours, theirs in zip(placed, batches(**steps), strict=True):
    assert ours.keys() == {'sample_id', 'epoch', 'labels', 'row', 'resident'}
    images = jax.vmap(lambda images, row: images[row])(ours['resident'], ours['row'])
    np.testing.assert_array_equal(np.concatenate(images), theirs['images'])
    np.testing.assert_array_equal(np.concatenate(ours['labels']), theirs['labels'])


@pytest.mark.parametrize('hosts, devices', [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_parts_of_a_batch_hold_the_same_images_on_any_hosts_and_devices(hosts, devices):
  batch, parts = 32, 2
  found = [set() for _ in range(parts)]
  for host in np.split(np.arange(batch), hosts):
    order = part_order(len(host), shards=TOTAL // hosts, parts=parts,
                       devices=devices)
    assert sorted(order) == list(range(len(host)))
    # Each device splits its slice into the parts.
    for slice_ in np.split(host[order], devices):
      for part, rows in zip(found, np.split(slice_, parts)):
        part |= set(rows.tolist())
  assert found[0] == {row for row in range(batch) if row % 4 < 2}
  assert found[1] == set(range(batch)) - found[0]


def test_images_that_do_not_fit_on_a_device_are_an_error(monkeypatch):
  monkeypatch.setattr(parallel, 'free_bytes', lambda devices: 3 << 20)
  split = make_split()._replace(images=np.zeros((21, 512, 512, 3), np.uint8))
  with pytest.raises(InputError, match='21 images, 15 MiB, on each device, which has 3 MiB free'):
    prefetch.resident(split, jax.devices())


@pytest.mark.parametrize('pipeline', ['memory', 'device', 'tf_data'])
def test_fewer_images_than_virtual_shards_are_an_error(pipeline):
  with pytest.raises(InputError, match='^7 images cannot fill 8 virtual shards; set '
                                       '--config.data.virtual_shards to at most 7'):
    batches(pipeline=pipeline, split=make_split(num_examples=7))


def test_to_devices_places_all_batches_in_order_and_ahead(devices):
  taken = []

  def source():
    for batch in batches():
      taken.append(batch)
      yield batch

  placed = prefetch.to_devices(source(), devices, ahead=2)
  first = next(placed)
  assert len(taken) == 3
  result = [first, *placed]
  assert result[0]['images'].sharding.device_set == set(devices)
  assert_same_batches([jax.tree.map(lambda x: np.reshape(x, (BATCH, *x.shape[2:])), batch)
                       for batch in result], taken)
  assert len(taken) == 6


def test_to_devices_gives_the_last_batches_of_a_short_run():
  batch = dict(x=np.arange(4))
  assert len(list(prefetch.to_devices(iter([batch]), jax.devices()[:2], ahead=5))) == 1
  with pytest.raises(InputError, match='4 examples cannot be split over 3 devices'):
    next(prefetch.to_devices(iter([batch]), jax.devices()[:3]))


@pytest.mark.parametrize('first, last, sizes', [
    (0, 12, [5, 5, 1, 1]), (5, 12, [5, 1, 1]), (0, 10, [5, 5]), (11, 12, [1]), (0, 5, [5]),
    (7, 12, [3, 1, 1]), (12, 12, [])])
def test_dispatches_end_at_the_same_steps_wherever_a_run_begins(first, last, sizes):
  assert list(dispatches(first, last, 12, 5)) == sizes


def test_dispatches_of_one_step():
  assert list(dispatches(3, 6, 12, 1)) == [1, 1, 1]


def test_to_devices_puts_the_steps_of_a_dispatch_side_by_side(devices):
  host = [dict(x=np.arange(8.).reshape(4, 2) + 100 * step) for step in range(4)]
  resident = dict(resident=jnp.ones((len(devices), 3)))
  placed = list(prefetch.to_devices(iter(host), devices, steps=[2, 1, 1], resident=resident))
  assert [batch['x'].shape for batch in placed] == [
      (len(devices), count, 4 // len(devices), 2) for count in (2, 1, 1)]
  steps = np.concatenate([np.swapaxes(batch['x'], 0, 1) for batch in placed])
  np.testing.assert_array_equal(steps.reshape(4, 4, 2), [batch['x'] for batch in host])
  assert all(batch['resident'] is resident['resident'] for batch in placed)
