"""The pretraining run: config -> parts -> restore -> loop."""

from collections.abc import Callable
import contextlib
import functools
import itertools
import json
import os
import time
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import build, checkpoint, files, metric_log, metrics, model, monitor, train_step
from byol_jax.config import (
  FOLLOWS_FROM_FILES,
  MAY_CHANGE,
  as_json,
  deciding,
  differing_keys,
  flat,
  plain,
)
from byol_jax.distributed import loops, parallel, preemption, processes
from byol_jax.errors import InputError, counted
from byol_jax.evaluation import contract, features
from byol_jax.evaluators import knn
from byol_jax.input_pipeline import changed_files, fingerprint, loading, locations, prefetch
from byol_jax.input_pipeline.order import dispatches, in_part_order
from byol_jax.input_pipeline.records import DataError
from byol_jax.plots import pictures


class _Job(NamedTuple):
  """The parts of a run, built from its config.

  stop_asked: returns the signal that asked this process to stop; 0 if there was none.
  began: time at which the process started its work, in seconds.
  """

  config: ml_collections.ConfigDict
  workdir: epath.Path
  loader: loading.Loader
  resolved: build.Resolved
  recipe: train_step.Recipe
  meta: dict[str, Any]
  stop_asked: Callable[[], int]
  began: float


def pretrain(config: ml_collections.ConfigDict, workdir: str | os.PathLike
             ) -> train_step.TrainState:
  """Runs or resumes the pretraining that a config describes.

  In a job of several processes, every process calls it; the first one writes the logs.

  Args:
    config: as `experiments/configs/default.py` documents it.
    workdir: folder of the run, local or in an object store. If it has checkpoints, the run
      resumes from the newest valid one.

  Returns:
    The final state, on the host.

  Raises:
    InputError: a problem that the user can fix, including a loss that is not finite and
      another job in the workdir.
    Preempted: a signal asked the run to stop; the last step is saved.
  """
  began = time.perf_counter()
  # Check before the folder is created.
  build.check_pretraining(config, jax.device_count())
  build.check_data(config.data.to_dict())
  workdir = files.writable_folder(workdir)
  processes.check_shared(workdir)
  with preemption.listening() as stop_asked, processes.lock_workdir(workdir):
    loader = loading.load(plain(config.data), 'train', purpose='pretraining', workdir=workdir,
                          check=functools.partial(build.resolve, config))
    resolved = build.resolve(config, loader.data)
    build.check_same_job(as_json(config), resolved._asdict())
    job = _Job(config, workdir, loader, resolved, build.build_recipe(config, resolved),
               dict(config=as_json(config), resolved=resolved._asdict(),
                    versions=dict(jax=jax.__version__)), stop_asked, began)
    state = _first_state(job)
    if parallel.is_first_process():
      _announce(workdir, config, resolved, state)
    try:
      return _run(job, state)
    except monitor.NonFiniteLoss as error:
      saved = checkpoint.steps(workdir)
      good = (f'the last good checkpoint is {workdir}/checkpoints/{saved[-1]}' if saved
              else 'no checkpoint was saved')
      raise InputError(
          f'{error} The run has stopped; {good}. Try a lower train.base_learning_rate or a longer '
          'train.warmup_epochs in a new workdir.') from error
    except DataError as error:
      if saved := checkpoint.steps(workdir):
        raise InputError(f'{error} The checkpoint of step {saved[-1]} is saved; run the same '
                         'command to resume from it.') from error
      raise


def _first_state(job: _Job) -> train_step.TrainState:
  """The newest valid state of the workdir, or the initial state if there is none."""
  size = job.config.data.image_size
  init = lambda key: train_step.init_state(key, jnp.zeros((2, size, size, 3)), job.recipe)
  key = jax.random.key(job.config.seed)
  step = -1
  if parallel.is_first_process() and checkpoint.steps(job.workdir):
    step = checkpoint.latest_valid_step(job.workdir)
  # One process decides, because the others could see the folder in another state.
  step = parallel.from_first_process(step)
  processes.checked_by_first(functools.partial(_check_same_run, job, step))
  if step < 0:
    return jax.jit(init)(key)
  if parallel.is_first_process():
    checkpoint.quarantine(job.workdir, after=step)
  return checkpoint.restore(job.workdir, jax.eval_shape(init, key), step)[0]


