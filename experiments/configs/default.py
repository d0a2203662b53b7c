"""Every key of a pretraining run, once, with its unit, source and range.

The values are the paper's for ResNet-50, 1000 epochs of ImageNet (Grill et al.
2020; section, appendix or table named at each key; "reference" is DeepMind's
implementation where the paper is silent). Other configs start from these and
override. Durations are in epochs, learning rates per 256 images: the run resolves
both from the size of the data set, prints them and saves them.

What a key can be stands after the last semicolon of its comment, in the words of the error that
any other value ends with (byol_jax/ranges.py; a test holds that they are the same). Numbers are
finite, and whole numbers fit in 32 bits.
"""

import ml_collections

from byol_jax.encoders import resnet
from byol_jax.errors import InputError
from byol_jax.optimizers import lars


def get_config() -> ml_collections.ConfigDict:
  """All keys, locked: an unknown key is an error."""
  config = ml_collections.ConfigDict()
  # Draws the parameters, the order of the images and the augmentations; a whole number of 0 or more
  config.seed = 0

  config.data = _data()
  config.model = _model()
  config.view1 = _view(blur_probability=1.0, solarize_probability=0.0)
  config.view2 = _view(blur_probability=0.1, solarize_probability=0.2)
  config.view_small = _small_view()
  config.train = _train()
  config.evals = _evals()
  config.log = ml_collections.ConfigDict(dict(
      # A line in the log, and the collapse statistics (0: none); a whole number of 0 or more
      every_steps=100,
  ))
  config.checkpoint = ml_collections.ConfigDict(dict(
      # A checkpoint; the last step always makes one, 0 only that; a number of 0 or more
      every_epochs=1.0,
      keep_last=2,  # newest checkpoints kept; a whole number of 1 or more
      # Besides, the best by knn/top1 on the validation split; a whole number of 0 or more
      keep_best=1,
  ))
  return config.lock()


def arguments(text: str, **defaults):
  """The values after the colon of `--config=FILE:name=value,name=value`.

  Args:
    text: what follows the colon; '' gives the defaults.
    **defaults: every name with its default, whose type the value takes.

  Raises:
    InputError: an unknown name, or a value of another type.
  """
  values = dict(defaults)
  for part in filter(None, (text or '').split(',')):
    name, _, value = part.partition('=')
    try:
      values[name] = type(defaults[name])(value)
    except (KeyError, ValueError):
      known = ', '.join(f'{key}={value}' for key, value in defaults.items())
      raise InputError(f'{part!r} after the colon of --config is not understood; there are, with '
                       f'their defaults: {known}.') from None
  return values


def tfds_options() -> ml_collections.ConfigDict:
  """Of byol_jax/datasets/tfds.py: any set of TensorFlow Datasets."""
  return ml_collections.ConfigDict(dict(
      # With config and version if wanted: 'imagenette/160px-v2'; a text
      name='imagenet2012',
      # None: TFDS's own folder; a path or None
      data_dir=ml_collections.config_dict.placeholder(str),
      train_split='train',  # in TFDS syntax, as are the next two; a text
      validation_split='',  # '': held out of train_split; a text or ''
      # '': none. ImageNet's public validation set is the test; a text or ''
      test_split='validation',
      # Images of train_split (appendix D.1), or 'first' (reference), or 'per_class': the
      # same number of each class, drawn by a hash (appendix D.1: SUN397, Pets, Caltech-101);
      # 'first', 'last' or 'per_class'
      held_out='last',
      held_out_images=10_009,  # (appendix C.1; reference 10,000); a whole number of 0 or more
      # At most this share of train_split; decides for small sets; a number in [0, 1)
      held_out_share=0.1,
      # Images of each class, with 'per_class', which needs 1 or more; a whole number of 0 or more
      held_out_per_class=0,
      # The set of which validation_split is, with the same classes ('': that of `name`);
      # a text or ''
      validation_name='',
      # A feature, such as 'file_name', by which images of validation_split that train_split
      # has too are left out of the validation ('': none are); a text or ''
      image_id_key='',
      # Share of the training images that is trained on; below 1 a class-balanced subset of
      # those that are not held out (appendix C.1, Figure 4: 0.01 to 1). A smaller share is
      # part of a larger one of the same seed; a number in (0, 1]
      subset_share=1.0,
      subset_seed=0,  # draws the subset; a whole number of 0 or more
      image_key='image',  # the feature that is the image; a text
      # The feature that is the label ('': unlabelled). A sequence of classes gives several for
      # an image; a text or ''
      label_key='label',
      # A sequence of classes of which those that label_key has not are not judged, as VOC2007
      # does not judge difficult objects ('': all are); a text or ''
      ignored_label_key='',
      # Encoded records that a virtual shard keeps to draw the next one from: with 64
      # shards 16,384 over all hosts; a whole number of 1 or more
      shuffle_buffer=256,
      download=False,  # prepare the set first, if TFDS can; True or False
      # Folder on this host, of a local disk or /dev/shm, into which the files of its shards
      # are copied before the first step, for storage that is slow (None: they are not);
      # a path or None
      cache_dir=ml_collections.config_dict.placeholder(str),
  ))


