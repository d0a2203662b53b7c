"""The page: of real tiny runs, and of folders with parts missing."""

from html.parser import HTMLParser
import json
import re
import shutil

import numpy as np
import pytest

from byol_jax import evaluate, train
from byol_jax.config import as_json
from byol_jax.errors import InputError
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import DataError
from byol_jax.report import page, runs
from experiments.configs import default
from tests import tiny
from tests.report.conftest import records

PAPER = as_json(default.get_config())


class Reader(HTMLParser):
  """Text, ids and addresses of a page; fails on tags that do not close."""

  def __init__(self):
    super().__init__()
    self.open, self.text, self.ids, self.addresses = [], [], set(), []

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    if tag not in ('meta', 'img'):
      self.open.append(tag)
    self.ids.add(attributes.get('id'))
    self.addresses += [attributes[name] for name in ('src', 'href', 'xlink:href', 'srcset')
                       if name in attributes]

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in ('meta', 'img'):
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.text.append(data)


def read(path):
  reader = Reader()
  reader.feed(path.read_text())
  assert not reader.open
  reader.words = re.sub(r'\s+', ' ', ' '.join(reader.text))
  return reader


def write(folders, output, images=50, pictured=3):
  return read(page.write(runs.read(folders), output, images=images, pictured=pictured, paper=PAPER))


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  """A finished run with an evaluation."""
  workdir = tmp_path_factory.mktemp('labelled')
  train.pretrain(tiny.config(evals__every_epochs=1.0), workdir)
  config = tiny.eval_config(encoders=('pretrained', 'random'))
  with config.unlocked():
    del config.evaluators.linear
  evaluate.evaluate(config, workdir, workdir / 'evaluation')
  return workdir


@pytest.fixture(scope='module')
def unlabelled(tmp_path_factory):
  """A finished run on arrays without labels."""
  workdir = tmp_path_factory.mktemp('unlabelled')
  images = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 3), dtype=np.uint8)
  np.savez(workdir / 'images.npz', images=images)
  options = dict(images=str(workdir / 'images.npz'), labels=None, test_images=None,
                 test_labels=None, validation_share=.25, num_classes=0)
  train.pretrain(tiny.config(data__dataset='arrays', data__options=options), workdir)
  return workdir


def test_the_page_of_a_labelled_run_has_every_part(labelled):
  reader = write([labelled], labelled / 'report.html')
  assert 'Missing' not in reader.words
  for part in ('BYOL, frozen', 'random encoder', 'Measured: in evaluation', 'Not collapsed',
               'chance 10.0',
               'No published BYOL number', '30 test images of shapes, read once',
               'compilation', 'byol_jax.load_encoder', 'train.base_tau', 'banded ring'):
    assert part in reader.words, part
  assert reader.words.count('✓') + reader.words.count('✗') == 8 * 8
  assert sum(address.startswith('data:image/png') for address in reader.addresses) == 1 + 8 * 9 + 1
  assert '% have a nearest neighbour of their class' in reader.words


@pytest.mark.parametrize('count', [0, 1, 2])
def test_the_last_spectrum_is_drawn_beside_the_first(make_run, monkeypatch, count):
  run = make_run('mine', records(embeddings=(9., 8.)[:count]))
  drawn = []
  monkeypatch.setattr(page.figures, 'curves', lambda title, found, **_: drawn.extend(
      (list(line.steps), line.faint) for line in found if line.steps))
  page._spectrum([run], {run.folder: (0, 0)})
  # Shares that are only rounding are not drawn.
  assert drawn == [([1, 2, 3], False), ([1, 2, 3], True)][:count]


def test_the_page_needs_nothing_from_outside(labelled):
  reader = write([labelled], labelled / 'report.html')
  assert all(address.startswith(('data:', '#')) for address in reader.addresses)
  assert {address[1:] for address in reader.addresses if address.startswith('#')} <= reader.ids
  text = (labelled / 'report.html').read_text()
  assert not re.search(r'<script|@import|url\((?!#)', text)


