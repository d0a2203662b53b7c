"""Evaluation of a finished run: results, the order of reads, load_encoder."""

import json

import jax
import numpy as np
import pytest

import byol_jax
from byol_jax import build, checkpoint, evaluate, train
from byol_jax.config import overridden, plugin_options
from byol_jax.encoder import load_encoder
from byol_jax.errors import InputError
from byol_jax.evaluation import features, fine_tuning, results
from byol_jax.input_pipeline import loading, splits
from byol_jax.plots import tables
from experiments.configs.eval import data_sets
from experiments.configs.eval import image_folder as eval_folder
from tests import tiny
from tests.datasets.test_tfds import encode, write_real_set


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('pretrained')
  train.pretrain(tiny.config(train__epochs=1.0, train__warmup_epochs=.5), workdir)
  return workdir


@pytest.fixture(scope='module')
def evaluated(pretrained, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('evaluated')
  return workdir, evaluate.evaluate(tiny.eval_config(), pretrained, workdir)


def test_results_state_protocol_choice_and_counts(evaluated, pretrained):
  workdir, results = evaluated
  assert json.loads((workdir / 'results.json').read_text()) == json.loads(json.dumps(results))
  assert results['digest'] == checkpoint.read_meta(pretrained)['digests']['online']
  assert results['images'] == dict(train=64, validation=20, test=30)
  assert results['left_out'] == dict(train='', validation='', test='')
  assert list(results['encoders']) == ['pretrained', 'random', 'pixels', 'supervised']
  for row in results['encoders'].values():
    assert set(row) == {'linear_features', 'knn', 'linear'}
    assert 'not the paper' in row['linear_features']['protocol']
    assert 'appendix C.1 of the paper' in row['linear']['protocol']
    assert row['linear']['learning_rate'] in (.1, 1.) and row['linear']['train_images'] == 64
    assert row['linear_features']['l2'] in (1e-2, 1.)
    assert row['linear_features']['train_images'] == row['knn']['train_images'] == 64
    assert 0 <= row['knn']['top1'] <= row['knn']['top5'] <= 1
  assert len({json.dumps(row['knn']) for row in results['encoders'].values()}) > 1


def test_another_evaluator_adds_to_the_results_and_extracts_nothing(
    evaluated, pretrained, tmp_path, monkeypatch):
  config = tiny.eval_config(encoders=('pretrained', 'random'))
  with config.unlocked():
    knn_only = dict(config.evaluators.knn)
    config.evaluators = dict(knn=knn_only)
  first = evaluate.evaluate(config, pretrained, tmp_path)
  monkeypatch.setattr(features, 'extract', None)
  with config.unlocked():
    config.evaluators = dict(knn_grid=dict(k_values=(1, 5), temperatures=(.07,)))
  both = evaluate.evaluate(config, pretrained, tmp_path)
  for name, row in both['encoders'].items():
    assert list(row) == ['knn', 'knn_grid'] and row['knn'] == first['encoders'][name]['knn']
  assert both['test_split_reads'] == 2
  assert (tmp_path / 'results.md').read_text().startswith(
      '| encoder | kNN top-1 | kNN, chosen top-1 |')


def test_other_images_under_the_same_name_are_encoded_anew(pretrained, tmp_path, monkeypatch):
  config = tiny.eval_config(encoders=('pretrained',))
  with config.unlocked():
    config.evaluators = dict(knn=dict(config.evaluators.knn))
  read, extract, made = splits.read, features.extract, []
  monkeypatch.setattr(features, 'extract', lambda *args, **options: made.append(
      0) or extract(*args, **options))
  before = evaluate.evaluate(config, pretrained, tmp_path)
  assert evaluate.evaluate(config, pretrained, tmp_path)['encoders'] == before['encoders']
  assert len(made) == 3

  def relabelled(name, split, **kwargs):
    result = read(name, split, **kwargs)
    return result._replace(labels=(result.labels + 1) % 10) if split == 'test' else result

  monkeypatch.setattr(splits, 'read', relabelled)
  evaluate.evaluate(config, pretrained, tmp_path)
  assert len(made) == 4


def image_folder(root, count):
  """So many images of each of two classes, for training and test; the config for them."""
  random = np.random.default_rng(0)
  for part in ('train', 'test'):
    for label in range(2):
      folder = root / part / str(label)
      folder.mkdir(parents=True)
      for number in range(count):
        (folder / f'{number}.png').write_bytes(encode(
            random.integers(0, 256, (16, 16, 3), np.uint8) // (1 + label), 'PNG'))
  config = eval_folder.get_config('knn').unlock()
  config.batch_size, config.evaluators.knn.k = 32, 3
  config.data.options.update(train=str(root / 'train'), test=str(root / 'test'))
  return config


def test_a_subset_encodes_its_own_images_and_no_others_anew(pretrained, tmp_path, monkeypatch):
  config, extract, made = image_folder(tmp_path / 'images', 20), features.extract, []
  monkeypatch.setattr(features, 'extract', lambda *args, **options: made.append(
      0) or extract(*args, **options))
  (tmp_path / 'images' / 'test' / 'notes.txt').touch()
  counts = []
  for share, shards in ((1., 4), (.5, 4), (.5, 2), (1., 2)):
    config.data.options.subset_share, config.data.virtual_shards = share, shards
    found = evaluate.evaluate(config, pretrained, tmp_path / 'out')
    counts.append((found['images']['train'], len(made)))
  assert found['left_out'] == dict(train='', validation='', test=(
      f'1 file in {tmp_path}/images/test is left out, leaving 40 images: 1 .txt'))
  assert counts == [(36, 3), (18, 4), (18, 4), (36, 4)]
  assert len((tmp_path / 'out' / 'subset_rows_share0.5_of36_seed0.txt').read_text().split()) == 18
  # A class more in the training folder numbers the test images otherwise, in the same files.
  (tmp_path / 'images' / 'train' / '00').mkdir()
  for number in range(20):
    (tmp_path / 'images' / 'train' / '00' / f'{number}.png').write_bytes(
        (tmp_path / 'images' / 'train' / '1' / f'{number}.png').read_bytes())
  evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert len(made) == 7


def test_a_grid_does_not_go_on_with_other_images_of_the_same_path(pretrained, tmp_path,
                                                                  monkeypatch):
  config = image_folder(tmp_path / 'images', 20)
  config.data.virtual_shards = 4
  config.evaluators = dict(semi_supervised=fine_tuning_config().evaluators.semi_supervised)
  train, trained = fine_tuning.train, []
  monkeypatch.setattr(fine_tuning, 'train', lambda *args, **kwargs: trained.append(
      0) or train(*args, **kwargs))
  evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert len(trained) == 2
  evaluate.evaluate(config, pretrained, tmp_path / 'out')
  # The chosen point alone, whose weights are not kept.
  assert len(trained) == 3
  one = tmp_path / 'images' / 'train' / '0' / '3.png'
  one.write_bytes(encode(np.zeros((20, 20, 3), np.uint8), 'PNG'))
  evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert len(trained) == 5
  # Nor with others of their views.
  config.data.center_share = .5
  evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert len(trained) == 7


def test_results_of_something_else_are_put_aside(pretrained, tmp_path):
  (tmp_path / 'results.json').write_text('{"digest": "another"}')
  # What an interruption left of a record.
  (tmp_path / 'splits_read.jsonl').write_text('{"dataset": "tf')
  config = tiny.eval_config(encoders=('pixels',))
  with config.unlocked():
    config.evaluators = dict(knn=dict(config.evaluators.knn))
  evaluate.evaluate(config, pretrained, tmp_path)
  assert json.loads((tmp_path / 'results_0.json').read_text()) == dict(digest='another')
  found = results.read(tmp_path)
  assert list(found['encoders']) == ['pixels'] and found['test_split_reads'] == 1
  (tmp_path / 'results.json').write_text('[1, 2]')
  with pytest.raises(InputError, match='results.json is damaged: it holds no results; remove it'):
    results.read(tmp_path)


@pytest.mark.parametrize('changes, kept', [
    (dict(), False), (dict(content=['b']), True), (dict(config=dict(data={}, seed=1)), True),
    (dict(config=dict(data={}, seed=0, supervised=dict(epochs=2))), True)])
def test_results_stay_where_encoders_and_images_are_the_same(tmp_path, changes, kept):
  row = lambda evaluator: dict(supervised={evaluator: dict(top1=.5)})
  found = dict(digest='a', dataset='c', seed=0, step=1, content=['a'], chance=.5,
               test_split_reads=1, images=dict(train=1, validation=1, test=1),
               config=dict(data={}, seed=0, supervised=dict(epochs=1)))
  # Two has been removed; three must stay.
  (tmp_path / 'results_1.json').write_text('mine')
  (tmp_path / 'results_0.json').write_text('mine')
  (tmp_path / 'results_3.json').write_text('mine')
  results.write(tmp_path, dict(found, encoders=row('knn')))
  after = results.write(tmp_path, dict(found, encoders=row('few_shot')) | changes)
  expected = ['few_shot'] if kept else ['knn', 'few_shot']
  assert list(after['encoders']['supervised']) == expected
  assert (tmp_path / 'results_2.json').exists() == kept
  assert (tmp_path / 'results_3.json').read_text() == 'mine'


def test_the_test_split_is_read_once_and_last(evaluated):
  records = [json.loads(line) for line in
             (evaluated[0] / 'splits_read.jsonl').read_text().splitlines()]
  assert [record['split'] for record in records] == ['train', 'validation', 'test']
  assert records[-1]['purpose'] == 'final scores'


def test_the_test_split_has_no_part_in_the_choices(evaluated, pretrained, tmp_path, monkeypatch):
  """Other test images change the scores and nothing else."""
  read = splits.read

  def corrupted(name, split, **kwargs):
    result = read(name, split, **kwargs)
    return result._replace(labels=(result.labels + 1) % 10) if split == 'test' else result

  monkeypatch.setattr(splits, 'read', corrupted)
  other = evaluate.evaluate(tiny.eval_config(encoders=('pretrained',)), pretrained, tmp_path)
  row, before = (r['encoders']['pretrained']['linear_features'] for r in (other, evaluated[1]))
  assert row['candidates'] == before['candidates'] and row['l2'] == before['l2']
  assert row['top1'] != before['top1']


def test_the_table_has_a_row_per_encoder_and_spread_over_seeds(evaluated):
  _, results = evaluated
  text = tables.markdown(tables.scores([results]))
  assert text.count('\n|') == 5
  top1 = 100 * results['encoders']['random']['knn']['top1']
  assert f'| random encoder | {top1:.1f}' in text or f'| {top1:.1f} |' in text
  other = json.loads(json.dumps(results))
  other['encoders']['pixels']['knn']['top1'] = results['encoders']['pixels']['knn']['top1'] + .1
  both = tables.markdown(tables.scores([results, other]))
  mean = 100 * (results['encoders']['pixels']['knn']['top1'] + .05)
  assert f'{mean:.1f} +- {100 * np.std([0, .1], ddof=1):.1f}' in both


def test_results_of_another_seed_make_a_table_and_those_of_other_data_none(evaluated, tmp_path):
  workdir, found = evaluated
  ended = {name: {evaluator: scores | dict(differs_from_paper=['2 of 45 fits ended (converged)'])
                  for evaluator, scores in row.items()} for name, row in found['encoders'].items()}
  seed = dict(seed=1, digest='another', encoders=ended,
              pretraining=found['pretraining'] | dict(seed=1))
  for name, changes in (('seed', {}), ('other', dict(dataset='cifar10')), ('fewer', dict(
      encoders={name: dict(knn=row['knn']) for name, row in found['encoders'].items()}))):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'results.json').write_text(json.dumps(
        {**found, **seed, 'digest': name, **changes}))
  assert [one['seed'] for one in results.read_seeds([workdir, tmp_path / 'seed'])] == [0, 1]
  for name, text in (('other', 'dataset: shapes -> cifar10'),
                     ('fewer', 'encoders.random.linear_features: .* -> .absent')):
    with pytest.raises(InputError, match=f'(?s){tmp_path / name} differ.*{text}'):
      results.read_seeds([workdir, tmp_path / 'seed', tmp_path / name])


def test_load_encoder_gives_the_embeddings_of_the_evaluation(pretrained, tmp_path):
  encoder = byol_jax.load_encoder(pretrained)
  meta = checkpoint.read_meta(pretrained)
  loader = loading.load(meta['config']['data'], 'test', purpose='a test', workdir=tmp_path)
  images = loader.data.images.astype(np.float32) / 255
  embeddings = encoder(images)
  assert embeddings.shape == (30, encoder.embedding_size) == (30, 64)
  assert encoder.image_size == 16
  assert encoder.image_mean == pytest.approx((.485, .456, .406))
  networks = build.build_model(meta['config']['model'], 10)
  trees, _ = checkpoint.restore_trees(pretrained, ('online', 'state'))
  extracted = features.extract(
      build.encoder_function(networks, meta['config']['data'], loader.data.evaluation_form),
      (trees['online'], trees['state']['online']), loader.evaluation_batches(7), batch_size=7,
      devices=jax.devices())
  np.testing.assert_allclose(embeddings, extracted.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('images, part', [
    (np.zeros((2, 16, 16)), r'\[2, 16, 16\]'),
    (np.zeros((2, 16, 16, 3), np.uint8), 'uint8'),
    (np.full((2, 16, 16, 3), 2.), '0, 1'),
])
def test_load_encoder_refuses_other_images(pretrained, images, part):
  with pytest.raises(InputError, match=part):
    byol_jax.load_encoder(pretrained)(images)


def test_a_checkpoint_of_another_architecture_names_the_tensors(pretrained, monkeypatch):
  real = build.build_model
  monkeypatch.setattr(build, 'build_model', lambda config, classes: real(
      dict(config, projector=[32, 8], predictor=[24, 8]), classes))
  with pytest.raises(InputError, match=r'projector/linear_1/w: saved float32\[32, 16\]'):
    load_encoder(pretrained)


def arrays_config(images, labels=None, test_images=None, **changes):
  config = tiny.eval_config(**changes).unlock()
  config.data.dataset = 'arrays'
  config.data.options = dict(
      images=str(images), labels=labels, test_images=test_images, test_labels=labels,
      validation_share=.2, num_classes=0)
  return config


def test_unlabelled_data_is_refused(pretrained, tmp_path):
  path = str(tmp_path / 'images.npy')
  np.save(path, np.zeros((10, 16, 16, 3), np.uint8))
  with pytest.raises(InputError, match='no labels'):
    evaluate.evaluate(arrays_config(path, test_images=path), pretrained, tmp_path / 'out')


def test_a_missing_test_split_is_said_before_anything_is_read(pretrained, tmp_path):
  with pytest.raises(InputError, match='no test split'):
    evaluate.evaluate(arrays_config(tmp_path / 'none.npy'), pretrained, tmp_path)
  assert not (tmp_path / loading.ACCESS_LOG).exists()


def test_an_encoder_is_evaluated_on_data_with_other_classes(pretrained, tmp_path):
  rng = np.random.default_rng(0)
  path = str(tmp_path / 'other.npz')
  np.savez(path, images=rng.integers(0, 256, (40, 20, 20, 3), dtype=np.uint8),
           labels=np.arange(40) % 3)
  config = arrays_config(path, test_images=path, encoders=('pretrained', 'random'))
  results = evaluate.evaluate(config, pretrained, tmp_path)
  assert results['images'] == dict(train=32, validation=8, test=40)
  assert results['chance'] == pytest.approx(1 / 3)
  assert 0 <= results['encoders']['pretrained']['linear_features']['top1'] <= 1


@pytest.mark.parametrize('changes, message', [
    ({'evaluators.linear.batch_size': 18}, 'evaluators.linear.batch_size is 18, which 4 devices'),
    ({'data.virtual_shards': 3}, 'evaluators.linear.batch_size is 16, which 3 virtual shards'),
    ({'supervised.batch_size': 6}, 'supervised.batch_size is 6, which 4 devices do not divide')])
def test_batches_that_cannot_be_divided_are_said_before_anything_is_read(
    pretrained, tmp_path, changes, message):
  config = overridden(tiny.eval_config(), changes)
  with pytest.raises(InputError, match=message):
    evaluate.evaluate(config, pretrained, tmp_path)
  assert not (tmp_path / loading.ACCESS_LOG).exists()


def test_more_neighbours_than_images_are_said_before_features_are_made(
    pretrained, tmp_path, monkeypatch):
  monkeypatch.setattr(features, 'extract', lambda *_, **__: pytest.fail('extracted'))
  config = overridden(tiny.eval_config(), {'evaluators.knn.k': 65})
  with pytest.raises(InputError, match=r'knn.k is 65 but there are 64 training images; set k to 1'):
    evaluate.evaluate(config, pretrained, tmp_path)


def test_a_second_evaluation_in_a_workdir_says_that_the_test_split_was_read_twice(
    pretrained, tmp_path):
  config = tiny.eval_config(encoders=('pixels',))
  reads = [evaluate.evaluate(config, pretrained, tmp_path)['test_split_reads'] for _ in 'ab']
  assert reads == [1, 2]
  assert 'read 2 times' in (tmp_path / 'results.md').read_text()


def test_unknown_encoders_and_empty_workdirs_are_said(pretrained, tmp_path):
  with pytest.raises(InputError, match="encoders is .'simclr',.; it can be one or more of 'pret"):
    evaluate.evaluate(tiny.eval_config(encoders=('simclr',)), pretrained, tmp_path)
  with pytest.raises(InputError, match='No checkpoint'):
    evaluate.evaluate(tiny.eval_config(), tmp_path / 'none', tmp_path)
  with pytest.raises(InputError, match=r'results\.json'):
    results.read(tmp_path / 'none')


# Fine-tuning.

def fine_tuning_config(**overrides):
  """Two points of two steps for each of the two evaluators."""
  config = tiny.eval_config(encoders=('pretrained',), **overrides).unlock()
  config.evaluators = dict(semi_supervised=plugin_options('evaluators', 'semi_supervised'),
                           fine_tuned_transfer=plugin_options('evaluators', 'fine_tuned_transfer'))
  config.evaluators.semi_supervised.update(
      learning_rates=(.01, .5), epochs=(1.,), batch_size=32)
  config.evaluators.fine_tuned_transfer.update(
      learning_rates=(.01, .5), weight_decays=(1e-3,), steps=2, batch_size=32,
      metric='mean_per_class')
  return config.lock()


def points(workdir):
  return sum(len(path.read_text().splitlines()) for path in workdir.glob('grids/*/*.jsonl'))


@pytest.fixture(scope='module')
def fine_tuned(pretrained, tmp_path_factory):
  """Interrupted in its second point, and started again: what was trained then, the results."""
  workdir, calls, seen = tmp_path_factory.mktemp('fine_tuned'), [], []
  train, read = fine_tuning.train, splits.read

  def interrupted(*args, **kwargs):
    calls.append(kwargs['learning_rate'])
    if len(calls) == 2:
      raise KeyboardInterrupt
    return train(*args, **kwargs)

  def noting(name, split, **kwargs):
    seen.append((split, points(workdir), len(calls)))
    return read(name, split, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fine_tuning, 'train', interrupted)
    patch.setattr(splits, 'read', noting)
    with pytest.raises(KeyboardInterrupt):
      evaluate.evaluate(fine_tuning_config(), pretrained, workdir)
    assert points(workdir) == 1 and len(seen) == 2
    del seen[:]
    results = evaluate.evaluate(fine_tuning_config(), pretrained, workdir)
  return workdir, calls[2:], seen, results


def test_an_interrupted_fine_tuning_goes_on_where_it_was(fine_tuned):
  _, trained, _, results = fine_tuned
  row = results['encoders']['pretrained']
  chosen = row['fine_tuned_transfer']['chosen']['learning_rate']
  # The rest of the first grid, its last run, and the second grid.
  assert [8 * rate for rate in trained] == pytest.approx([.5, chosen, .01, .5])


def test_fine_tuning_reads_the_test_split_after_everything_was_fitted(fine_tuned):
  _, trained, seen, results = fine_tuned
  assert [split for split, _, _ in seen] == ['train', 'validation', 'train+validation', 'test']
  assert seen[-1][1:] == (4, 2 + len(trained))
  assert results['test_split_reads'] == 1


def test_fine_tuned_encoders_are_described(fine_tuned):
  workdir, _, _, results = fine_tuned
  row = results['encoders']['pretrained']
  assert row['semi_supervised']['train_images'] == 64
  assert row['fine_tuned_transfer']['train_images'] == 84
  for scores in row.values():
    assert {'top1', 'top5', 'mean_per_class', 'candidates'} <= set(scores)
  table = (workdir / 'results.md').read_text().splitlines()
  assert table[0] == ('| encoder | fine-tuned (D.3) top-1 | fine-tuned (D.3) mean per class | '
                      'fine-tuned (C.1) top-1 | fine-tuned (C.1) top-5 |')
  assert table[2].startswith('| BYOL |')


@pytest.mark.slow
def test_images_of_several_classes_are_fine_tuned_and_fitted(pretrained, tmp_path):
  """VOC2007 with the features of TFDS; image i shows class i % 20, and some a difficult 3."""
  random = np.random.default_rng(0)
  rows = ([[i % 20], sorted({i % 20, 3} if i % 4 else {i % 20})] for i in range(96))
  write_real_set(tmp_path, 'voc/2007', dict(train=(16, 16), validation=(32,), test=(32,)), (
      dict(image=encode(random.integers(0, 256, (20, 24, 3), np.uint8)), labels_no_difficult=clear,
           labels=seen) for clear, seen in rows))
  config = fine_tuning_config().unlock()
  config.encoders = ('pretrained', 'supervised')
  config.data = data_sets.data('voc2007')
  config.data.options.data_dir = str(tmp_path)
  config.evaluators = dict(fine_tuned_transfer=config.evaluators.fine_tuned_transfer,
                           linear_transfer=plugin_options('evaluators', 'linear_transfer'))
  config.evaluators.linear_transfer.l2_values = (1., 100.)
  for options in config.evaluators.values():
    options.metric = 'map_voc07'
  found = evaluate.evaluate(config, pretrained, tmp_path / 'out')
  assert found['images'] == dict(train=32, validation=32, test=32) and found['chance'] is None
  for row in found['encoders'].values():
    assert row['fine_tuned_transfer']['train_images'] == 64
    assert all(0 < scores['map_voc07'] < 1 for scores in row.values())
  reads = [json.loads(line)['split'] for line in
           (tmp_path / 'out' / 'splits_read.jsonl').read_text().splitlines()]
  assert reads.count('test') == 1 and reads[-1] == 'test'
  assert 'fine-tuned (D.3) VOC07 mAP' in (tmp_path / 'out' / 'results.md').read_text()
  with config.unlocked():
    config.evaluators = dict(semi_supervised=plugin_options('evaluators', 'semi_supervised'))
  with pytest.raises(InputError, match='not support; fine_tuned_transfer and linear_transfer do'):
    evaluate.evaluate(config, pretrained, tmp_path / 'other')


def test_raw_pixels_cannot_be_fine_tuned(pretrained, tmp_path):
  config = fine_tuning_config().unlock()
  config.encoders = ('pretrained', 'pixels')
  with pytest.raises(InputError, match="transfer trains the encoder.*leave 'pixels' out"):
    evaluate.evaluate(config, pretrained, tmp_path)
  assert not (tmp_path / loading.ACCESS_LOG).exists()


def test_a_random_encoder_uses_its_own_initialisation(evaluated):
  rows = evaluated[1]['encoders']
  assert rows['random']['linear_features'] != rows['pretrained']['linear_features']