def stl10_options() -> ml_collections.ConfigDict:
  """Of byol_jax/datasets/stl10.py: the binary files of STL-10."""
  return ml_collections.ConfigDict(dict(
      folder='stl10_binary',  # of the files; a path
      unlabelled=True,  # the 100,000 images without labels, for pretraining; True or False
      # A predefined fold (None: all 5,000 images); a whole number in [0, 9] or None
      fold=ml_collections.config_dict.placeholder(int),
      validation_share=0.1,  # of the training images, held out; a number in [0, 1)
      # Of the other labelled images, below 1 a class-balanced subset; a number in (0, 1]
      subset_share=1.0,
      subset_seed=0,  # draws the subset; a whole number of 0 or more
  ))


def image_folder_options() -> ml_collections.ConfigDict:
  """Of byol_jax/datasets/image_folder.py: folders of image files."""
  return ml_collections.ConfigDict(dict(
      train='images',  # folder of the training images; a path
      # Folder of held-out images (None: drawn from `train`); a path or None
      validation=ml_collections.config_dict.placeholder(str),
      # Folder of test images (None: there are none); a path or None
      test=ml_collections.config_dict.placeholder(str),
      # 'folders': one subfolder per class, 'none': unlabelled; 'folders' or 'none'
      labels='folders',
      # Of the images in `train`, unless `validation` is given; a number in [0, 1)
      validation_share=0.1,
      # Turn images as their EXIF says, or take them as they are stored; True or False
      exif_orientation=True,
      # Of the other training images, below 1 a class-balanced subset; a number in (0, 1]
      subset_share=1.0,
      subset_seed=0,  # draws the subset; a whole number of 0 or more
  ))


def retrieval_options() -> ml_collections.ConfigDict:
  """Of byol_jax/datasets/retrieval.py: images of identities, with queries and a gallery."""
  return ml_collections.ConfigDict(dict(
      # 'csv': files with the columns path,id,camera; 'folders': a subfolder per identity;
      # 'veri': VeRi-776; 'veri_wild': VERI-Wild; 'csv', 'folders', 'veri' or 'veri_wild'
      format='csv',
      # Folder of the benchmarks, for 'veri' and 'veri_wild'; a path or None
      root=ml_collections.config_dict.placeholder(str),
      # Own CSV file or folder; a path or None
      query=ml_collections.config_dict.placeholder(str),
      # Likewise; a path or None
      gallery=ml_collections.config_dict.placeholder(str),
      # Likewise, identities not needed; 'gallery': its images, for an evaluation; a path or None
      train=ml_collections.config_dict.placeholder(str),
      test_size=3000,  # identities in the test of VERI-Wild; 3000, 5000 or 10000
      labels='identities',  # 'none' for pretraining; 'identities' or 'none'
      validation_share=0.1,  # of the training images, held out; a number in [0, 1)
      # Turn images as their EXIF says, or take them as they are stored; True or False
      exif_orientation=True,
  ))


