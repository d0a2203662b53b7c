"""Decodes with Pillow the image files that TensorFlow does not decode, by their content.

File extensions decide which files of a folder are images. The content of a file decides how it is
decoded. If nothing can decode it, `reason` says what the file contains instead.
"""

import contextlib
import io
import struct
import threading
from types import MappingProxyType

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from byol_jax.input_pipeline import file_kinds

with contextlib.suppress(ImportError):
  import pillow_heif
  pillow_heif.register_heif_opener()

ENDINGS = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.bmp', '.webp', '.tif', '.tiff')
_HEIF = 'pip install pillow-heif to read them, or convert them to JPEG'
# For images that only some installations can read: what to install.
OPTIONAL = MappingProxyType({
    '.avif': 'pip install "pillow>=11.3" to read them, or convert them to JPEG',
    '.heic': _HEIF, '.heif': _HEIF, '.hif': _HEIF})
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'AVIF', 'HEIF')
# The largest image: TensorFlow's limit for a JPEG, 2 ** 29 bytes of RGB, half a gigabyte.
MOST_PIXELS = 2 ** 29 // 3
# How ImageMagick wrote EXIF into PNG before PNG had a chunk for it.
_RAW_EXIF = b'Raw profile type exif'
# Start of a JPEG's pixels, end of the image, a byte that is not a marker, end of the file.
_NO_SEGMENTS = (b'\xda', b'\xd9', b'\0', b'')
# The TIFF tag for the number format of the bands, and its values.
_SAMPLE_FORMAT = 339
_TIFF_NUMBERS = {1: 'whole numbers', 2: 'signed whole numbers', 3: 'floats', 5: 'complex numbers',
                 6: 'complex floats'}
# Types of EXIF fields: BYTE, SHORT, LONG.
_KINDS = {1: 'B', 3: 'H', 4: 'I'}

# First bytes by which a file that Pillow cannot decode is still recognised as an image.
_BEGINNINGS = ((b'\xff\xd8\xff', 'JPEG'), (b'\x89PNG', 'PNG'), (b'GIF8', 'GIF'), (b'BM', 'BMP'),
               (b'RIFF', 'WebP'), (b'II*\0', 'TIFF'), (b'MM\0*', 'TIFF'))
_HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
_UNDO = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
         4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
         6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_270}
_LIMIT = threading.Lock()


def endings() -> tuple[str, ...]:
  """The extensions, in lower case, of the files that this installation can decode."""
  known = Image.registered_extensions()
  return ENDINGS + tuple(ending for ending in OPTIONAL if ending in known)


def decode(content: bytes, *, upright: bool) -> np.ndarray:
  """The first frame of an image file, uint8 [H, W, 3].

  Transparency is dropped. Of 16 bits, the upper 8 are kept. Floats and 32-bit integers have no
  defined range: floats up to 1 are multiplied by 255, other values up to 255 are kept, and
  integers up to 65,535 are read as 16 bits.

  Args:
    content: content of the file.
    upright: whether to rotate the image according to its EXIF orientation; otherwise it is
      returned as stored.

  Raises:
    ValueError: the file cannot be decoded; the message says why.
  """
  if not content:
    raise ValueError('the file is empty')
  try:
    image = _opened(content)
  # Pillow's readers raise errors of many kinds, including struct.error and SyntaxError.
  except Exception as error:
    raise ValueError(_what_else(content)) from error
  width, height = image.size
  found = f'{image.format} of {width} x {height} pixels'
  if width * height > MOST_PIXELS:
    raise ValueError(f'{found}, {width * height / 1e6:.0f} million, more than the limit of '
                     f'{MOST_PIXELS / 1e6:.0f} million; resize it')
  try:
    return _rgb(_turned(image, upright), _white_is_0(image))
  except Exception as error:
    raise ValueError(f'{found} that cannot be decoded: {error or type(error).__name__}') from error


