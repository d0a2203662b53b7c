"""What Pillow decodes for us, how images are turned, and what is said of files that are none."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
import pytest
import tensorflow as tf

from byol_jax.input_pipeline import image_files, preprocess

RGB = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
DEEP = np.random.default_rng(0).integers(0, 1 << 16, (7, 9), np.uint16)
# Smooth, as photographs are: lossy formats keep it.
ROWS, COLUMNS = np.mgrid[:24, :32]
SMOOTH = Image.fromarray(np.stack([8 * COLUMNS, 8 * ROWS + COLUMNS, 255 - 4 * (COLUMNS + ROWS)],
                                  -1).clip(0, 255).astype(np.uint8))
GRAY, PALETTE = SMOOTH.convert('L'), SMOOTH.quantize(16)
PAGES = dict(save_all=True, append_images=[ImageOps.invert(SMOOTH)])


def encode(image, kind, **options):
  file = io.BytesIO()
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(file, kind, **options)
  return file.getvalue()


def exif(number):
  found = Image.Exif()
  found[0x010F], found[0x0112] = 'Maker', number
  return found.tobytes()


@pytest.fixture(scope='module')
def decode():
  """As the pipeline does: in a graph."""
  graphs = {upright: tf.function(
      lambda encoded, upright=upright: preprocess.decode_file(encoded, upright=upright),
      input_signature=[tf.TensorSpec([], tf.string)]) for upright in (True, False)}
  return lambda content, upright=True: graphs[upright](content).numpy()


def of_pillow(content):
  return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert('RGB'))


@pytest.mark.parametrize('content, atol', [
    (encode(GRAY, 'BMP'), 0), (encode(PALETTE, 'BMP'), 0), (encode(SMOOTH.convert('1'), 'BMP'), 0),
    (encode(SMOOTH, 'BMP'), 0), (encode(SMOOTH.convert('RGBA'), 'BMP'), 0),
    (encode(SMOOTH.convert('CMYK'), 'JPEG', quality=95), 8),
    (encode(SMOOTH, 'JPEG', quality=95, progressive=True), 8),
    (encode(SMOOTH.convert('LA'), 'PNG'), 0), (encode(PALETTE, 'PNG', transparency=3), 0),
    (encode(SMOOTH, 'PNG', **PAGES), 0), (encode(SMOOTH, 'WEBP', lossless=True, **PAGES), 0),
    (encode(SMOOTH.convert('RGBA'), 'WEBP', lossless=True), 0),
    (encode(PALETTE, 'GIF', **PAGES), 0), (encode(GRAY, 'TIFF'), 0),
    (encode(SMOOTH, 'TIFF', compression='tiff_lzw'), 0),
    (encode(SMOOTH, 'TIFF', compression='jpeg'), 0), (encode(SMOOTH.convert('CMYK'), 'TIFF'), 0),
    (encode(SMOOTH.convert('1'), 'TIFF', compression='group4'), 0),
    (encode(SMOOTH, 'TIFF', **PAGES), 0), (encode(SMOOTH, 'TIFF', big_tiff=True), 0),
    (encode(PALETTE, 'TIFF'), 0), (encode(SMOOTH.convert('RGBA'), 'TIFF'), 0),
    (encode(Image.new('RGB', (30_000, 1), (7, 8, 9)), 'PNG'), 0),
    (encode(Image.new('RGB', (1, 30_000), (7, 8, 9)), 'TIFF'), 0),
], ids=['gray_bmp', 'palette_bmp', '1_bit_bmp', 'bmp', '32_bit_bmp', 'cmyk_jpeg', 'progressive',
        'la_png', 'palette_png', 'apng', 'animated_webp', 'transparent_webp', 'animated_gif',
        'gray_tiff', 'lzw_tiff', 'jpeg_tiff', 'cmyk_tiff', 'fax_tiff', 'pages_tiff', 'big_tiff',
        'palette_tiff', 'rgba_tiff', 'wide', 'tall'])
def test_colours_are_those_of_pillow(decode, content, atol):
  np.testing.assert_allclose(decode(content).astype(int), of_pillow(content), rtol=0, atol=atol)


@pytest.mark.parametrize('content', [
    b'BM' + struct.pack('<IHHI', 60, 0, 0, 54) + struct.pack('<IiiHHIIiiII', 40, 1, 1, 1, 16, 0, 4,
                                                             1, 1, 0, 0) + b'\xff\x03\0\0',
    b'BM' + struct.pack('<IHHI', 1088, 0, 0, 1078) + struct.pack(
        '<IiiHHIIiiII', 40, 4, 1, 1, 8, 1, 6, 1, 1, 256, 0) + bytes(range(256)) * 4 + bytes(
            [4, 9, 0, 0, 0, 1])], ids=['16_bits', 'run_lengths'])
def test_rare_bitmaps(decode, content):
  np.testing.assert_array_equal(decode(content), of_pillow(content))


@pytest.mark.parametrize('values, wanted', [
    (DEEP, DEEP >> 8), (DEEP.astype(np.int32), DEEP >> 8), (DEEP.astype(np.int32) >> 8, DEEP >> 8),
    (DEEP.astype(np.float32) / 65_535, np.rint(DEEP / 257)),
    (DEEP.astype(np.float32) / 257, np.rint(DEEP / 257))])
def test_numbers_of_more_than_eight_bits(decode, values, wanted):
  np.testing.assert_array_equal(decode(encode(values, 'TIFF')), np.repeat(wanted[..., None], 3, -1))


FORMATS = dict(JPEG=(dict(quality=95), 12), PNG=({}, 0), WEBP=(dict(lossless=True), 0),
               TIFF=({}, 0))


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('number', range(1, 9))
def test_images_are_turned_as_their_exif_says(decode, kind, number):
  options, atol = FORMATS[kind]
  content = encode(SMOOTH, kind, exif=exif(number), **options)
  stored = np.asarray(SMOOTH).astype(int)
  # By hand: x to the right, y down, as EXIF defines the eight.
  mirrored, turned = stored[:, ::-1], stored.transpose(1, 0, 2)
  wanted = [stored, mirrored, stored[::-1, ::-1], stored[::-1], turned, turned[:, ::-1],
            turned[::-1, ::-1], turned[::-1]][number - 1]
  np.testing.assert_allclose(decode(content), wanted, rtol=0, atol=atol)
  np.testing.assert_allclose(decode(content), of_pillow(content), rtol=0, atol=atol)
  np.testing.assert_allclose(decode(content, False), stored, rtol=0, atol=atol)


JPEG = encode(SMOOTH, 'JPEG', quality=95)
LITTLE = (b'Exif\0\0II*\0\x08\0\0\0\x01\0' + struct.pack('<HHIHH', 0x112, 3, 1, 6, 0) + bytes(4))
BIG = (b'Exif\0\0MM\0*\0\0\0\x08\0\x02' + struct.pack('>HHII', 0x100, 4, 1, 7)
       + struct.pack('>HHIHH', 0x112, 3, 1, 8, 0) + bytes(4))


def segment(marker, payload):
  return bytes([0xFF, marker]) + struct.pack('>H', len(payload) + 2) + payload


def with_segments(*segments):
  return JPEG[:2] + b''.join(segments) + JPEG[2:]


@pytest.mark.parametrize('content, number', [
    (with_segments(segment(0xE1, LITTLE)), 6), (with_segments(segment(0xE1, BIG)), 8),
    (JPEG[:20] + segment(0xE2, bytes(40_000)) + segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0')
     + segment(0xFE, b'a comment') + segment(0xE1, LITTLE) + JPEG[20:], 6),
    (with_segments(segment(0xE1, LITTLE + encode(SMOOTH, 'JPEG', exif=exif(3)))), 6),
    (with_segments(segment(0xFE, segment(0xE1, LITTLE))), 1),
    (with_segments(segment(0xE1, LITTLE.replace(b'\x06\0\0\0', b'\x09\0\0\0'))), 1),
    (with_segments(segment(0xE1, LITTLE.replace(b'II*\0\x08\0', b'II*\0\xff\xff'))), 1),
    (with_segments(segment(0xE1, LITTLE[:20])), 1), (with_segments(segment(0xE1, b'Exif\0\0')), 1),
    (with_segments(segment(0xE1, LITTLE.replace(b'II', b'XX'))), 1), (JPEG[:20], 1), (JPEG, 1),
    (with_segments(b'\xff' * 3 + segment(0xE1, LITTLE)), 6),
    (JPEG[:20] + b'\xff' + JPEG[20:158] + b'\xff' + segment(0xE1, BIG) + JPEG[158:], 8),
    (JPEG[:158] + segment(0xE1, LITTLE) + JPEG[158:], 6),
    (with_segments(segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x/>'), segment(0xE1, BIG)), 8)],
    ids=['little', 'big', 'after_others', 'with_thumbnail', 'in_comment', 'nine', 'far', 'cut',
         'empty', 'no_order', 'header_only', 'none', 'fill_bytes', 'fill_bytes_and_tables',
         'after_tables', 'after_xmp'])
def test_the_orientation_of_a_jpeg(decode, content, number):
  assert image_files.route(content) == number
  if len(content) > 20:
    assert decode(content).shape == ((32, 24, 3) if number > 4 else (24, 32, 3))
    np.testing.assert_allclose(decode(content).astype(int), of_pillow(content), rtol=0, atol=8)


def test_photographs_without_exif_are_decoded_without_python(monkeypatch):
  monkeypatch.setattr(image_files, 'route', lambda content: pytest.fail('asked'))
  upright = tf.function(lambda encoded: preprocess.decode_file(encoded, upright=True))
  np.testing.assert_array_equal(upright(JPEG), preprocess.decode(JPEG))


HEIC = b'\0\0\0\x18ftypheic' + bytes(100)


def tiff(bands, bits, kind):
  """One pixel as Pillow does not write it: `kind` is 1 for whole numbers, 3 for floats."""
  tags = ((256, 4, 1, 1), (257, 4, 1, 1), (258, 3, bands, 134 if bands > 2 else bits),
          (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, bands), (278, 4, 1, 1),
          (279, 4, 1, bands * bits // 8), (339, 3, bands, 150 if bands > 2 else kind))
  head = b'II*\0\x08\0\0\0' + struct.pack('<H', len(tags)) + b''.join(
      struct.pack('<HHII', *tag) for tag in tags)
  head = (head + bytes(4)).ljust(134, b'\0') + struct.pack('<8H', *[bits] * 8)
  return (head + struct.pack('<8H', *[kind] * 8)).ljust(400, b'\1')


@pytest.mark.parametrize('form, text', [
    ((5, 8, 1), '5 bands of 8-bit whole numbers'), ((3, 32, 3), '3 bands of 32-bit floats'),
    ((1, 64, 3), '1 band of 64-bit floats')])
def test_a_tiff_of_other_bands_says_which_it_has_and_which_are_read(decode, form, text):
  with pytest.raises(tf.errors.InvalidArgumentError):
    decode(tiff(*form))
  assert image_files.reason(tiff(*form)) == (
      f'it is a TIFF with {text} per pixel, which is not supported; save it as gray or RGB of 8 '
      'or 16 bits, or as one band of 32-bit floats')
  assert decode(tiff(1, 32, 3)[:200] + struct.pack('<f', 1.)).tolist() == [[[255] * 3]]


@pytest.mark.parametrize('content, text', [
    (b'', 'the file is empty'), (bytes(99), 'it consists of 99 zero bytes'),
    (b'<html>404</html>', 'its content is an HTML page, as a server sends it instead of a file'),
    ('é'.encode() * 600, f"its content is text: '{'é' * 40}'"),
    (HEIC, 'its content is HEIC; pip install pillow-heif to read it, or convert it to JPEG'),
    (b'\0\0\0\x18ftypisom' + bytes(9), "its content is a video or another file of the MP4 family "
                                       "('isom')"),
    (b'%PDF-1.4\n\xff', 'its content is a PDF file'),
    (b'version https://git-lfs.github.com/spec/v1\noid',
     'its content is a Git LFS pointer; `git lfs pull` fetches the file that it stands for'),
    (b'\xe9\x80\xc0\x23\xf9\x78\x6c\xec\0',
     'its first bytes, e9 80 c0 23 f9 78 6c ec, match no supported image format'),
    (JPEG[:100], 'it begins like JPEG but is truncated, damaged or in a form that Pillow cannot '
     'decode (100 bytes)'),
    (encode(RGB, 'PNG')[:60],
     'PNG of 9 x 7 pixels that cannot be decoded: image file is truncated'),
    (encode(GRAY, 'BMP')[:1300], 'BMP of 32 x 24 pixels that cannot be decoded: image file is '
                                 'truncated (30 bytes not processed)'),
    (encode(DEEP.astype(np.float32), 'TIFF'), None)])
def test_files_that_are_no_images_are_refused_and_why(decode, content, text):
  with pytest.raises(tf.errors.InvalidArgumentError):
    decode(content)
  if text is None:
    low, high = DEEP.min(), DEEP.max()
    text = (f'TIFF of 9 x 7 pixels that cannot be decoded: its values run from {low:g} to '
            f'{high:g}; floats must lie in 0 ... 1 or 0 ... 255, integers in 0 ... 65535')
  assert image_files.reason(content) == text


def large(kind):
  """An image of one colour of 20,000 x 20,000 pixels, of which the header is true."""
  small = encode(Image.new('RGB', (16, 16)), kind)
  side = struct.pack('>I' if kind == 'PNG' else '<I', 20_000)
  if kind == 'JPEG':
    at = small.index(b'\xff\xc0') + 5
    return small[:at] + struct.pack('>HH', 20_000, 20_000) + small[at + 4:]
  if kind == 'PNG':
    head = small[12:16] + side + side + small[24:29]
    return small[:12] + head + struct.pack('>I', zlib.crc32(head)) + small[33:]
  if kind == 'BMP':
    return small[:18] + side + side + small[26:]
  for tag in (0x100, 0x101):
    at = small.index(struct.pack('<HH', tag, 3)) if struct.pack('<HH', tag, 3) in small else (
        small.index(struct.pack('<HH', tag, 4)))
    small = small[:at + 8] + side + small[at + 12:]
  return small


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP', 'TIFF'])
def test_images_that_are_too_large_say_their_size_and_the_limit(decode, kind):
  content = large(kind)
  with pytest.raises(tf.errors.InvalidArgumentError):
    decode(content)
  assert image_files.reason(content) == (
      f'{kind} of 20000 x 20000 pixels, 400 million, more than the limit of 179 million; '
      'resize it')
  assert Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
def test_bytes_decode_outside_of_a_graph_too(kind):
  content = encode(SMOOTH, kind)
  np.testing.assert_allclose(preprocess.decode_file(content, upright=True).numpy().astype(int),
                             of_pillow(content), rtol=0, atol=8)


def test_floats_of_neither_range_are_refused():
  values = np.linspace(0, 1.2, 63, dtype=np.float32).reshape(7, 9)
  with pytest.raises(ValueError, match=r'floats run from 0 to 1\.2, which is neither 0 \.\.\. 1 '):
    image_files.decode(encode(values, 'TIFF'), upright=True)


def test_where_0_is_white_16_bits_are_inverted(decode):
  black_is_0 = b'\x06\x01\x03\0\1\0\0\0\1\0'  # PhotometricInterpretation, one SHORT
  content = encode(DEEP, 'TIFF')
  assert content.count(black_is_0) == 1
  content = content.replace(black_is_0, black_is_0[:-2] + b'\0\0')
  np.testing.assert_array_equal(decode(content)[..., 0], (65_535 - DEEP.astype(int)) >> 8)