def test_pictures_read_held_out_images_and_not_the_test_split(labelled):
  before = (labelled / 'splits_read.jsonl').read_text().splitlines()
  write([labelled], labelled / 'report.html')
  after = (labelled / 'splits_read.jsonl').read_text().splitlines()
  new = [json.loads(line) for line in after[len(before):]]
  assert [(r['split'], r['purpose']) for r in new] == [('validation', 'report')]


@pytest.mark.slow
def test_the_page_of_an_unlabelled_run_says_what_it_cannot_have(unlabelled):
  reader = write([unlabelled], unlabelled / 'report.html')
  for part in ('Missing: there is no evaluation in the folder', 'the data have no labels',
               'not measured', 'No map of classes', 'top-1, %: held-out kNN (thin: online probe): '
               'not recorded'):
    assert part in reader.words, part
  assert '✓' not in reader.words and 'Traceback' not in reader.words


@pytest.mark.slow
def test_data_that_are_gone_are_said_and_the_rest_stays(unlabelled, monkeypatch):
  def gone(*_, **__):
    raise DataError('images.npz is not there')

  monkeypatch.setattr(splits, 'read', gone)
  reader = write([unlabelled], unlabelled / 'report.html')
  assert reader.words.count('The images could not be encoded: images.npz is not there') == 2
  assert 'Not collapsed' in reader.words


def test_several_runs_are_compared(labelled, make_run, tmp_path):
  others = [make_run(f'seed{seed}', seed=seed, train__base_tau=.5) for seed in (1, 2)]
  reader = write([labelled, *(run.folder for run in others)], tmp_path / 'page.html', pictured=0)
  for part in ('3 runs', 'Which key mattered', 'train.base_tau: ', 'base_tau=0.5 1, 2 50.0 +- 0.0',
               'All seeds of a setting gave the same score', 'the first 0 runs with checkpoints',
               'Missing: there is no evaluation in the folder of base_tau=0.5'):
    assert part in reader.words, part


def test_published_numbers_stand_beside_a_run(make_run, tmp_path):
  run = make_run('cifar', data__options=dict(name='cifar10'))
  reader = write([run.folder], tmp_path / 'page.html', images=0)
  for part in ('Published, not measured here', '92.58', 'solo-learn', 'the best epoch on the test',
               'depth 10 (published: 18)'):
    assert part in reader.words, part


def test_of_several_settings_the_nearest_stands_beside_a_number(make_run, tmp_path):
  options = dict(name='imagenet2012')
  near = dict(train__batch_size=4096, model__encoder_options__width=1.0,
              model__encoder_options__depth=50, data__options=options)
  runs_found = [make_run(f'{epochs}', train__epochs=epochs, **near) for epochs in (300., 1000.)]
  reader = write([run.folder for run in runs_found], tmp_path / 'page.html', images=0)
  assert reader.words.count('none of epochs, batch, depth and width') == 2
  for score, epochs in (('72.5', 300), ('74.3', 1000)):
    row = reader.words[reader.words.index(f'top-1 {score}'):]
    assert row.index(f'epochs={epochs}') < row.index('none of epochs')


def test_unfinished_runs_and_repeated_seeds_are_not_counted_as_seeds(make_run, tmp_path):
  found = [make_run('a', records(knn=(.8,))), make_run('b', records(knn=(.8,))),
           make_run('c', records(knn=(.2,)), finished=False, seed=1)]
  reader = write([run.folder for run in found], tmp_path / 'page.html', images=0)
  assert 'last checkpoint, % 0 80.0' in reader.words
  assert 'Several runs have the same seed' in reader.words
  assert 'Left out, not finished or without labels: c, step 12' in reader.words


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_shown(labelled, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(labelled, folder)
  for path in (folder / 'checkpoints' / '12' / 'online').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:-1])
  reader = write([folder], tmp_path / 'page.html')
  assert 'checkpoints/12: online is damaged' in reader.words and 'of step 8' in reader.words


