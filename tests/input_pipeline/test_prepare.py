import json

import numpy as np
import pytest

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.input_pipeline import prepare, preprocess, splits
from tests import commands

tf = pytest.importorskip('tensorflow')
# After TensorFlow, which they import.


from tests.datasets.test_tfds import features, write_set
from tests.input_pipeline.test_tf_pipeline import encode

COUNTS = (3, 2)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Five smooth JPEG images, three of them larger than 20 pixels."""
  folder = tmp_path_factory.mktemp('source')
  examples = []
  for i, (height, width) in enumerate([(40, 60), (12, 90), (80, 40), (20, 20), (41, 41)]):
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 // height, columns * 255 // width, 0 * rows + 40 * i], axis=-1)
    examples.append(dict(image=encode(image.astype(np.uint8), 'JPEG'), label=i % 3))
  return write_set(folder, examples, dict(train=COUNTS), features('jpeg', 3))


def shrink(source, target, **options):
  return prepare.shrink(source, target, image_key='image', progress=lambda line: None,
                        **dict(short_side=20, quality=95) | options)


def images(data_dir):
  """{id: (encoded, label)} as training reads them."""
  options = plugin_options('datasets', 'tfds').to_dict() | dict(
      name='tiny', data_dir=str(data_dir), held_out_images=0)
  stream = splits.read('tfds', 'train', purpose='a test', options=options)
  return {int(record['sample_id']): tuple(stream.read(record).values())
          for record in stream.records(tf.constant(0, tf.int64), None)}


def test_larger_images_shrink_and_all_else_stays(source, tmp_path):
  counts = shrink(source, tmp_path / 'tiny' / '1.0.0')
  assert (counts['records'], counts['shrunk']) == (5, 3)
  before, after = images(source.parents[1]), images(tmp_path)
  sizes = []
  for i in range(5):
    (old, old_label), (new, new_label) = before[i], after[i]
    assert old_label == new_label
    image = preprocess.decode(new).numpy()
    sizes.append(image.shape[:2])
    if i in (1, 3):
      assert old.numpy() == new.numpy()
    else:
      # A smooth image keeps its colours.
      expected = tf.image.resize(preprocess.decode(old), image.shape[:2], antialias=True)
      np.testing.assert_allclose(image, expected, atol=12)
  assert sizes == [(20, 30), (12, 90), (40, 20), (20, 20), (20, 20)]
  assert json.loads((tmp_path / 'tiny/1.0.0' / prepare.NOTE).read_text())['short_side'] == 20


def test_views_of_a_copy_differ_the_more_the_smaller_it_is(source, tmp_path):
  found = []
  for side in (200, 20, 10):
    target = tmp_path / str(side) / 'tiny' / '1.0.0'
    shrink(source, target, short_side=side)
    found.append(prepare.differences(source, target, image_key='image', size=32))
  same, small, smaller = found
  assert same['copy, bicubic'] == 0 < same['copy, bilinear'] == same['original, bilinear'] < 3
  assert 0 < small['copy, bicubic'] < smaller['copy, bicubic'] < 30


def test_an_interrupted_copy_goes_on(source, tmp_path, monkeypatch):
  target, copy = tmp_path / 'tiny' / '1.0.0', prepare._copy

  def fail_at_the_second(path, *args):
    if '00001' in path.name:
      raise KeyboardInterrupt
    return copy(path, *args)

  monkeypatch.setattr(prepare, '_copy', fail_at_the_second)
  with pytest.raises(KeyboardInterrupt):
    shrink(source, target)
  # Half a set is none.
  assert not (target / prepare.INFO).exists()
  monkeypatch.setattr(prepare, '_copy', copy)
  assert shrink(source, target)['records'] == COUNTS[1]
  assert len(images(tmp_path)) == 5


def test_what_is_refused(source, tmp_path):
  with pytest.raises(InputError, match='is not a TFDS set'):
    shrink(tmp_path, tmp_path / 'out')
  with pytest.raises(InputError, match='--quality is 0'):
    shrink(source, tmp_path / 'out', quality=0)
  shrink(source, tmp_path / 'out')
  with pytest.raises(InputError, match='was made with other options'):
    shrink(source, tmp_path / 'out', quality=50)
  with pytest.raises(InputError, match='holds other files'):
    shrink(source, source)


def test_the_command(source, tmp_path):
  done = commands.run('prepare', input=source, output=tmp_path / 'out', short_side=20)
  assert done.returncode == 0, done.stderr
  assert '5 records written, 3 images shrunk' in done.stdout
