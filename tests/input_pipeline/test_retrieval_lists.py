"""Lists of identities in every format, and what is wrong with a list in its own words."""

import pytest

from byol_jax.input_pipeline import retrieval_lists
from byol_jax.input_pipeline.records import DataError
from tests import identity_folders

OPTIONS = dict(root=None, query=None, gallery=None, train=None, test_size=3000)


def own(root, ending):
  return {part: f'{root}/{part}{ending}' for part in retrieval_lists.PARTS}


def read(part, format, folder, **options):
  given = dict(root=str(folder)) if format.startswith('veri') else own(
      folder, '.csv' if format == 'csv' else '')
  options = OPTIONS | given | options
  return retrieval_lists.read(part, format=format, **options)


WRITERS = dict(csv=identity_folders.write_csv, folders=identity_folders.write_folders,
               veri=identity_folders.write_veri, veri_wild=identity_folders.write_veri_wild)


@pytest.mark.parametrize('format, identity, camera', [
    ('csv', 'v{}', 'c{}'), ('folders', 'car {}', ''), ('veri', '{}', '{}'),
    ('veri_wild', '{:05d}', '{}')])
@pytest.mark.parametrize('part', retrieval_lists.PARTS)
def test_identities_and_cameras(tmp_path, format, identity, camera, part):
  WRITERS[format](tmp_path)
  found = read(part, format, tmp_path)
  images = identity_folders.PARTS[part]
  if (format, part) == ('veri', 'gallery'):
    images = sorted(identity_folders.QUERY + images)
  # VERI-Wild's training list gives no cameras, and training needs none.
  camera = '' if (format, part) == ('veri_wild', 'train') else camera
  assert found.identities.tolist() == [identity.format(i) for i, _, _ in images]
  assert found.cameras.tolist() == [camera.format(c) for _, c, _ in images]
  assert len(set(found.paths)) == len(images)
  retrieval_lists.check_images(found)


def test_veri_wild_with_cameras_in_the_lists_and_of_another_size(tmp_path):
  identity_folders.write_veri_wild(tmp_path, size=10000, with_camera=True)
  found = read('query', 'veri_wild', tmp_path, test_size=10000)
  assert found.cameras.tolist() == ['1', '2', '1', '1']
  assert found.paths[0] == f'{tmp_path}/images/00001/000100.jpg'
  with pytest.raises(DataError, match='has no test_5000_query.txt or test_5000_id_query.txt'):
    read('query', 'veri_wild', tmp_path, test_size=5000)


def test_columns_that_can_be_missing(tmp_path):
  identity_folders.write_csv(tmp_path, camera=False)
  assert set(read('query', 'csv', tmp_path).cameras) == {''}
  (tmp_path / 'train.csv').write_text('path\ntrain images/7-0.jpg\n')
  assert read('train', 'csv', tmp_path).identities.tolist() == ['']
  # The gallery's images can serve.
  found = read('train', 'csv', tmp_path, train='gallery')
  assert found.paths.tolist() == read('gallery', 'csv', tmp_path).paths.tolist()


@pytest.mark.parametrize('text, message', [
    ('', "query.csv, line 1: ''; the first line must name the columns: path,id,camera"),
    ('a.jpg,3,c1\n', "query.csv, line 1: 'a.jpg,3,c1'; the first line must name"),
    ('path,id,colour\n', "line 1: 'path,id,colour'"),
    ('path,id,id\na.jpg,1,2\n', "line 1: 'path,id,id'"),
    (f'path,id\n{"a" * 200_000},1\n', 'query.csv, line 2: field larger than field limit'),
    ('path,id\n', 'query.csv lists no images'),
    ('path,id\na.jpg,1\nb.jpg\n', "query.csv, line 3: 'b.jpg'; each line must have path, id"),
    ('path,id\na.jpg,1\n\nb.jpg,\n', "query.csv, line 4: 'b.jpg,'; .* none of them empty"),
    ('path,id\na.jpg,1\nb.jpg,2\na.jpg,1\n', r'query.csv, line 4: .*a.jpg is listed a second'),
    ('path,id\na.jpg,1\n./b/../a.jpg,1\n', r'query.csv, line 3: .*a.jpg is listed a second')])
