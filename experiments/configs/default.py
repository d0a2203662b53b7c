"""Every key of a pretraining run, defined once, with its unit, source and range.

The values are the paper's for ResNet-50 and 1000 epochs of ImageNet (Grill et al. 2020). Each
comment names the section, appendix or table; "reference" means DeepMind's implementation, used
where the paper is silent. Other configs start from these values and override some of them.
Durations are in epochs and learning rates per 256 images. The run converts both for the size of
the data set and the batch, prints the results and saves them.

The text after the last semicolon of a key's comment says which values it accepts. The error for
any other value uses the same words (byol_jax/ranges.py; a test compares the two). Numbers are
finite, and whole numbers fit in 32 bits.
"""

import ml_collections

from byol_jax.encoders import resnet
from byol_jax.errors import InputError
from byol_jax.optimizers import lars


def get_config() -> ml_collections.ConfigDict:
  """All keys, locked: an unknown key is an error."""
  config = ml_collections.ConfigDict()
  # Seeds the parameters, image order and augmentations; a whole number of 0 or more
  config.seed = 0

  config.data = _data()
  config.model = _model()
  config.view1 = _view(blur_probability=1.0, solarize_probability=0.0)
  config.view2 = _view(blur_probability=0.1, solarize_probability=0.2)
  config.view_small = _small_view()
  config.train = _train()
  config.evals = _evals()
  config.log = ml_collections.ConfigDict(dict(
      # Steps between log lines and collapse statistics (0: none); a whole number of 0 or more
      every_steps=100,
  ))
  config.checkpoint = ml_collections.ConfigDict(dict(
      # Epochs between checkpoints (0: only at the last step, which is always saved);
      # a number of 0 or more
      every_epochs=1.0,
      keep_last=2,  # number of newest checkpoints to keep; a whole number of 1 or more
      # Also keep this many, the best by knn/top1 on the validation split;
      # a whole number of 0 or more
      keep_best=1,
  ))
  return config.lock()


