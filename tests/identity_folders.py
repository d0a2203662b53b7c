"""Folders of identities as users and benchmarks lay them out, of real JPEG files."""

import numpy as np
from PIL import Image

# Identity, camera and number of each image; 7 and 8 are for training, 3 is in one camera only,
# 4 is a query that the gallery has not.
QUERY = [(1, 1, 0), (2, 2, 0), (3, 1, 0), (4, 1, 0)]
GALLERY = [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 3, 2), (3, 1, 1), (5, 2, 0)]
TRAIN = [(7, 1, 0), (7, 2, 1), (7, 3, 2), (8, 1, 0), (8, 2, 1), (8, 3, 2), (9, 1, 0), (9, 2, 1),
         (9, 3, 2), (9, 4, 3)]
PARTS = dict(query=QUERY, gallery=GALLERY, train=TRAIN)


def picture(identity, camera, number):
  """16 x 12 pixels of the identity's colour, a little different in each image."""
  random = np.random.default_rng((identity, camera, number))
  colour = np.random.default_rng(identity).integers(0, 256, 3)
  return np.clip(colour + random.normal(0, 12, (12, 16, 3)), 0, 255).astype(np.uint8)


def write(path, *image):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture(*image)).save(path, quality=95)


def write_csv(root, camera=True, name='{}.csv'):
  """A CSV file per part beside images in folders of their own; its columns in another order."""
  for part, images in PARTS.items():
    lines = ['id,path' + ',camera' * camera]
    for identity, seen_by, number in images:
      path = f'{part} images/{identity}-{number}.jpg'
      write(root / path, identity, seen_by, number)
      lines.append(f'v{identity},{path}' + f',c{seen_by}' * camera)
    (root / name.format(part)).write_text('\n'.join(lines) + '\n')


def write_folders(root):
  for part, images in PARTS.items():
    for identity, camera, number in images:
      write(root / part / f'car {identity}' / f'{number}.jpg', identity, camera, number)


def write_veri(root):
  """As VeRi-776 names them; the queries are in image_test too, as there."""
  folders = dict(image_query=QUERY, image_test=QUERY + GALLERY, image_train=TRAIN)
  for folder, images in folders.items():
    for identity, camera, number in images:
      write(root / folder / f'{identity:04d}_c{camera:03d}_{number:08d}_0.jpg', identity, camera,
            number)


def write_veri_wild(root, size=3000, with_camera=False):
  """As VERI-Wild lists them; with the camera in each line as its other lists do."""
  split = root / 'train_test_split'
  split.mkdir(parents=True)
  info = ['id/image;Camera ID;Time;Model;Type;Color']
  ending = '_id' * with_camera
  files = dict(query=f'test_{size}{ending}_query.txt', gallery=f'test_{size}{ending}.txt',
               train='train_list.txt')
  for part, images in PARTS.items():
    lines = []
    for identity, camera, number in images:
      name = f'{identity:05d}/{100 * identity + number:06d}'
      write(root / 'images' / f'{name}.jpg', identity, camera, number)
      info.append(f'{name};{camera};2018-03-11 08:36:00;Audi;SUV;white')
      lines.append(f'{name}.jpg {identity} {camera}' if with_camera else name)
    (split / files[part]).write_text('\n'.join(lines) + '\n')
  if not with_camera:
    (split / 'vehicle_info.txt').write_text('\n'.join(info) + '\n')