def test_csv_files_that_differ_are_shown(tmp_path, text, message):
  (tmp_path / 'query.csv').write_text(text)
  with pytest.raises(DataError, match=message):
    read('query', 'csv', tmp_path)


def test_csv_files_of_spreadsheets(tmp_path):
  (tmp_path / 'query.csv').write_bytes(b'\xef\xbb\xbfpath,id\r\n"a, b.jpg", 1\r\n\r\n')
  found = read('query', 'csv', tmp_path)
  assert found.paths.tolist() == [f'{tmp_path}/a, b.jpg'] and found.identities.tolist() == ['1']


def test_missing_images_are_counted_and_the_line_of_the_first_is_named(tmp_path):
  identity_folders.write_csv(tmp_path)
  for name in ('1-2', '5-0'):
    (tmp_path / 'gallery images' / f'{name}.jpg').unlink()
  with pytest.raises(DataError, match=r'gallery.csv, line 3: there is no image .*1-2.jpg; 2 of the '
                                      '6 images'):
    retrieval_lists.check_images(read('gallery', 'csv', tmp_path))


def test_names_that_veri_has_not(tmp_path):
  identity_folders.write_veri(tmp_path)
  (tmp_path / 'image_query' / '0002_c002_00000000_0.jpg').rename(
      tmp_path / 'image_query' / '0002-c002.jpg')
  with pytest.raises(DataError, match='0002-c002.jpg: files of VeRi-776 are named <id>_c<camera>'):
    read('query', 'veri', tmp_path)
  with pytest.raises(DataError, match='image_test: no such folder'):
    read('gallery', 'veri', tmp_path / 'image_query')


@pytest.mark.parametrize('file, line, message', [
    ('test_3000.txt', '000101.jpg', "test_3000.txt, line 7: '000101.jpg'; it must be <vehicle>"),
    ('test_3000.txt', '00001/000101 1', "line 7: '00001/000101 1'; it must be"),
    ('test_3000.txt', '00001/9', "line 7: '00001/9'; vehicle_info.txt has no camera"),
    ('vehicle_info.txt', '00001/000101,3', "vehicle_info.txt, line 22: '00001/000101,3'; it must"),
    ('vehicle_info.txt', '00001/000101;Audi;3', 'where the camera is a number')])
def test_lines_that_veri_wild_has_not(tmp_path, file, line, message):
  identity_folders.write_veri_wild(tmp_path)
  with (tmp_path / 'train_test_split' / file).open('a') as opened:
    opened.write(line + '\n')
  with pytest.raises(DataError, match=message):
    read('gallery', 'veri_wild', tmp_path)


def test_loose_images_of_a_gallery_have_no_identity(tmp_path):
  identity_folders.write_folders(tmp_path)
  for part in ('gallery', 'train'):
    identity_folders.write(tmp_path / part / 'loose.jpg', 1, 1, 1)
  with pytest.raises(DataError, match='loose.jpg is not in the folder of an identity'):
    read('gallery', 'folders', tmp_path)
  assert '' in read('train', 'folders', tmp_path).identities


@pytest.mark.parametrize('part, format, options, message', [
    ('query', 'veri', dict(root=None), 'data.options.root is not given'),
    ('query', 'csv', dict(query=None), 'data.options.query is not given; set it to a CSV file'),
    ('train', 'folders', dict(train=None), "train is not given; set it to a folder of .*'gallery'"),
    ('query', 'csv', {}, 'query.csv: no such file'),
    ('query', 'csv', dict(query='/'), '/ is a folder. The list of images must be a text file')])
def test_what_is_not_given(tmp_path, part, format, options, message):
  with pytest.raises(DataError, match=message):
    read(part, format, tmp_path, **options)
