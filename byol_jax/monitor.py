"""Watches a run: whether the loss is finite, how far it has collapsed, and its speed.

The loop passes in the device scalars of each dispatch. They are read `LAG` dispatches
later, so that the device never waits for the host.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import time
from typing import Any

import numpy as np

from byol_jax import metrics
from byol_jax.distributed import parallel
from byol_jax.metric_log import MetricLog

LAG = 2
# Measured in 768 steps of the demonstration, reported every 16 steps: three healthy seeds
# kept a spread of 0.65 to 0.84 and an effective rank above 1.5; without the predictor or
# without the target network the spread was below 0.07 from step 64 on.
SMALLEST_STD = 0.1
SMALLEST_RANK = 1.1
# Measured in runs of the demonstration (docs/recipes.md). The embeddings start with a rank of 62 to
# 76 and fall to 2 to 7 in the first third of a run, so that the first half is not judged. The
# recipe's five seeds ended at 6.9 to 8.1 with kNN 98.6; seed 0 of demo_paper.py, with 69.0 on test
# images, at 3.7; one with twice the learning rate at 2.9, one with a
# normalisation after the predictor at 1.7. The limit is no sharp one: a run with SGD ended at 3.3
# and had 84.5, as many as those with 4.4 to 6.7 did.
SMALLEST_EMBEDDING_RANK, FEWEST_VALUES = 4., 32

COLLAPSED = (
    'WARNING step {step}: the projections are collapsing: spread {std:.3f} (healthy: 0.5 to 1; '
    'threshold {smallest_std}), effective rank {effective_rank:.2f} of {dimensions} (threshold '
    '{smallest_rank}). The network gives nearly the same output for every image, which '
    'makes the loss small and the representation useless. Try, one at a time: a lower '
    'train.base_learning_rate, a train.base_tau closer to 1, a longer train.warmup_epochs, the '
    "paper's train.optimizer_options.weight_decay; and check that the predictor and BatchNorm are "
    'in place.')


PARTLY_COLLAPSED = (
    'WARNING step {step}: partial collapse: the embeddings of held-out images vary in few '
    'directions, effective rank {rank:.1f} of at most {most} (threshold {smallest_rank:g}). The '
    'encoder tells apart fewer things than it could. Try, one at a time: {remedies}.')
REMEDIES = (
    'views that keep what tells the images apart (look at views.png)',
    'model.projector_output_norm=True', 'more train.epochs',
    'another train.base_tau (0.97 for runs of a few thousand steps)',
    'another optimizer with its own learning rate (docs/pretraining.md)', 'a wider encoder')


class NonFiniteLoss(RuntimeError):
  """The loss became infinite or NaN; the message names the step."""

  def __init__(self, step: int, loss: float):
    super().__init__(f'The loss is {loss} at step {step}.')
    self.step = step


def has_collapsed(std: float, effective_rank: float) -> bool:
  """Whether `metrics.collapse_statistics` are outside the range of healthy runs."""
  return std < SMALLEST_STD or effective_rank < SMALLEST_RANK


def is_narrow(embedding_rank: float, most: int) -> bool:
  """Whether the embeddings have a lower effective rank than in runs that learned well.

  Args:
    embedding_rank: `metrics.effective_rank` of their spectrum.
    most: the smaller of the numbers of images and dimensions. Fewer than FEWEST_VALUES are not
      judged: the rank of few images is low in any case.
  """
  return most >= FEWEST_VALUES and embedding_rank < SMALLEST_EMBEDDING_RANK


def has_settled(step: int, max_steps: int) -> bool:
  """Whether the rank of the embeddings can be judged: not in the first half of a run."""
  return step >= max_steps / 2


def check_finite(step: int, params: Mapping[str, Mapping[str, np.ndarray]]) -> None:
  """Raises NonFiniteLoss if a parameter after `step` is not finite: the next loss is not either."""
  if not all(np.isfinite(array).all() for arrays in params.values() for array in arrays.values()):
    raise NonFiniteLoss(step + 1, np.nan)


class Monitor:
  """Averages the last steps of a run and logs the result."""

  def __init__(self, log: MetricLog, resolved: Any, *, batch_size: int, first_step: int,
               last_step: int):
    """Starts the clock.

    Args:
      log: where scalars and lines go.
      resolved: the run's `steps_per_epoch`, which may be fractional, and its `max_steps`.
      batch_size: images per step over all devices.
      first_step: steps done before this process started.
      last_step: the step at which this process ends.
    """
    self._log = log
    self._batch_size, self._steps_per_epoch = batch_size, resolved.steps_per_epoch
    self._last_step, self._max_steps = last_step, resolved.max_steps
    # Whether a step read so far reports that some process was asked to stop.
    self.stop_asked = False
    self._sizes: set[int] = set()
    self._unread: list[tuple[int, Mapping[str, Any]]] = []
    self._read: list[dict[str, np.ndarray]] = []
    self._reported_step, self._paused, self._waited = first_step, 0., 0.
    self._last_report = time.perf_counter()

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Counts the time in this context as waiting for data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  @contextlib.contextmanager
  def paused(self, step: int, name: str) -> Iterator[None]:
    """Excludes the time in this context from training; logs it as `time/<name>_seconds`."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    self._paused += seconds
    self._log.scalars(step, {f'time/{name}_seconds': seconds})

  @contextlib.contextmanager
  def dispatching(self, step: int, count: int) -> Iterator[None]:
    """Wraps a dispatch of `count` steps up to `step`; the first of each size also compiles."""
    if count in self._sizes:
      yield
      return
    self._sizes.add(count)
    # Large networks take minutes to compile, with no other output.
    self._log.line(f'compiling {count} step{"s" if count > 1 else ""}')
    began = time.perf_counter()
    with self.paused(step, 'compilation'):
      yield
    self._log.line(f'compiled in {time.perf_counter() - began:.1f} s')

  def add(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Takes device scalars; raises NonFiniteLoss for a step LAG calls ago.

    Args:
      step: the last of the n steps of the scalars.
      scalars: arrays [n, ...].
    """
    self._unread.append((step, scalars))
    if len(self._unread) > LAG:
      self._read_oldest()
    self._log.progress(step)

  def settle(self) -> None:
    """Reads all steps so far; raises NonFiniteLoss if one is not finite."""
    while self._unread:
      self._read_oldest()

  def report(self, step: int) -> dict[str, float]:
    """Logs the average of the steps since the last report, and the collapse statistics."""
    moments = {name: array[-1] for name, array in parallel.fetch(
        self._unread[-1][1]['projections']).items()}
    self.settle()
    averaged = {name: float(np.mean(np.concatenate([scalars[name] for scalars in self._read])))
                for name in self._read[0]}
    collapse = metrics.collapse_statistics(moments['mean'], moments['second'])
    values = {'epoch': step / self._steps_per_epoch,
              **{f'train/{name}': value for name, value in averaged.items()},
              **{f'collapse/{name}': value for name, value in collapse.items()},
              'collapse/projection_norm': float(moments['norm']), **self._speed(step)}
    self._log.scalars(step, values)
    self._log.line(self._describe(step, values))
    if has_collapsed(**collapse):
      self._log.line(COLLAPSED.format(
          step=step, dimensions=len(moments['mean']), smallest_std=SMALLEST_STD,
          smallest_rank=SMALLEST_RANK, **collapse))
    self._read.clear()
    return values

  def evaluation(self, step: int, evaluate: Callable[[], tuple[dict[str, float], np.ndarray]]
                 ) -> dict[str, float]:
    """Runs and logs an evaluation: () -> scores, and the spectrum of held-out embeddings."""
    with self.paused(step, 'evaluation'):
      results, spectrum = evaluate()
    rank = results['embeddings/effective_rank']
    self._log.scalars(step, results)
    self._log.arrays(step, {'embeddings/spectrum': spectrum})
    accuracy = (f'kNN top-1 {100 * results["knn/top1"]:.1f} %, ' if 'knn/top1' in results else '')
    self._log.line(f'step {step}: held-out images: {accuracy}effective rank of the embeddings '
                   f'{rank:.1f} of at most {len(spectrum)}')
    if is_narrow(rank, len(spectrum)) and has_settled(step, self._max_steps):
      self._log.line(PARTLY_COLLAPSED.format(
          step=step, rank=rank, most=len(spectrum), smallest_rank=SMALLEST_EMBEDDING_RANK,
          remedies=', '.join(REMEDIES)))
    return results

  def _read_oldest(self) -> None:
    step, scalars = self._unread.pop(0)
    small = {name: value for name, value in scalars.items() if name != 'projections'}
    values = parallel.fetch(small)
    self.stop_asked |= bool(np.any(values.pop('stop', 0.)))
    losses = values['loss']
    if not np.isfinite(losses).all():
      first = int(np.argmin(np.isfinite(losses)))
      raise NonFiniteLoss(step - len(losses) + 1 + first, losses[first])
    self._read.append(values)

  def _speed(self, step: int) -> dict[str, float]:
    now = time.perf_counter()
    elapsed = now - self._last_report - self._paused
    images = (step - self._reported_step) * self._batch_size
    speed = {'time/images_per_second': images / elapsed,
             'time/data_wait_share': self._waited / elapsed,
             'time/training_seconds': elapsed - self._waited,
             'time/data_wait_seconds': self._waited}
    self._last_report, self._reported_step = now, step
    self._paused = self._waited = 0.
    return speed

  def _describe(self, step: int, values: Mapping[str, float]) -> str:
    left = (self._last_step - step) * self._batch_size / values['time/images_per_second']
    probe = (f"  probe top-1 {100 * values['train/top1']:5.1f} %" if 'train/top1' in values
             else '')
    return (f"step {step}/{self._last_step}  epoch {values['epoch']:.2f}  "
            f"loss {values['train/byol_loss']:.4f}{probe}  "
            f"{values['time/images_per_second']:.0f} images/s  "
            f"data wait {100 * values['time/data_wait_share']:.0f} %  "
            f"ETA {int(left // 60)}m{int(left % 60):02d}s")