def _data() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      dataset='shapes',  # a module of byol_jax/datasets or a dotted path
      options=ml_collections.ConfigDict(dict(), convert_dict=True),  # of its load function
      # 'memory': images of one size are held in memory as uint8 and cropped on the
      # device. 'device': the same, held on each device, which gets only their numbers.
      # 'tf_data': tf.data reads, decodes and crops on the host; 'memory', 'device' or 'tf_data'
      pipeline='memory',
      # Images that tf_data decodes at once (0: as many as it finds useful);
      # a whole number of 0 or more
      workers=0,
      # An image file that cannot be read: 'stop' with its name, or 'skip' it, name it
      # in the log and fill its place in the batch with another image; 'stop' or 'skip'
      unreadable='stop',
      # Files that have changed since the run was begun: 'stop' says which, or 'accept' goes on
      # with them, although images that were held out may be trained on from then;
      # 'stop' or 'accept'
      changed_files='stop',
      image_size=224,  # pixels, side of a view (appendix B); a whole number in [1, 65535]
      # How tf_data resizes training crops: 'bicubic' (appendix B), or 'bilinear', which is
      # faster. Evaluation is always bicubic, and so are the crops of memory and device;
      # 'bicubic' or 'bilinear'
      resize='bicubic',
      # The view for evaluation: the middle square of this share of the shorter side
      # (224 of 256 pixels, appendix B), ...; a number in [0.01, 1]
      center_share=0.875,
      # ... resized before it is cut ('resize_first', appendix B) or after
      # ('crop_first', reference); 'resize_first' or 'crop_first'
      center_order='resize_first',
      # The order of the images is drawn within this many fixed shards, of which each
      # host owns an equal part. It must divide the batch, and the hosts must divide it;
      # a whole number of 1 or more
      virtual_shards=8,
  ))


def _model() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      encoder='resnet',  # a module of byol_jax/encoders or a dotted path
      encoder_options=dict(resnet.OPTIONS),
      # Layer sizes (section 3.3); one or more whole numbers of 1 or more
      projector=(4096, 256),
      # Layer sizes (section 3.3), () for none (Table 5b); any number of whole numbers of 1 or more
      predictor=(4096, 256),
      # Another predictor for small views (view_small), () for the same;
      # any number of whole numbers of 1 or more
      small_predictor=(),
      # 'batch', over all devices, or 'group': GroupNorm with standardized convolution weights,
      # without statistics of the batch (arXiv 2010.10241); 'batch' or 'group'
      normalization='batch',
      # Times Haiku's initial weights, std 1 / sqrt(inputs), sqrt(2) for He's;
      # a number in [0.0001, 1000]
      initial_scale=1.0,
      batch_norm_decay=0.9,  # of the running statistics (reference); a number in [0, 0.9999]
      batch_norm_epsilon=1e-5,  # added to the variance (reference); a number in [1e-12, 1]
      # Parameters stay float32 under bfloat16; 'float32', 'bfloat16' or 'float64'
      compute_dtype='float32',
      # Per channel, of ImageNet, images in [0, 1] (appendix B); three numbers in [-1000, 1000]
      image_mean=(0.485, 0.456, 0.406),
      image_std=(0.229, 0.224, 0.225),  # likewise; three numbers in [0.001, 1000]
  ))


def _view(blur_probability: float, solarize_probability: float) -> ml_collections.ConfigDict:
  """One view's policy (Table 6); details in which the reference decides: augment/."""
  return ml_collections.ConfigDict(dict(
      # Share of the image, uniform; two numbers in [0.0001, 1], ascending
      crop_area=(0.08, 1.0),
      # Width / height, log-uniform; two numbers in [0.01, 100], ascending
      crop_aspect=(3 / 4, 4 / 3),
      flip_probability=0.5,  # a number in [0, 1]
      jitter_probability=0.8,  # a number in [0, 1]
      brightness=0.4,  # added, U[-.4, .4]; a number in [0, 1]
      contrast=0.4,  # factor U[.6, 1.4]; a number in [0, 1]
      saturation=0.2,  # factor U[.8, 1.2]; a number in [0, 1]
      hue=0.1,  # turns added, U[-.1, .1]; a number in [0, 0.5]
      grayscale_probability=0.2,  # a number in [0, 1]
      blur_probability=blur_probability,  # a number in [0, 1]
      # Kernel size = image height / 10 (23 taps at 224); a number in [0.5, 1000]
      blur_divider=10.0,
      blur_sigma=(0.1, 2.0),  # pixels, uniform; two numbers in [0.01, 1000], ascending
      solarize_probability=solarize_probability,  # a number in [0, 1]
      solarize_threshold=0.5,  # pixels at or above it are inverted; a number in [0, 1]
  ))


