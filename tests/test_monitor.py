import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import monitor
from byol_jax.metrics import moments
from byol_jax.monitor import Monitor, NonFiniteLoss

SPREAD = np.random.default_rng(0).normal(size=(64, 8))
# name -> projections
COLLAPSED = dict(point=np.tile(SPREAD[:1], (64, 1)), line=SPREAD[:, :1] * np.ones(8),
                 close=np.ones(8) + .05 * SPREAD)


class Log:
  """Keeps what a MetricLog would write."""

  def __init__(self):
    self.records, self.spectra, self.lines, self.steps = [], [], [], []

  def scalars(self, step, values):
    self.records.append((step, values))

  def arrays(self, step, values):
    self.spectra.append((step, values))

  def line(self, text):
    self.lines.append(text)

  def progress(self, step):
    self.steps.append(step)


@pytest.fixture
def clock(monkeypatch):
  """A clock that the test moves: `clock.now`."""
  clock = types.SimpleNamespace(now=100.)
  monkeypatch.setattr(monitor.time, 'perf_counter', lambda: clock.now)
  return clock


@pytest.fixture
def log():
  return Log()


@pytest.fixture
def watch(log, clock):
  resolved = types.SimpleNamespace(steps_per_epoch=2.5, max_steps=120)
  watch = Monitor(log, resolved, batch_size=32, first_step=10, last_step=110)
  clock.now += 1.
  return watch


def scalars(loss=2., projections=SPREAD, **others):
  """Of one step."""
  one = dict(loss=jnp.float32(loss), byol_loss=jnp.float32(loss), **{
      name: jnp.float32(value) for name, value in others.items()},
             projections=moments(jnp.asarray(projections, jnp.float32)))
  return jax.tree.map(lambda x: x[None], one)


def dispatch(*steps):
  """The scalars of several steps."""
  return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *steps)


