"""Times a plain PyTorch step of BYOL, to compare with `experiments.benchmark step`.

  python -m experiments.benchmark_torch --depth=50 --image_size=224 --batch_size=256 \\
      --dtype=bfloat16 [--stem=small] [--repeats=5] [--nocompile] [--notf32] [--device=cuda]

The networks, the loss, LARS and the moving average are those of the paper, in the usual style
of PyTorch: channels_last, autocast, torch.compile, foreach operations. Views are random and
already on the device. Nothing is augmented, so compare its rate with our step minus our views.
Prints one JSON line. Needs PyTorch, which the package does not.
"""

import copy
import json
import statistics
import time

from absl import app, flags
import torch
from torch import nn
import torch.nn.functional as F

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
          101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
STEPS = 8

flags.DEFINE_enum('depth', '50', [str(depth) for depth in BLOCKS], 'Depth of the ResNet.')
flags.DEFINE_float('width', 1., 'Multiplies the channels of the ResNet.')
flags.DEFINE_enum('stem', 'imagenet', ['imagenet', 'small'], '7x7 with pooling, or 3x3.')
flags.DEFINE_integer('image_size', 224, 'Pixels.', lower_bound=1)
flags.DEFINE_integer('batch_size', 256, 'Images.', lower_bound=2)
flags.DEFINE_integer('hidden', 4096, 'Hidden units of projector and predictor.', lower_bound=1)
flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Dtype of the networks (autocast).')
flags.DEFINE_bool('tf32', True, 'Use TF32 for float32, as JAX does on a GPU.')
flags.DEFINE_bool('compile', True, 'Use torch.compile.')
flags.DEFINE_integer('repeats', 5, f'Timed runs of {STEPS} steps.', lower_bound=1)
flags.DEFINE_string('device', 'cuda' if torch.cuda.is_available() else 'cpu', 'PyTorch device.')


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with a bottleneck."""

  def __init__(self, channels, features, stride, bottleneck):
    super().__init__()
    inner, out = features, features * (4 if bottleneck else 1)
    shapes = ([(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
              if bottleneck else [(channels, inner, 3, stride), (inner, out, 3, 1)])
    self.convolutions = nn.ModuleList(
        nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False) for a, b, kernel, step in shapes)
    self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in shapes)
    self.shortcut = nn.Identity() if (channels, stride) == (out, 1) else nn.Sequential(
        nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

  def forward(self, x):
    """[B, C, H, W] -> [B, C', H', W']."""
    y = x
    for convolution, norm in zip(self.convolutions, self.norms):
      y = norm(convolution(y if y is x else F.relu(y)))
    return F.relu(y + self.shortcut(x))


def encoder(depth: int, width: float, stem: str) -> tuple[nn.Module, int]:
  """A ResNet without its classifier, and the size of its embeddings."""
  channels, bottleneck = int(64 * width), depth >= 50
  first = [nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
           nn.MaxPool2d(3, 2, 1)]
  if stem == 'small':
    first = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), *first[1:3]]
  layers = list(first)
  for group, count in enumerate(BLOCKS[depth]):
    features = int(64 * width) * 2 ** group
    for block in range(count):
      stride = 2 if group and not block else 1
      layers.append(Block(channels, features, stride, bottleneck))
      channels = features * (4 if bottleneck else 1)
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


def head(inputs: int, hidden: int) -> nn.Module:
  return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
                       nn.Linear(hidden, 256, bias=False))


class Lars:
  """LARS in the reference's order, with foreach operations."""

  def __init__(self, parameters):
    self.adapted = [p for p in parameters if p.ndim > 1]
    self.others = [p for p in parameters if p.ndim <= 1]
    self.momentum = [torch.zeros_like(p) for p in (*self.adapted, *self.others)]

  @torch.no_grad()
  def step(self, rate, decay=1.5e-6, eta=1e-3, momentum=.9):
    """Updates the parameters with their gradients."""
    updates = torch._foreach_add([p.grad for p in self.adapted], self.adapted, alpha=decay)
    ratios = torch._foreach_div(torch._foreach_norm(self.adapted), torch._foreach_norm(updates))
    torch._foreach_mul_(updates, [torch.nan_to_num(eta * ratio, 1., 1.) for ratio in ratios])
    updates = [*updates, *(p.grad for p in self.others)]
    torch._foreach_mul_(self.momentum, momentum)
    torch._foreach_add_(self.momentum, updates)
    torch._foreach_add_([*self.adapted, *self.others], self.momentum, alpha=-rate)


def make_step(given):
  """Returns a function of two views that runs one step and returns the loss."""
  device, low = torch.device(given.device), given.dtype == 'bfloat16'
  body, size = encoder(int(given.depth), given.width, given.stem)
  online = nn.Sequential(body, head(size, given.hidden)).to(
      device, memory_format=torch.channels_last)
  target = copy.deepcopy(online).requires_grad_(False)
  predictor = head(256, given.hidden).to(device)
  parameters = [*online.parameters(), *predictor.parameters()]
  optimizer = Lars(parameters)

  def losses(views):
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
      predictions = [predictor(online(view)) for view in views]
      with torch.no_grad():
        projections = [target(view) for view in views]
    return sum((2 - 2 * F.cosine_similarity(p.float(), z.float())).mean()
               for p, z in zip(predictions, projections[::-1]))

  if given.compile:
    losses = torch.compile(losses)

  def step(views):
    loss = losses(views)
    for parameter in parameters:
      parameter.grad = None
    loss.backward()
    optimizer.step(rate=.2)
    with torch.no_grad():
      torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - .996)
    return loss.detach()

  return step


def main(_):
  given = flags.FLAGS
  device = torch.device(given.device)
  wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = given.tf32
  torch.manual_seed(0)
  views = [torch.randn(given.batch_size, 3, given.image_size, given.image_size,
                       device=device).to(memory_format=torch.channels_last) for _ in range(2)]
  step, rates, started = make_step(given), [], time.perf_counter()
  first = float(step(views))
  compile_seconds = time.perf_counter() - started
  for repeat in range(given.repeats + 1):
    wait()
    began = time.perf_counter()
    for _ in range(STEPS):
      loss = step(views)
    wait()
    if repeat:
      rates.append(STEPS * given.batch_size / (time.perf_counter() - began))
  peak = torch.cuda.max_memory_allocated() if device.type == 'cuda' else None
  print(json.dumps(dict(
      name='PyTorch step', unit='images', per_second=statistics.median(rates), lowest=min(rates),
      highest=max(rates), torch=torch.__version__, depth=int(given.depth), dtype=given.dtype,
      image_size=given.image_size, batch_size=given.batch_size, compiled=given.compile,
      tf32=given.tf32,
      compile_seconds=compile_seconds, peak_device_bytes=peak, first_loss=first,
      last_loss=float(loss))))


if __name__ == '__main__':
  app.run(main)