def _run(job: _Job, state: train_step.TrainState) -> train_step.TrainState:
  """The loop over steps, from the step of `state` to the last.

  The first step is evaluated too: its learning rate is 0 in a warm-up, so that the encoder is
  still the initial one, but its BatchNorm has the statistics of a batch.
  """
  config, resolved, workdir = job.config, job.resolved, job.workdir
  devices, first_step = jax.local_devices(), int(state.step)
  last_step = min(resolved.max_steps, config.train.stop_at_step or resolved.max_steps)
  state = parallel.replicate(state, devices)
  step_fn = parallel.pmap_step(functools.partial(_steps, recipe=job.recipe), devices)
  batches = _batches(job, first_step, last_step, devices)
  evaluate = _evaluation(job, devices) if resolved.evaluate_every else None
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.saving(
        workdir, keep_last=config.checkpoint.keep_last, keep_best=config.checkpoint.keep_best))
    log = stack.enter_context(metric_log.MetricLog(workdir, first_step=first_step,
                                                   last_step=last_step))
    log.scalars(first_step, {'time/start_seconds': time.perf_counter() - job.began})
    watch = monitor.Monitor(log, resolved, batch_size=config.train.batch_size,
                            first_step=first_step, last_step=last_step)
    rescuing = functools.partial(_rescuing, job, checkpoints, watch)
    for before, step in itertools.pairwise(itertools.accumulate(
        _dispatches(job, first_step, last_step), initial=first_step)):
      due = lambda every, before=before, step=step: every and (
          step // every > before // every or step == last_step)
      with watch.waiting_for_data(), rescuing(state, before):
        batch = next(batches)
      with watch.dispatching(step, step - before):
        state, scalars = step_fn(state, batch)
      watch.add(step, scalars)
      if due(config.log.every_steps):
        watch.report(step)
      evaluating = due(resolved.evaluate_every) or (evaluate and not before)
      saving = due(resolved.checkpoint_every)
      if evaluating or saving or step == last_step:
        watch.settle()  # only finite losses lead to a checkpoint
      stopping = watch.stop_asked and step < last_step
      with rescuing(state, step):
        results = (watch.evaluation(step, functools.partial(evaluate, state, step))
                   if evaluating and not stopping else {})
      if saving or step == last_step or stopping:
        _save(checkpoints, state, step, job.meta, results, watch)
      if stopping:
        break
  if first_step < last_step and stopping:
    raise preemption.after_step(step, last_step, job.stop_asked())
  if parallel.is_first_process():
    _conclude(workdir, job.loader)
  return parallel.fetch(state)


def _dispatches(job: _Job, first_step: int, last_step: int):
  return dispatches(first_step, last_step, job.resolved.max_steps,
                    job.config.train.steps_per_dispatch)


def _steps(state: train_step.TrainState, batches: train_step.Batch, recipe: train_step.Recipe):
  """Runs `train_step` on each of the batches [n, B, ...]; reports if a process must stop."""
  def one(state, batch):
    state, scalars = train_step.train_step(state, batch, recipe)
    return state, dict(scalars, stop=parallel.mean_over_devices(jnp.mean(batch['stop'])))

  return loops.over_steps(one, state, batches)


def _save(checkpoints, state, step: int, meta, results, watch: monitor.Monitor) -> None:
  watch.settle()
  with watch.paused(step, 'checkpoint'):
    host_state = parallel.fetch(state)
    monitor.check_finite(step, host_state.online_params)
    checkpoint.save(checkpoints, host_state, meta, results)


@contextlib.contextmanager
def _rescuing(job: _Job, checkpoints, watch: monitor.Monitor, state, step: int):
  """If images cannot be read, saves the state after `step`, then raises the error."""
  try:
    yield
  except DataError:
    # Several processes can only save together, and the others do not know of the error.
    if jax.process_count() == 1 and step > (checkpoints.latest_step() or 0):
      _save(checkpoints, state, step, job.meta, {}, watch)
    raise


def _batches(job: _Job, first_step: int, last_step: int, devices):
  """Yields the batches on the devices; draws a picture of the first batch's views."""
  config, workdir = job.config, job.workdir
  batches = job.loader.train_batches(
      build.policies(config), seed=config.seed,
      batch_size=config.train.batch_size, first_step=first_step, last_step=last_step,
      rows_only=True)
  resident = job.loader.resident(devices)
  first = next(batches, None)
  if first is None:
    return iter(())
  if parallel.is_first_process() and not (workdir / pictures.VIEWS).exists():
    some = {name: array[:12] for name, array in first.items()}
    some |= {name: array[0] for name, array in resident.items()}
    pictures.draw_views(workdir / pictures.VIEWS, *job.recipe.views(some)[:2])
    parallel.print_once(f'Augmented pairs of the first batch: {workdir / pictures.VIEWS}')
  batches = itertools.chain([first], batches)
  if job.recipe.accumulation_steps > 1:
    batches = in_part_order(
        batches, shards=config.data.virtual_shards // jax.process_count(),
        parts=job.recipe.accumulation_steps, devices=len(devices))
  asking = (dict(batch, stop=np.full(len(batch['sample_id']), bool(job.stop_asked()), np.float32))
            for batch in batches)
  return prefetch.to_devices(asking, devices, resident=resident,
                             steps=_dispatches(job, first_step, last_step))


def _conclude(workdir, loader: loading.Loader) -> None:
  """Prints which images were left out and the next command to run."""
  if not files.in_object_store(workdir):
    parallel.print_once(f'Curves and pictures: python -m experiments.report {workdir}')
  if unreadable := loading.unreadable_images(workdir):
    parallel.print_once(f'left out as unreadable: {counted(len(unreadable), "image")}, listed in '
                        f'{workdir / loading.UNREADABLE}')
  loading.say_left_out(dict(train=lambda: loader))


def _evaluation(job: _Job, devices) -> Callable[..., tuple[dict[str, float], np.ndarray]]:
  """(state, step) -> scores of the online encoder on held-out images, and their spectrum."""
  config, train = job.config, job.loader
  validation = loading.load(plain(config.data), 'validation', purpose='evaluation in the run',
                            workdir=job.workdir)
  encode = build.encoder_function(job.recipe.model, config.data, train.data.evaluation_form)
  size = config.evals.batch_size

  def evaluate(state, step):
    extracted = lambda part: features.extract(
        encode, (state.online_params, state.online_state), part.evaluation_batches(size),
        batch_size=size, devices=devices)
    queries = extracted(validation)
    if not np.isfinite(queries.embeddings).all():
      raise monitor.NonFiniteLoss(step + 1, np.nan)
    found, spectrum = metrics.embedding_scores(queries.embeddings)
    scores = {f'embeddings/{name}': value for name, value in found.items()}
    if train.data.num_classes:
      fitting, scoring = contract.of_features(
          train.data.num_classes, train=extracted(train), validation=queries, test=queries)
      votes = knn.evaluate(knn.fit(fitting, **config.evals.knn.to_dict()), scoring)
      scores |= {f'knn/{name}': value for name, value in votes.items()}
    return scores, spectrum

  return evaluate


def _check_same_run(job: _Job, step: int) -> None:
  """Checks config, data files and resolved values against the saved run; records the files."""
  files = job.loader.origin()
  if step < 0:
    if files:
      changed_files.begin(job.workdir, files, job.config.seed)
    return
  saved = checkpoint.read_meta(job.workdir, step)
  keys, counts = (
      [line for line in lines if not line.startswith(MAY_CHANGE)] for lines in (
          differing_keys(*(locations.left_out(deciding(one['config']))
                           for one in (saved, job.meta))),
          differing_keys(saved['resolved'], job.meta['resolved'], 'resolved.')))
  record = None
  if not keys and files:
    # Before the counts: which files changed says more than how many images there are now.
    record, known = changed_files.resumed(
        job.workdir, files, seed=job.config.seed, action=job.config.data.changed_files)
    counts = [line for line in counts
              if not (known and line.startswith(FOLLOWS_FROM_FILES))]
  build.check_differing(job.workdir, saved['step'], keys + counts)
  if record:
    fingerprint.write(job.workdir, record)


def _announce(workdir, config, resolved, state) -> None:
  """Prints and saves what the run will do."""
  counts = {name: model.count_parameters(state.online_params, name)
            for name in ('projector', 'predictor', 'classifier')}
  counts['encoder'] = model.count_parameters(model.encoder_only(state.online_params))
  summary = dict(resolved._asdict(), parameters=counts, device_kind=jax.devices()[0].device_kind,
                 processes=jax.process_count(), jax=jax.__version__)
  text = json.dumps(dict(config=as_json(config), resolved=summary), indent=2)
  with files.atomic_write(workdir / 'config.json') as file:
    file.write(text + '\n')
  # The keys in the form of the command line.
  for key, value in flat(as_json(config)).items():
    print(f'config.{key}: {value}')
  for name, value in summary.items():
    print(f'{name}: {value}')
  start = int(state.step)
  print(f'{"Resuming at" if start else "Starting at"} step {start} of {resolved.max_steps} in '
        f'{workdir}', flush=True)