def orientation(content: bytes) -> int:
  """The EXIF orientation of an image file, 1 ... 8; 1, upright, if it has none."""
  try:
    return _orientation(_opened(content))
  # An image with invalid EXIF can still be valid.
  except Exception:
    return 1


def route(content: bytes) -> int:
  """Decides how a file is decoded.

  Returns:
    0 if Pillow decodes the file, as `decode` does; otherwise TensorFlow decodes it, and the
    value is its EXIF orientation, 1 ... 8.
  """
  if content[:3] == b'\xff\xd8\xff':
    return _jpeg_orientation(content)
  if content[:4] == b'RIFF' and content[8:12] == b'WEBP' and len(content) > 30:
    return _of_webp(content)
  width = height = 0
  turn = 1
  if content[:8] == b'\x89PNG\r\n\x1a\n' and len(content) > 24:
    width, height = struct.unpack_from('>II', content, 16)
    turn = orientation(content) if b'eXIf' in content or _RAW_EXIF in content else 1
  elif content[:4] == b'GIF8' and len(content) > 10:
    width, height = struct.unpack_from('<HH', content, 6)
  elif content[:2] == b'BM' and len(content) > 34:
    header, *sides, _, bits, packed = struct.unpack_from('<IiiHHI', content, 14)
    if header >= 40 and bits == 24 and not packed:
      width, height = map(abs, sides)
  return turn if 0 < width * height <= MOST_PIXELS else 0


def _of_webp(content: bytes) -> int:
  """`route` of a WebP: animations can crash TensorFlow; transparent images get 4 channels there."""
  kind, flags = content[12:16], content[20]
  extended = kind == b'VP8X'
  if extended and flags & (2 | 16) or kind == b'VP8L' and content[24] & 16:
    return 0
  return orientation(content) if extended and flags & 8 else 1


def _jpeg_orientation(content: bytes) -> int:
  """Goes from segment to segment up to the pixels; takes a tenth of Pillow's time."""
  at = 2
  while content[at:at + 1] == b'\xff':
    marker = content[at + 1:at + 2]
    if marker == b'\xff':
      # Fill bytes may come before any marker.
      at += 1
      continue
    if marker in _NO_SEGMENTS:
      break
    size = int.from_bytes(content[at + 2:at + 4])
    if marker == b'\xe1' and content[at + 4:at + 10] == b'Exif\0\0':
      return _tiff_orientation(content[at + 10:at + 2 + size])
    at += 2 + size
  return 1


def reason(content: bytes) -> str:
  """Why a file could not be decoded, as part of a sentence."""
  try:
    decode(content, upright=False)
  except ValueError as error:
    return str(error)
  return f'{_opened(content).format} in a form that TensorFlow cannot decode; save it again'


def _opened(content: bytes) -> Image.Image:
  """Opens an image and reads only its header."""
  Image.init()
  # Pillow's own limit would hide the size; `decode` has its own limit.
  with _LIMIT:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      return Image.open(io.BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN])
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
  found = image.getexif().get(ExifTags.Base.Orientation, 1)
  return found if found in range(1, 9) else 1


def _tiff_orientation(payload: bytes) -> int:
  """The orientation tag in the first directory of TIFF data, 1 ... 8; 1 if there is none."""
  order, found = {b'II*\0': '<', b'MM\0*': '>'}.get(payload[:4], ''), 1
  with contextlib.suppress(struct.error):
    (start,) = struct.unpack_from(f'{order}I', payload, 4)
    (count,) = struct.unpack_from(f'{order}H', payload, start)
    for at in range(start + 2, start + 2 + 12 * count, 12) if order else ():
      tag, kind, values = struct.unpack_from(f'{order}HHI', payload, at)
      if tag == ExifTags.Base.Orientation and values == 1 and kind in _KINDS:
        (found,) = struct.unpack_from(order + _KINDS[kind], payload, at + 8)
  return found if 1 <= found <= 8 else 1


