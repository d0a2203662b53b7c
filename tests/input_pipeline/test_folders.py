"""Which files of a folder are used, which are counted, and which folders are splits."""

import numpy as np
import pytest
import tensorflow as tf

from byol_jax.datasets import image_folder
from byol_jax.input_pipeline import folders, image_files
from byol_jax.input_pipeline.records import DataError


def listed(*inside):
  return folders.Listing('/data/my root', np.array([f'/data/my root/{i}' for i in inside], object),
                         {})


def test_files_that_are_no_images_are_counted_by_their_endings(tmp_path, monkeypatch):
  monkeypatch.setattr(image_files, 'endings', lambda: image_files.ENDINGS)
  names = ['1.jpg', '2.JFIF', 'a/3.jpe', 'a/4.TIFF', '5.tif', '6.HEIC', '7.heic', 'b.c/8.avif',
           'list.csv', 'README', '.hidden.jpg', '.thumbs/9.jpg', 'a/.x/10.txt',
           '__MACOSX/a/1.jpg']
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'never opened')
  found = folders.read(f'{tmp_path}/')
  assert found.paths.tolist() == sorted(f'{tmp_path}/{name}' for name in names[:5])
  assert found.others == {'.heic': 2, '.avif': 1, '.csv': 1, 'without an ending': 1, 'hidden': 4}
  assert found.left_out() == (
      f'9 files in {tmp_path}/ are left out, leaving 5 images: 4 hidden, 2 .heic (pip install '
      'pillow-heif to read them, or convert them to JPEG), 1 .avif (pip install "pillow>=11.3" to '
      'read them, or convert them to JPEG), 1 .csv, 1 without an ending')
  assert folders.read(f'{tmp_path}/a')._replace(others={}).left_out() == ''


def test_what_the_installed_pillow_reads_is_used(tmp_path, monkeypatch):
  monkeypatch.setattr(image_files.Image, 'registered_extensions', lambda: {'.heic': 'HEIF'})
  (tmp_path / '1.HEIC').touch()
  (tmp_path / '2.avif').touch()
  found = folders.read(str(tmp_path))
  assert found.paths.tolist() == [f'{tmp_path}/1.HEIC'] and found.others == {'.avif': 1}


def test_many_endings_are_added_up():
  others = {f'.e{i:02d}': 30 - i for i in range(15)}
  text = listed('1.jpg')._replace(others=others).left_out()
  assert text.endswith('20 .e10, 19 .e11, 51 with other endings')


def test_a_folder_without_images_says_what_it_has(tmp_path, monkeypatch):
  monkeypatch.setattr(image_files, 'endings', lambda: image_files.ENDINGS)
  (tmp_path / '1.heic').touch()
  with pytest.raises(DataError, match=r'has no images: 1 file, none .* 1 \.heic \(pip install'):
    folders.read(str(tmp_path))


def test_an_object_store_that_does_not_answer_is_one_line(monkeypatch):
  def fails(path):
    raise tf.errors.FailedPreconditionError(None, None, f'Could not resolve host\n\t of {path}')

  monkeypatch.setattr(tf.io.gfile, 'isdir', lambda path: False)
  monkeypatch.setattr(tf.io.gfile, 'exists', fails)
  for look in (folders.read, image_folder._subfolders):
    with pytest.raises(DataError) as error:
      look('gs://bucket/x')
    assert str(error.value) == ('gs://bucket/x cannot be read: Could not resolve host of '
                                'gs://bucket/x. Check the address, the network and the '
                                'credentials.')


def test_the_summary_counts_the_images_of_each_class():
  labels = np.array([0, 1, 1, 2])
  assert folders.summary('/root', labels, ['cat', 'new\nline', 'C#']) == (
      "images of /root by class: cat 1, 'new\\nline' 2, C# 1")
  assert folders.summary('/root', None, []) == ''


def test_the_summary_of_a_thousand_classes_is_short():
  labels = np.repeat(np.arange(1000), 3)[:-1]
  text = folders.summary('/root', np.append(labels, 7), [f'n{i:04d}' for i in range(1000)])
  assert text == ('images of /root by class: n0000 3, n0001 3, n0002 3, n0003 3, n0004 3, ..., '
                  'n0999 2 (1000 classes; fewest: n0999 2, most: n0007 4)')