@pytest.mark.parametrize('loss', [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_names_its_step(watch, loss):
  watch.add(11, scalars())
  watch.add(12, scalars(loss))
  with pytest.raises(NonFiniteLoss, match=f'The loss is {loss} at step 12') as error:
    for step in range(13, 13 + monitor.LAG):
      watch.add(step, scalars())
  assert error.value.step == 12


@pytest.mark.parametrize('read', [Monitor.settle, lambda watch: watch.report(11)],
                         ids=['settle', 'report'])
def test_settle_and_report_read_the_last_loss(watch, read):
  watch.add(11, scalars(np.nan))
  with pytest.raises(NonFiniteLoss, match='step 11'):
    read(watch)


def test_scalars_are_read_only_some_steps_later(watch):
  read = []

  class Scalar:
    def __init__(self, step):
      self.step = step

    @property
    def addressable_shards(self):
      read.append(self.step)
      return [types.SimpleNamespace(data=np.ones(1, np.float32))]

  for step in range(11, 15 + monitor.LAG):
    watch.add(step, dict(loss=Scalar(step)))
    assert read == list(range(11, step - monitor.LAG + 1))


def test_a_report_averages_the_steps_since_the_last_one(watch, log, clock):
  for step, loss in ((11, 1.), (12, 2.), (13, 6.)):
    watch.add(step, scalars(loss, top1=loss / 10))
  values = watch.report(13)
  assert values['train/loss'] == pytest.approx(3)
  assert values['train/top1'] == pytest.approx(.3)
  assert values['epoch'] == pytest.approx(13 / 2.5)
  clock.now += 1.
  watch.add(14, scalars(7., top1=.5))
  assert watch.report(14)['train/loss'] == pytest.approx(7)
  assert [step for step, _ in log.records] == [13, 14] and log.records[0][1] is values
  assert log.steps == [11, 12, 13, 14]


def test_several_steps_of_a_dispatch_are_averaged_and_the_last_is_looked_at(watch, log):
  watch.add(13, dispatch(scalars(1.), scalars(2.), scalars(projections=COLLAPSED['point'])))
  watch.add(15, dispatch(scalars(6.), scalars(4.)))
  values = watch.report(15)
  assert values['train/loss'] == pytest.approx(3)
  assert 'WARNING' not in log.lines[0] and len(log.lines) == 1
  assert log.steps == [13, 15]


def test_a_step_within_a_dispatch_that_is_not_finite_is_named(watch):
  watch.add(14, dispatch(scalars(), scalars(), scalars(np.inf), scalars(np.nan)))
  with pytest.raises(NonFiniteLoss, match='inf at step 13'):
    watch.settle()


def test_a_report_after_settling_still_averages_all_steps(watch):
  watch.add(11, scalars(1.))
  watch.settle()
  watch.add(12, scalars(2.))
  assert watch.report(12)['train/loss'] == pytest.approx(1.5)


def test_collapse_statistics_are_of_the_last_step(watch, log):
  watch.add(11, scalars(projections=COLLAPSED['point']))
  watch.add(12, scalars())
  values = watch.report(12)
  directions = SPREAD / np.linalg.norm(SPREAD, axis=1, keepdims=True)
  assert values['collapse/std'] == pytest.approx(
      np.sqrt(8) * directions.std(axis=0).mean(), rel=1e-4)
  assert values['collapse/projection_norm'] == pytest.approx(
      np.linalg.norm(SPREAD, axis=1).mean(), rel=1e-5)
  assert 7 < values['collapse/effective_rank'] < 8
  assert len(log.lines) == 1 and 'WARNING' not in log.lines[0]


@pytest.mark.parametrize('name', COLLAPSED)
def test_collapsed_projections_are_warned_of(watch, log, name):
  watch.add(11, scalars(projections=COLLAPSED[name]))
  values = watch.report(11)
  assert len(log.lines) == 2
  assert log.lines[1].startswith(
      f"WARNING step 11: the projections are collapsing: spread {values['collapse/std']:.3f} "
      '(healthy: 0.5 to 1; threshold 0.1), effective rank '
      f"{values['collapse/effective_rank']:.2f} of 8 (threshold 1.1).")


def evaluation(rank, size=64, **scores):
  """() -> what an evaluation of embeddings [N, D] returns, with the smaller of both as size."""
  return lambda: ({'embeddings/effective_rank': rank, **scores}, np.full(size, 1 / size))


def test_an_evaluation_is_logged_with_its_time_and_spectrum(watch, log):
  found = watch.evaluation(20, evaluation(7.25, **{'knn/top1': .5}))
  assert log.records == [(20, {'time/evaluation_seconds': 0.}), (20, found)]
  assert log.spectra == [(20, {'embeddings/spectrum': pytest.approx([1 / 64] * 64)})]
  assert log.lines == ['step 20: held-out images: kNN top-1 50.0 %, effective rank of the '
                       'embeddings 7.2 of at most 64']


def test_partial_collapse_is_warned_of_in_the_second_half_of_a_run(watch, log):
  watch.evaluation(59, evaluation(2.))
  assert log.lines == ['step 59: held-out images: effective rank of the embeddings 2.0 of at most '
                       '64']
  watch.evaluation(60, evaluation(2.))
  assert log.lines[2].startswith(
      'WARNING step 60: partial collapse: the embeddings of held-out images vary in few '
      'directions, effective rank 2.0 of at most 64 (threshold 4). ')
  watch.evaluation(80, evaluation(monitor.SMALLEST_EMBEDDING_RANK))
  # Few images have a low rank whatever the encoder does.
  watch.evaluation(90, evaluation(2., size=31))
  assert len(log.lines) == 5 and 'WARNING' not in ''.join(log.lines[3:])


def test_the_speed_leaves_pauses_out_and_tells_the_wait_for_data(watch, log, clock):
  with watch.waiting_for_data():
    clock.now += 2.
  clock.now += 4.
  with watch.paused(15, 'evaluation'):
    clock.now += 1000.
  clock.now += 1.
  watch.add(15, scalars(top1=.125))
  values = watch.report(15)
  # 5 steps of 32 images in 1 + 2 + 4 + 1 seconds, 2 of them waiting; 95 steps left.
  assert values['time/images_per_second'] == pytest.approx(20)
  assert values['time/data_wait_share'] == pytest.approx(.25)
  assert values['time/training_seconds'] == pytest.approx(6)
  assert values['time/data_wait_seconds'] == pytest.approx(2)
  assert log.records[0] == (15, {'time/evaluation_seconds': pytest.approx(1000)})
  assert log.lines == ['step 15/110  epoch 6.00  loss 2.0000  probe top-1  12.5 %  20 images/s  '
                       'data wait 25 %  ETA 2m32s']


def test_the_first_dispatch_of_each_size_compiles(watch, log, clock):
  for step, count, seconds in ((15, 5, 30.), (20, 5, 1.), (21, 1, 20.), (22, 1, 1.)):
    with watch.dispatching(step, count):
      clock.now += seconds
  assert log.records == [(15, {'time/compilation_seconds': pytest.approx(30)}),
                         (21, {'time/compilation_seconds': pytest.approx(20)})]
  watch.add(22, scalars())
  # 12 steps of 32 images in 1 + 2 seconds.
  assert watch.report(22)['time/images_per_second'] == pytest.approx(128)


def test_the_clock_starts_anew_with_every_report(watch, clock):
  watch.add(11, scalars())
  with watch.waiting_for_data():
    clock.now += 50.
  watch.report(11)
  clock.now += 2.
  watch.add(12, scalars())
  values = watch.report(12)
  assert values['time/images_per_second'] == pytest.approx(16)
  assert values['time/data_wait_share'] == 0


def test_a_request_to_stop_is_known_when_its_step_is_read(watch):
  watch.add(11, scalars(stop=0.))
  watch.add(12, scalars(stop=.25))
  watch.add(13, scalars(stop=0.))
  assert not watch.stop_asked
  watch.settle()
  assert watch.stop_asked
  watch.add(14, scalars(stop=0.))
  assert 'train/stop' not in watch.report(14) and watch.stop_asked


def test_unlabelled_data_has_no_probe(watch, log):
  watch.add(11, scalars())
  assert 'train/top1' not in watch.report(11)
  assert 'probe' not in log.lines[0]