def _small_view() -> ml_collections.ConfigDict:
  """The policy of small views (multi-crop; SwAV, arXiv 2006.09882, section 4.1: crops, sizes)."""
  config = _view(blur_probability=0.5, solarize_probability=0.1)  # means of the two large views
  config.update(
      # Small views per image (SwAV: 6), each with a pass through the online network;
      # a whole number in [0, 100]
      count=0,
      image_size=96,  # pixels, side; a whole number in [1, 65535]
      # SwAV leaves (0.14, 1.0) to the large ones; two numbers in [0.0001, 1], ascending
      crop_area=(0.05, 0.14),
  )
  return config


def _train() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      objective='byol',  # a module of byol_jax/objectives or a dotted path
      objective_options=ml_collections.ConfigDict(dict(), convert_dict=True),  # of its loss
      epochs=1000.0,  # passes over the training images (section 3.3); a number above 0
      # Images per step over all devices (section 3.3); a whole number of 1 or more
      batch_size=4096,
      base_learning_rate=0.2,  # per 256 images (section 3.3); a number of 0 or more
      # Linear from 0, shorter than the run (section 3.3); a number of 0 or more
      warmup_epochs=10.0,
      optimizer='lars',  # a module of byol_jax/optimizers or a dotted path
      optimizer_options=dict(lars.OPTIONS),
      # Of the learning rate in the heads (Tables 21 and 22); encoder and classifier have 1.
      learning_rate_multipliers=dict(
          projector=1.0,  # a number in [0, 1000]
          predictor=1.0,  # a number in [0, 1000]
      ),
      base_tau=0.996,  # of the target's moving average (section 3.3); a number in [0, 1]
      # To 1 (section 3.3), or constant (Table 5a, tau 0); 'cosine' or 'constant'
      tau_schedule='cosine',
      # What is predicted: the projection by the 'moving_average' (section 3.1), by the
      # online network without gradients ('stop_gradient') or with them ('none', Table 19);
      # 'moving_average', 'stop_gradient' or 'none'
      target='moving_average',
      # Of BatchNorm in the target: of the 'batch' (reference), or a 'moving_average', with tau, of
      # the online network's (EMAN, arXiv 2101.08482); 'batch' or 'moving_average'
      target_statistics='batch',
      # Batch size that base_tau is for: tau is taken to the power batch_size / base_batch_size
      # (arXiv 2307.13813). The learning rate is linear in the batch anyway. 0: tau as it is;
      # a whole number of 0 or more
      base_batch_size=0,
      # Parts of a batch that go through the networks one after another, and whose gradients
      # are averaged: for batches that do not fit. BatchNorm sees one part at a time
      # (Figure 3a). Parts and batch_size fix the result, not the number of devices;
      # a whole number of 1 or more
      accumulation_steps=1,
      # Steps that a device makes by itself for each call of the host, on GPU and TPU: with
      # small networks the host is slower than they are. Logs, checkpoints and evaluations
      # come after the dispatch of their step, and a request to stop is heard some dispatches
      # later. The steps that are left at the end are made one by one. On CPU it only takes
      # longer to compile; a whole number of 1 or more
      steps_per_dispatch=1,
      # Ends the run at this step, with a checkpoint, as an interruption would: the
      # schedules are those of all epochs, and the same command with 0 goes on;
      # a whole number of 0 or more
      stop_at_step=0,
  ))


def _evals() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      # kNN on the validation split during the run, 0 turns it off; a number of 0 or more
      every_epochs=10.0,
      batch_size=256,  # images per step over all devices; a whole number of 1 or more
      knn=dict(
          # Neighbours, at most the training images (Wu et al. 2018, section 3.4);
          # a whole number of 1 or more
          k=200,
          temperature=0.07,  # of their votes (likewise); a number above 0
      ),
      # Configs of the evaluations that a sweep makes of the last checkpoint;
      # any number of texts, each once
      afterwards=('experiments/configs/eval/linear_features.py',),
  ))
