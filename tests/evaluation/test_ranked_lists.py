"""Retrieval among listed images: results, a file of each query, pictures."""

import io
import json
from types import SimpleNamespace

from etils import epath
import numpy as np
from PIL import Image
import pytest

from byol_jax import evaluate, train
from byol_jax.errors import InputError
from byol_jax.evaluation import ranked_lists, ranking
from byol_jax.evaluators import retrieval
from byol_jax.input_pipeline.records import DataError
from byol_jax.plots import pictures
from byol_jax.report import compare, runs, sections
from byol_jax.report.runs import Run
from experiments.configs import vehicles
from experiments.configs.eval import retrieval as eval_retrieval
from tests import commands, identity_folders, tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Real JPEG files: CSV files in it, VeRi-776 and VERI-Wild in folders."""
  root = tmp_path_factory.mktemp('lists')
  identity_folders.write_csv(root)
  identity_folders.write_veri(root / 'veri')
  identity_folders.write_veri_wild(root / 'wild')
  return root


def config(words, encoders=('pretrained', 'pixels'), **options):
  config = eval_retrieval.get_config(words).unlock()
  config.update(batch_size=16, encoders=encoders)
  config.data.options.update(options)
  config.evaluators.retrieval.update(recall_at=(2,), depth=4, pictured=1)
  return config.lock()


@pytest.fixture(scope='module')
def evaluated(root, published_encoder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('evaluations') / 'retrieval_csv'
  own = {part: f'{root}/{part}.csv' for part in ('query', 'gallery')}
  return workdir, evaluate.evaluate(config('csv', **own), published_encoder, workdir)


def test_queries_are_counted_and_classes_need_no_training_list(evaluated):
  workdir, results = evaluated
  assert results['images'] == dict(train=5, validation=1, test=10)
  for row in results['encoders'].values():
    found = row['retrieval']
    # Vehicle 3 is in one camera only, and 4 in the query list alone.
    assert (found['queries'], found['queries_without_match'], found['gallery_images']) == (2, 2, 6)
    assert 0 < found['map'] <= 1 and found['gallery'] == 'lists'
  assert results['test_split_reads'] == 1
  table = (workdir / 'results.md').read_text()
  assert table.startswith('| encoder | retrieval mAP | retrieval rank-1 | retrieval rank-5 |')
  assert '2 queries in a gallery of 6 images; 2 queries without a match left out' in table
  assert 'choices on' not in table


def test_a_fit_is_told_which_images_are_queries_and_nothing_else_of_the_test_split(
    root, published_encoder, tmp_path, monkeypatch):
  fit, seen = retrieval.fit, []
  monkeypatch.setattr(retrieval, 'fit', lambda context, **options: (
      seen.append(context), fit(context, **options))[1])
  own = {part: f'{root}/{part}.csv' for part in ('query', 'gallery')}
  evaluate.evaluate(config('csv', encoders=('pixels',), **own), published_encoder, tmp_path)
  roles = seen[0].roles
  assert roles.query.tolist() == [True] * 4 + [False] * 6 and roles.label is None
  with pytest.raises(ValueError, match='not of .test.'):
    seen[0].features('test')


def test_a_line_for_each_query(evaluated):
  text = (evaluated[0] / 'retrieval' / 'pretrained' / 'queries.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert [line['identity'] for line in lines] == ['v1', 'v2', 'v3', 'v4']
  assert [line['camera'] for line in lines] == ['c1', 'c2', 'c1', 'c1']
  assert [line['matches'] for line in lines] == [1, 2, 0, 0]
  first = lines[0]
  assert first['query'].endswith('query images/1-0.jpg') and len(first['nearest']) == 4
  assert first['right'] == [name == 'v1' for name in first['nearest_identity']]
  assert not any(name.endswith('1-1.jpg') for name in first['nearest'])
  assert first['average_precision'] == pytest.approx(1 / first['first_match'])
  assert lines[3]['average_precision'] is None and lines[3]['first_match'] is None
  assert first['score'] == sorted(first['score'], reverse=True)


def test_the_picture_has_a_row_for_each_query_that_is_drawn(evaluated):
  with Image.open(evaluated[0] / 'retrieval' / 'pretrained' / 'ranked_lists.png') as image:
    pixels = np.asarray(image)
  # Two queries have a match, and none is drawn twice.
  row = pictures.LINE + 16 + pictures.TILE - 16 + 2 * pictures.FRAME + pictures.GUTTER
  assert pixels.shape == (2 * row, 640, 3)
  frames = pixels[[pictures.LINE, row + pictures.LINE]][:, :400]
  for line in frames:
    colours = {tuple(colour) for colour in line.tolist()}
    assert {pictures.QUERY, pictures.RIGHT, pictures.WRONG} <= colours


def test_the_report_shows_the_picture_of_every_encoder(evaluated):
  run = Run('run', evaluated[0].parent, {}, {}, [], [], {}, [evaluated], None, [])
  found = sections._ranked([compare.Setting('a setting', {}, [run])])
  assert [title for title, _ in found] == ['a setting, retrieval_csv, BYOL, frozen',
                                           'a setting, retrieval_csv, raw pixels']
  assert all(picture.startswith('data:image/png;base64,') for _, picture in found)
  # Other data evaluated in the folder later, without a retrieval: the lists are not theirs.
  later = evaluated[0], dict(encoders=dict(pretrained=dict(knn=dict(top1=.5))))
  assert not sections._lists(run._replace(evaluations=[later]), '')


def test_veri_by_command(root, published_encoder, tmp_path):
  done = commands.run(
      'evaluate', config='experiments/configs/eval/retrieval.py:veri', checkpoint=published_encoder,
      workdir=tmp_path, config__batch_size=16, config__encoders="('pretrained',)",
      config__data__options__root=root / 'veri')
  assert done.returncode == 0, done.stderr
  assert '2 queries in a gallery of 10 images; 2 queries without a match' in done.stdout
  found = json.loads((tmp_path / 'results.json').read_text())
  assert found['dataset'] == 'veri' and found['images'] == dict(train=9, validation=1, test=14)


def test_veri_wild(root, published_encoder, tmp_path):
  found = evaluate.evaluate(config('veri_wild', encoders=('pixels',), root=f'{root}/wild'),
                            published_encoder, tmp_path)
  row = found['encoders']['pixels']['retrieval']
  assert (row['queries'], row['queries_without_match'], row['gallery_images']) == (2, 2, 6)


@pytest.mark.slow
def test_pretraining_on_the_same_folders_and_all_encoders(root, tmp_path):
  own = dict(root=f'{root}/veri', validation_share=.2)
  options = vehicles.get_config('format=veri').data.options.to_dict() | own
  train.pretrain(tiny.config(
      data__dataset='retrieval', data__options=options, data__pipeline='tf_data',
      train__batch_size=8, train__epochs=2.0, train__warmup_epochs=.5), tmp_path)
  found = evaluate.evaluate(
      config('veri', encoders=('pretrained', 'random', 'pixels'), **own), tmp_path,
      tmp_path / 'retrieval')
  assert [row['retrieval']['queries'] for row in found['encoders'].values()] == [2, 2, 2]
  assert found['images'] == dict(train=8, validation=2, test=14)
  reads = [json.loads(line) for line in (tmp_path / 'splits_read.jsonl').read_text().splitlines()]
  assert {read['split'] for read in reads} == {'train', 'validation'}
  run, = runs.read([tmp_path])
  assert len(sections._lists(run, '')) == 3


@pytest.mark.slow
def test_two_processes_write_what_one_does(root, published_encoder, tmp_path):
  own = {f'config__data__options__{part}': root / f'{part}.csv' for part in ('query', 'gallery')}
  files = []
  for processes in (1, 2):
    code, output = commands.run_job(
        processes, 'evaluate', config='experiments/configs/eval/retrieval.py:csv',
        checkpoint=published_encoder, workdir=tmp_path / str(processes), config__batch_size=16,
        config__encoders="('pretrained','pixels')", **own)
    assert code == 0, output
    files.append([(tmp_path / str(processes) / 'retrieval' / encoder / name).read_bytes()
                  for encoder in ('pretrained', 'pixels')
                  for name in ('queries.jsonl', 'ranked_lists.png')])
  assert files[0] == files[1]


def test_bad_lists_are_said_before_anything_is_encoded(root, published_encoder, tmp_path):
  with pytest.raises(DataError, match='nowhere.csv: no such file'):
    evaluate.evaluate(config('csv', query='nowhere.csv', gallery=f'{root}/gallery.csv'),
                      published_encoder, tmp_path)
  assert not (tmp_path / 'features').exists()


def test_words_that_name_neither_lists_nor_a_data_set():
  with pytest.raises(InputError, match="'very' .* food101, .* Of lists: csv, folders, veri, veri_"):
    eval_retrieval.get_config('very')


def test_no_encoder_is_trained_on_the_identities_of_the_gallery(root, published_encoder, tmp_path):
  own = {part: f'{root}/{part}.csv' for part in ('query', 'gallery')}
  with pytest.raises(InputError, match="'supervised' encoder needs labelled training images"):
    evaluate.evaluate(config('csv', encoders=('supervised',), **own), published_encoder, tmp_path)


def make_result(average_precision, split='train', pictured=1):
  count = len(average_precision)
  ranked = ranking.Ranked(
      matches=np.where(np.isnan(average_precision), 0, 1), first=np.ones(count, int),
      average_precision=np.array(average_precision), recall=np.ones((count, 1)),
      nearest=np.zeros((count, 1), int), right=np.ones((count, 1), bool),
      score=np.ones((count, 1), np.float32))
  return ranking.Result(ranked, np.arange(count), np.arange(2), split, np.zeros(count, int),
                        np.zeros(2, int), pictured)


def test_which_queries_are_drawn():
  result = make_result([.2, np.nan, .9, .1, .9, .5], pictured=2)
  assert ranked_lists.examples(result) == {'evenly chosen': [5], 'best': [2, 4], 'worst': [3, 0]}
  # The best and the worst are what their titles say where there are few.
  few = make_result([.5, .1, .9, .3], pictured=2)
  assert ranked_lists.examples(few) == {'evenly chosen': [], 'best': [2, 0], 'worst': [1, 3]}
  many = make_result(list(np.linspace(0, 1, 9)), pictured=2)
  assert ranked_lists.examples(many) == {'evenly chosen': [2, 6], 'best': [8, 7], 'worst': [0, 1]}
  assert not any(ranked_lists.examples(result._replace(pictured=0)).values())


def test_no_picture_of_an_earlier_evaluation_stays(tmp_path):
  folder = epath.Path(tmp_path)
  (folder / 'ranked_lists.png').write_bytes(b'of other lists')
  ranked_lists.keep(make_result([.5], pictured=0), folder=folder, roles=None, loaders=dict(
      test=lambda: SimpleNamespace(data=SimpleNamespace(class_names=('ant', 'bee')))))
  assert [path.name for path in folder.iterdir()] == ['queries.jsonl']


def test_ranked_lists_are_drawn_with_marks():
  gray = np.full((20, 20, 3), 90, np.uint8)
  line = pictures.RankedLine('title', gray, [gray, gray], [True, False])
  with Image.open(io.BytesIO(pictures.ranked_lists([line]))) as image:
    pixels = np.asarray(image)
  side = pictures.TILE + 2 * pictures.FRAME
  corners = [pixels[pictures.LINE + side - 1, left + side - 1] for left in (
      0, side + 2 * pictures.GUTTER, 2 * side + 3 * pictures.GUTTER)]
  colours = [tuple(corner) for corner in corners]
  assert colours == [pictures.QUERY, pictures.RIGHT, pictures.WRONG]
  # A tick and a cross are not the same marks.
  bottom = pictures.LINE + side
  marks = [pixels[bottom - 18:bottom, left + side - 18:left + side] == 255 for left in (
      side + 2 * pictures.GUTTER, 2 * side + 3 * pictures.GUTTER)]
  assert marks[0].any() and marks[1].any() and (marks[0] != marks[1]).any()
