"""What a file is, by its bytes: files of the libraries that write them, and short ones by hand."""

import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
from PIL import Image
import pytest

from byol_jax.input_pipeline import file_kinds


def image(kind):
  buffer = io.BytesIO()
  Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, kind)
  return buffer.getvalue()


def archive(*names):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as file:
    for name in names:
      file.writestr(name, b'\0' * 50)
  return buffer.getvalue()


def numpy_file(save, *arrays, **named):
  buffer = io.BytesIO()
  save(buffer, *arrays, **named)
  return buffer.getvalue()


def tar():
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as file:
    file.addfile(tarfile.TarInfo('weights.pth'))
  return buffer.getvalue()


def safetensors():
  header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
  return len(header).to_bytes(8, 'little') + header + bytes(4)


ARRAY = np.arange(6)
FILES = {
    'an empty file': [b''],
    'a text file': [b'hello', b'path,id\na.jpg,1\n', b'BMW/1.jpg\n', 'caf\u00e9 '.encode() * 2000,
                    b'\xef\xbb\xbfpath,id', b'Rar!ely'],
    'a text file in UTF-16': ['path,id'.encode('utf-16')],
    'an HTML page, as a server sends it instead of a file': [
        b'<html>404</html>', b'\n <!DOCTYPE HTML PUBLIC "-//W3C//DTD">'],
    'an XML file': [b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'],
    'a Git LFS pointer; `git lfs pull` fetches the file that it stands for': [
        b'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n'],
    'a JPEG image': [image('JPEG')], 'a PNG image': [image('PNG')], 'a GIF image': [image('GIF')],
    'a BMP image': [image('BMP')], 'a WebP image': [image('WEBP')],
    'a TIFF image': [image('TIFF'), b'MM\0*' + bytes(20)],
    'a NumPy array (.npy)': [numpy_file(np.save, ARRAY)],
    'a NumPy archive (.npz)': [numpy_file(np.savez, images=ARRAY),
                               numpy_file(np.savez_compressed, ARRAY)],
    'a safetensors file': [safetensors()],
    'a file of torch.save': [archive('weights/data.pkl', 'weights/data/0'),
                             b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.'],
    'a TorchScript archive': [archive('net/data.pkl', 'net/constants.pkl')],
    'a Python pickle': [pickle.dumps({'a': 1}, protocol) for protocol in (2, 3, 4, 5)],
    'a zip archive of images; unpack it first': [archive('cats/', 'cats/1.JPG', 'dogs/2.png')],
    "a zip archive with 'saved_model.pb' in it": [archive('saved_model.pb')],
    'an empty zip archive': [archive()],
    'a zip archive whose end is missing or damaged; fetch it again': [
        archive('weights/data.pkl')[:60], b'PK\x03\x04 and no more'],
    'a tar archive; unpack it first': [tar()],
    'a gzip archive; unpack it first': [b'\x1f\x8b\x08' + bytes(20)],
    'an HDF5 file, as from Keras or MATLAB 7.3': [b'\x89HDF\r\n\x1a\n' + bytes(20)],
    'a MATLAB file': [b'MATLAB 5.0 MAT-file, Platform: GLNXA64'.ljust(124) + b'\0\1IM'],
    'a Parquet file': [b'PAR1\x15\x04' + bytes(20)],
    'an ONNX model': [b'\x08\x07\x12\x07pytorch\x1a\x012' + bytes(20), b'\x08\x08:\x82\x01'],
    'the index of a TensorFlow checkpoint': [
        b'\0\0\x01\x02' + bytes(40) + 0xdb4775248b80fb57.to_bytes(8, 'little')],
    'a file of an unknown kind': [b'\xff' * 100, bytes(5000), b'caf\xe9\n',
                                                (2 ** 60).to_bytes(8, 'little') + b'{"a'],
}


@pytest.mark.parametrize('kind, content', [
    pytest.param(kind, content, id=f'{kind}-{number}')
    for kind, contents in FILES.items() for number, content in enumerate(contents)])
def test_a_file_is_told_by_its_bytes(tmp_path, kind, content):
  (tmp_path / 'name.pth').write_bytes(content)
  assert file_kinds.kind(tmp_path / 'name.pth') == kind


def test_a_folder(tmp_path):
  assert file_kinds.kind(str(tmp_path)) == 'a folder'


def test_what_cannot_be_read_is_an_error(tmp_path):
  with pytest.raises(OSError):
    file_kinds.kind(tmp_path / 'missing')


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  assert file_kinds.kind(tmp_path / 'pipe') == 'a pipe or a device, not a file'