@pytest.mark.parametrize('inside, given', [
    (['train/cat/1.jpg', 'val/cat/2.jpg'], 'train=train validation=val'),
    (['Train/1.jpg', 'Valid/2.jpg', 'TEST/2.jpg'], 'train=Train validation=Valid test=TEST'),
    (['training/1.jpg', 'testing/2.jpg'], 'train=training test=testing'),
    (['train/1.jpg', 'validation/2.jpg', 'extra/3.jpg'], 'train=train validation=validation'),
    (['train2017/1.jpg', 'val2017/2.jpg'], 'train=train2017 validation=val2017'),
    (['train_images/1.jpg', 'test-set/2.jpg', 'cover.jpg'], 'train=train_images test=test-set'),
    (['images/train/1.jpg', 'images/val/2.jpg'], 'train=images/train validation=images/val'),
    (['a/b/train/1.jpg', 'a/b/test/2.jpg'], 'train=a/b/train test=a/b/test'),
    (['train.X1/1.jpg', 'train.X2/2.jpg', 'val.X/3.jpg'], 'train=train.X1 validation=val.X'),
    (['ILSVRC2012_img_train/1.jpg', 'ILSVRC2012_img_val/2.jpg'],
     'train=ILSVRC2012_img_train validation=ILSVRC2012_img_val'),
    (['seg_pred/1.jpg', 'seg_test/1.jpg', 'seg_train/2.jpg'], 'train=seg_train test=seg_pred'),
    (['bounding_box_train/1.jpg', 'bounding_box_test/2.jpg', 'query/3.jpg'],
     'train=bounding_box_train test=bounding_box_test'),
    (['trainval/1.jpg', 'test/2.jpg'], 'train=trainval test=test'),
    (['train/1.jpg', 'holdout/2.jpg'], 'train=train validation=holdout'),
    (['training/1.jpg', 'evaluation/2.jpg'], 'train=training validation=evaluation')])
@pytest.mark.parametrize('labelled', [True, False])
def test_a_root_of_splits_is_refused_with_the_options_that_were_meant(inside, given, labelled):
  wanted = ' '.join(f"--config.data.options.{split}='/data/my root/{name}'" for split, name in (
      one.split('=') for one in given.split()))
  with pytest.raises(DataError) as error:
    folders.check_one_split(listed(*inside), labelled=labelled)
  assert f'Give each of them: {wanted}. If' in str(error.value)
  assert ('not classes' in str(error.value)) == labelled


NO_TRAINING = ('None of them is for training: --config.data.options.train needs the folder of the '
               'training images.')
RETRIEVAL = 'Queries and a gallery are read with experiments/configs/eval/retrieval.py.'


@pytest.mark.parametrize('inside, options, what, said', [
    (['val/cat/1.jpg', 'test/cat/2.jpg'], ('train', 'validation', 'test'), 'val, test',
     "Give each of them: --config.data.options.validation='/data/my root/val' "
     f"--config.data.options.test='/data/my root/test'. {NO_TRAINING}"),
    (['val/cat/1.jpg', 'test/cat/2.jpg'], ('train',), 'val, test', NO_TRAINING),
    (['query/1/1.jpg', 'gallery/1/2.jpg'], ('train', 'test'), 'query, gallery',
     f'{NO_TRAINING} {RETRIEVAL}'),
    (['query/1/1.jpg', 'gallery/1/2.jpg'], ('train',), 'query, gallery', NO_TRAINING),
    (['query/1/1.jpg', 'gallery/1/2.jpg', 'train/2/1.jpg'], ('train', 'test'),
     'train, query, gallery',
     f"Give each of them: --config.data.options.train='/data/my root/train'. {RETRIEVAL}")])
def test_a_root_without_a_training_split_says_so(inside, options, what, said):
  with pytest.raises(DataError) as error:
    folders.check_one_split(listed(*inside), labelled=True, options=options)
  assert str(error.value) == (
      f'/data/my root holds the splits of a data set ({what}), which are not classes. {said} If '
      'they are all one split, rename the folders.')


@pytest.mark.parametrize('inside', [
    ['cat/1.jpg', 'dog/2.jpg', 'art_gallery/1.jpg'],
    ['cat/1.jpg', 'dog/2.jpg', 'train/3.jpg'], ['trains/1.jpg', 'tests/2.jpg'],
    ['train station/1.jpg', 'test tube/2.jpg'],
    ['a/1.jpg', 'b/1.jpg', 'c/1.jpg', 'test/1.jpg', 'train/1.jpg'], ['1.jpg', 'train.jpg'],
    ['training shoes/1.jpg', 'value/2.jpg'], ['cat/train/1.jpg', 'dog/2.jpg', 'dog/test/3.jpg']])
def test_classes_that_are_called_like_splits_are_classes(inside):
  for labelled in (True, False):
    folders.check_one_split(listed(*inside), labelled=labelled)


def test_one_split_alone_is_no_class_but_a_folder_of_images():
  alone = listed('train/cat/1.jpg', 'train/dog/2.jpg')
  folders.check_one_split(alone, labelled=False)
  with pytest.raises(DataError, match="options.train='/data/my root/train'. If"):
    folders.check_one_split(alone, labelled=True)


def test_splits_within_each_class_are_named():
  with pytest.raises(DataError, match=r'Each folder in /data/my root holds the splits .*\(test, t'):
    folders.check_one_split(listed('cat/train/1.jpg', 'cat/test/2.jpg', 'dog/train/3.jpg'),
                            labelled=True)


def test_a_list_of_training_images_has_one_option():
  with pytest.raises(DataError, match="them: --config.data.options.train='/data/my root/train'. I"):
    folders.check_one_split(listed('train/1/1.jpg', 'test/1/2.jpg'), labelled=False,
                            options=('train',))