def arguments(text: str, **defaults):
  """The values after the colon of `--config=FILE:name=value,name=value`.

  Args:
    text: the text after the colon; '' gives the defaults.
    **defaults: every name with its default; a value is converted to the type of its default.

  Raises:
    InputError: an unknown name, or a value of the wrong type.
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


def _data() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      dataset='shapes',  # a module of byol_jax/datasets or a dotted path
      options=ml_collections.ConfigDict(dict(), convert_dict=True),  # its OPTIONS
      # 'memory': images of one size are held in host memory as uint8 and cropped on the
      # device. 'device': they are held on each device, which is sent only image indices.
      # 'tf_data': tf.data reads, decodes and crops on the host; 'memory', 'device' or 'tf_data'
      pipeline='memory',
      # Images that tf_data decodes in parallel (0: tf.data decides);
      # a whole number of 0 or more
      workers=0,
      # If an image file cannot be read: 'stop' with its name, or 'skip' it, name it in the
      # log and use another image of the batch in its place; 'stop' or 'skip'
      unreadable='stop',
      # If files have changed since the run was started: 'stop' and name them, or 'accept' and
      # go on, although images that were held out may then be trained on;
      # 'stop' or 'accept'
      changed_files='stop',
      image_size=224,  # pixels, side of a view (appendix B); a whole number in [1, 65535]
      # How tf_data resizes training crops: 'bicubic' (appendix B), or 'bilinear', which is
      # faster. Evaluation and the pipelines memory and device always use bicubic;
      # 'bicubic' or 'bilinear'
      resize='bicubic',
      # Side of the centre crop for evaluation, as a share of the image's shorter side
      # (224 of 256 pixels, appendix B); a number in [0.01, 1]
      center_share=0.875,
      # Whether the image is resized before the centre crop ('resize_first', appendix B) or
      # after it ('crop_first', reference); 'resize_first' or 'crop_first'
      center_order='resize_first',
      # Number of fixed shards within which the images are shuffled. Each host owns an equal
      # part of them. It must divide the batch size and be a multiple of the number of hosts;
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
      # Whether the projector ends in a normalisation without scale and offset (SimSiam, arXiv
      # 2011.10566, section 3; MoCo v3, arXiv 2104.02057); True or False
      projector_output_norm=False,
      predictor_output_norm=False,  # likewise the predictor (MoCo v3 for ViT); True or False
      # Layer sizes of a separate predictor for small views (view_small), () to share one;
      # any number of whole numbers of 1 or more
      small_predictor=(),
      # 'batch': BatchNorm over all devices. 'group': GroupNorm with standardized convolution
      # weights and no batch statistics (arXiv 2010.10241); 'batch' or 'group'
      normalization='batch',
      # Factor for Haiku's initial weights, whose std is 1 / sqrt(inputs); sqrt(2) gives He's;
      # a number in [0.0001, 1000]
      initial_scale=1.0,
      batch_norm_decay=0.9,  # of the running statistics (reference); a number in [0, 0.9999]
      batch_norm_epsilon=1e-5,  # added to the variance (reference); a number in [1e-12, 1]
      # With bfloat16 the parameters stay float32; 'float32', 'bfloat16' or 'float64'
      compute_dtype='float32',
      # ImageNet's, per channel, images in [0, 1] (appendix B); three numbers in [-1000, 1000]
      image_mean=(0.485, 0.456, 0.406),
      image_std=(0.229, 0.224, 0.225),  # likewise; three numbers in [0.001, 1000]
  ))


def _view(blur_probability: float, solarize_probability: float) -> ml_collections.ConfigDict:
  """Augmentation of one view (Table 6); byol_jax/augment has what the reference decides."""
  return ml_collections.ConfigDict(dict(
      # Share of the image's area, uniform; two numbers in [0.0001, 1], ascending
      crop_area=(0.08, 1.0),
      # Width / height, log-uniform; two numbers in [0.01, 100], ascending
      crop_aspect=(3 / 4, 4 / 3),
      flip_probability=0.5,  # a number in [0, 1]
      jitter_probability=0.8,  # a number in [0, 1]
      brightness=0.4,  # U[-.4, .4] is added; a number in [0, 1]
      contrast=0.4,  # factor from U[.6, 1.4]; a number in [0, 1]
      saturation=0.2,  # factor from U[.8, 1.2]; a number in [0, 1]
      hue=0.1,  # U[-.1, .1] turns are added; a number in [0, 0.5]
      grayscale_probability=0.2,  # a number in [0, 1]
      blur_probability=blur_probability,  # a number in [0, 1]
      # Kernel size is image height / this (23 taps at 224); a number in [0.5, 1000]
      blur_divider=10.0,
      blur_sigma=(0.1, 2.0),  # pixels, uniform; two numbers in [0.01, 1000], ascending
      solarize_probability=solarize_probability,  # a number in [0, 1]
      solarize_threshold=0.5,  # pixels at or above it are inverted; a number in [0, 1]
  ))


def _small_view() -> ml_collections.ConfigDict:
  """Augmentation of small views (multi-crop); sizes, crops: SwAV, arXiv 2006.09882, section 4.1."""
  config = _view(blur_probability=0.5, solarize_probability=0.1)  # means of the two large views
  config.update(
      # Small views per image (SwAV: 6); each takes a pass through the online network;
      # a whole number in [0, 100]
      count=0,
      image_size=96,  # pixels, side of a small view; a whole number in [1, 65535]
      # As for a view; SwAV's large views use (0.14, 1.0); two numbers in [0.0001, 1], ascending
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
      # Linear from 0; must be shorter than the run (section 3.3); a number of 0 or more
      warmup_epochs=10.0,
      optimizer='lars',  # a module of byol_jax/optimizers or a dotted path
      optimizer_options=dict(lars.OPTIONS),
      # Factors for the learning rate of some parameters (of the heads: Tables 21 and 22). They
      # multiply each other and the optimizer's step; all other parameters have 1.
      learning_rate_multipliers=dict(
          projector=1.0,  # a number in [0, 1000]
          predictor=1.0,  # a number in [0, 1000]
          # Biases and normalisation parameters of all modules. LARS moves them at the full
          # rate, without its trust ratio; a number in [0, 1000]
          biases_and_norms=1.0,
      ),
      # Keeps the predictor at the peak learning rate in warm-up and decay, except in steps whose
      # learning rate is 0 (SimSiam, arXiv 2011.10566, section 4.2); True or False
      constant_predictor_rate=False,
      base_tau=0.996,  # of the target's moving average (section 3.3); a number in [0, 1]
      # 'cosine': rises to 1 (section 3.3); 'constant' (Table 5a, tau 0); 'cosine' or 'constant'
      tau_schedule='cosine',
      # Which projection is predicted: that of the 'moving_average' (section 3.1), or that of
      # the online network, without gradients ('stop_gradient') or with them ('none', Table 19);
      # 'moving_average', 'stop_gradient' or 'none'
      target='moving_average',
      # BatchNorm statistics of the target: of the current 'batch' (reference), or a
      # 'moving_average', with tau, of the online network's (EMAN, arXiv 2101.08482);
      # 'batch' or 'moving_average'
      target_statistics='batch',
      # Batch size that base_tau is meant for: tau is raised to batch_size / base_batch_size
      # (arXiv 2307.13813). The learning rate scales with the batch in any case. 0: do not
      # change tau; a whole number of 0 or more
      base_batch_size=0,
      # For batches that do not fit: number of parts of a batch that go through the networks
      # one after another and whose gradients are averaged. BatchNorm sees one part at a time
      # (Figure 3a). The result depends on batch_size and this, not on the number of devices;
      # a whole number of 1 or more
      accumulation_steps=1,
      # Steps that a GPU or TPU runs per call from the host; small networks are faster than the
      # host. Logs, checkpoints and evaluations wait for the end of their dispatch, and a
      # request to stop takes effect some dispatches later. Steps left over at the end run one
      # by one. On CPU this only makes compilation slower; a whole number of 1 or more
      steps_per_dispatch=1,
      # Ends the run at this step, with a checkpoint, as an interruption would. The schedules
      # remain those of the full run, and the same command with 0 continues it;
      # a whole number of 0 or more
      stop_at_step=0,
  ))


def _evals() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      # Epochs between evaluations on the validation split: kNN, if there are labels, and the
      # spectrum of the embeddings. The first step is evaluated too (0: none);
      # a number of 0 or more
      every_epochs=10.0,
      batch_size=256,  # images per step over all devices; a whole number of 1 or more
      knn=dict(
          # Neighbours, at most the number of training images (Wu et al. 2018, section 3.4);
          # a whole number of 1 or more
          k=200,
          temperature=0.07,  # of their votes (likewise); a number above 0
      ),
      # Configs of the evaluations that a sweep runs on the last checkpoint;
      # any number of texts, each once
      afterwards=('experiments/configs/eval/linear_features.py',),
  ))