def test_a_sweep_of_which_nothing_is_done_has_a_page(tmp_path):
  (tmp_path / 'mine.json').write_text(json.dumps([dict(point=name) for name in ('aa', 'bb')]))
  reader = write([tmp_path], tmp_path / 'page.html')
  for part in ('2 runs', 'aa not started', 'bb not started'):
    assert part in reader.words, part


def test_failed_and_waiting_points_are_in_the_page(make_run, tmp_path):
  make_run('points/aa')
  (tmp_path / 'points' / 'bb').mkdir()
  (tmp_path / 'points' / 'bb' / 'failure.json').write_text(json.dumps(
      dict(stage='pretrain', code=1, overrides={'seed': 7}, last_lines=['<the loss> is nan'])))
  (tmp_path / 'mine.json').write_text(json.dumps([dict(point=name) for name in ('aa', 'bb', 'cc')]))
  reader = write([tmp_path], tmp_path / 'page.html')
  for part in ('bb: seed=7', '<the loss> is nan', 'cc not started',
               'The images could not be encoded', 'metrics.jsonl has no times'):
    assert part in reader.words, part


def test_names_from_a_config_cannot_break_the_page(make_run, tmp_path):
  run = make_run('a', data__dataset='<script>alert(1)</script>')
  reader = write([run.folder], tmp_path / 'page.html', images=0)
  assert 'Left out by --images=0' in reader.words
  assert '<script' not in (tmp_path / 'page.html').read_text()


def test_a_page_that_cannot_be_written_is_an_error(make_run, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot be written .*--output'):
    write([make_run('a').folder], tmp_path / 'file' / 'page.html', images=0)


def test_every_protocol_has_its_table_beside_published_numbers(make_run, tmp_path):
  """Told apart by their folders."""
  run = make_run('run')
  rows = dict(
      transfer=dict(linear_transfer=dict(top1=.5, mean_per_class=.4, metric='top1'),
                    few_shot=dict(top1_5_shots=.3, top1_5_shots_std=.02),
                    knn_grid=dict(top1=.45)),
      tuned=dict(fine_tuned_transfer=dict(top1=.6, mean_per_class=.55, metric='top1'),
                 semi_supervised=dict(top1=.35, top5=.8)),
      lists=dict(retrieval=dict(
          map=.25, rank1=.5, rank5=.75, rank10=1., recall_10=.4, queries=4, gallery_images=9,
          queries_without_match=1, chance_map=.1, whitening=8, rerank=True)),
      damaged=dict(knn=dict(k=5)), strange=dict(nets=dict(top1=.5)))
  for name, row in rows.items():
    (run.folder / name).mkdir()
    (run.folder / name / 'results.json').write_text(json.dumps(dict(
        seed=0, step=12, digest='d', test_split_reads=1, dataset='cifar10', chance=.1,
        images=dict(train=80, validation=10, test=20), encoders=dict(pretrained=row, random=row))))
  found = write([run.folder], tmp_path / 'page.html', images=0)
  for part in ('Measured: in transfer', 'Measured: in tuned', 'linear (D.2) top-1', '30.0 +- 2.0',
               'kNN, chosen top-1', 'fine-tuned (D.3) top-1', 'fine-tuned (C.1) top-5',
               'Published (not run here), ResNet-50 after 1000 epochs of ImageNet',
               'linear (D.2) top-1: BYOL 91.3, SimCLR (their own) 90.5',
               'fine-tuned (D.3) top-1: BYOL 97.8',
               'encoder retrieval mAP retrieval rank-1 retrieval rank-5 retrieval rank-10',
               'BYOL, frozen 25.0 50.0 75.0 100.0',
               'Retrieval: 4 queries in a gallery of 9 images, whitened to 8 dimensions, '
               're-ranked by k-reciprocal neighbours; 1 queries without',
               f"{run.folder}/damaged/results.json is damaged: it has no "
               "'encoders.pretrained.knn.top1'.",
               f"{run.folder}/strange/results.json cannot be used: No module 'nets' among the "):
    assert part in found.words, part