def _turned(image: Image.Image, upright: bool) -> Image.Image:
  stored = _orientation(image)
  image.load()
  if upright:
    return ImageOps.exif_transpose(image)
  # Some versions of Pillow rotate a TIFF when they load it.
  done = stored != 1 and _orientation(image) == 1
  return image.transpose(_UNDO[stored]) if done else image


def _white_is_0(image: Image.Image) -> bool:
  """Whether 16-bit values are stored inverted, which Pillow does not correct."""
  return image.format == 'TIFF' and image.mode.startswith('I;16') and (
      image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0)


def _rgb(image: Image.Image, white_is_0: bool) -> np.ndarray:
  if image.mode not in ('I', 'F') and not image.mode.startswith('I;16'):
    return np.asarray(image.convert('RGB'))
  values = np.asarray(image)
  if white_is_0:
    values = 65_535 - values
  low, high = values.min(), values.max()
  if not (low >= 0 and high <= (255 if image.mode == 'F' else 65_535)):
    raise ValueError(f'its values run from {low:g} to {high:g}; floats must lie in 0 ... 1 or '
                     '0 ... 255, integers in 0 ... 65535')
  # For values between the two ranges, the intended range is unknown.
  if image.mode == 'F' and 1 < high < 16 and np.any(values != np.rint(values)):
    raise ValueError(f'its floats run from {low:g} to {high:g}, which is neither 0 ... 1 nor '
                     '0 ... 255; scale them')
  if image.mode == 'F':
    gray = np.rint(values * 255 if high <= 1 else values)
  else:
    gray = values if image.mode == 'I' and high <= 255 else values >> 8
  return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)


def _what_else(content: bytes) -> str:
  """What a file contains that Pillow does not recognise as an image."""
  if content[4:8] == b'ftyp':
    return _of_boxes(content[8:12])
  for beginning, name in _BEGINNINGS:
    if content.startswith(beginning):
      return _of_bands(content) or (
          f'it begins like {name} but is truncated, damaged or in a form that Pillow cannot '
          f'decode ({len(content)} bytes)')
  if not any(content):
    return f'it consists of {len(content)} zero bytes'
  kind = file_kinds.kind_of(io.BytesIO(content))
  if kind == file_kinds.TEXT:
    words = content[:1000].decode('utf-8', 'replace').split()
    return f'its content is text: {" ".join(words)[:40]!r}'
  if kind != file_kinds.UNKNOWN:
    return f'its content is {kind}'
  return f'its first bytes, {content[:8].hex(" ")}, match no supported image format'


def _of_bands(content: bytes) -> str:
  """The pixel format of a TIFF; '' for other files and if its directory cannot be read."""
  # Pillow's reader raises errors of many kinds.
  with contextlib.suppress(Exception):
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    file = io.BytesIO(content)
    file.seek(directory.next)
    directory.load(file)
    count = directory.get(ExifTags.Base.SamplesPerPixel, 1)
    bits = directory[ExifTags.Base.BitsPerSample][0]
    kind = _TIFF_NUMBERS[directory.get(_SAMPLE_FORMAT, (1,))[0]]
    bands = f'{count} band{"s" if count > 1 else ""} of {bits}-bit {kind}'
    return (f'it is a TIFF with {bands} per pixel, which is not supported; save it as gray or '
            'RGB of 8 or 16 bits, or as one band of 32-bit floats')
  return ''


def _of_boxes(brand: bytes) -> str:
  """What a file of the MP4 family is; HEIC and AVIF belong to this family."""
  if brand in _HEIF_BRANDS:
    return 'its content is HEIC; pip install pillow-heif to read it, or convert it to JPEG'
  if brand in (b'avif', b'avis'):
    return 'its content is AVIF, damaged or not supported by this Pillow (11.3 or newer reads it)'
  return f'its content is a video or another file of the MP4 family ({brand.decode("latin-1")!r})'
