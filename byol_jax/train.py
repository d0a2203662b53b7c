"""The run: config -> parts -> restore -> loop."""

from collections.abc import Callable, Mapping
import contextlib
import functools
import itertools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from byol_jax import (
  assembly,
  checkpoint,
  input_pipeline,
  loading,
  metric_log,
  model,
  monitor,
  parallel,
)
from byol_jax import train_step as byol
from byol_jax.errors import InputError
from byol_jax.evaluators import features, knn
from byol_jax.report import pictures


def pretrain(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> byol.TrainState:
  """Runs, or resumes, the pretraining that a config describes.

  Args:
    config: as `experiments/configs/default.py` documents it.
    workdir: folder of the run. One that holds a checkpoint is resumed.

  Returns:
    The final state, on the host.

  Raises:
    InputError: what the user can mend, a loss that is not finite among it.
  """
  began, workdir = time.perf_counter(), parallel.writable_folder(workdir)
  loader = loading.load(config.data, 'train', purpose='pretraining', workdir=workdir)
  resolved = assembly.resolve(config, loader.data)
  recipe = assembly.build_recipe(config, resolved)
  size = config.data.image_size
  state = jax.eval_shape(
      lambda key: byol.init_state(key, jnp.zeros((2, size, size, 3)), recipe), jax.random.key(0))
  meta = dict(config=assembly.as_json(config), resolved=resolved._asdict(),
              versions=dict(jax=jax.__version__))
  if checkpoint.steps(workdir):
    _check_same_run(workdir, meta)
    state, _ = checkpoint.restore(workdir, state)
  else:
    state = jax.jit(lambda key: byol.init_state(key, jnp.zeros((2, size, size, 3)), recipe))(
        jax.random.key(config.seed))
  if parallel.is_first_process():
    _announce(workdir, config, resolved, state)
  try:
    return _run(config, resolved, recipe, loader, state, meta, workdir, began)
  except monitor.NonFiniteLoss as error:
    saved = checkpoint.steps(workdir)
    good = (f'the last good checkpoint is {workdir}/checkpoints/{saved[-1]}' if saved
            else 'no checkpoint had been saved')
    raise InputError(
        f'{error} The run has stopped; {good}. Try a lower train.base_learning_rate or a longer '
        'train.warmup_epochs in a new workdir.') from error


def _run(config, resolved, recipe, loader, state, meta, workdir, began) -> byol.TrainState:
  """The loop over steps, from the step of `state` to the last."""
  devices, first_step = jax.local_devices(), int(state.step)
  last_step = min(resolved.max_steps, config.train.stop_at_step or resolved.max_steps)
  state = parallel.replicate(state, devices)
  step_fn = parallel.pmap_step(functools.partial(byol.train_step, recipe=recipe), devices)
  batches = _batches(config, recipe, loader, first_step, last_step, devices, workdir)
  evaluate = (_evaluation(config, recipe.model, loader, devices, workdir)
              if resolved.evaluate_every else None)
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.manager(
        workdir, keep_last=config.checkpoint.keep_last, keep_best=config.checkpoint.keep_best))
    log = stack.enter_context(metric_log.MetricLog(
        workdir, first_step=first_step, last_step=last_step))
    log.scalars(first_step, {'time/start_seconds': time.perf_counter() - began})
    watch = monitor.Monitor(log, batch_size=config.train.batch_size, first_step=first_step,
                            steps_per_epoch=resolved.steps_per_epoch, max_steps=last_step)
    for step in range(first_step + 1, last_step + 1):
      due = lambda every, step=step: every and (step % every == 0 or step == last_step)
      with watch.waiting_for_data():
        batch = next(batches)
      # The first call compiles before it returns.
      with (watch.paused(step, 'compilation') if step == first_step + 1
            else contextlib.nullcontext()):
        state, scalars = step_fn(state, batch)
      watch.add(step, scalars)
      if due(config.log.every_steps):
        watch.report(step)
      results = {}
      if due(resolved.evaluate_every):
        # A checkpoint is written only when every loss so far has proved finite.
        watch.settle()
        with watch.paused(step, 'evaluation'):
          results = evaluate(state)
        log.scalars(step, results)
        log.line(f'step {step}: kNN top-1 on held-out images {100 * results["knn/top1"]:.1f} %')
      if due(resolved.checkpoint_every) or step == last_step:
        watch.settle()
        with watch.paused(step, 'checkpoint'):
          host_state = parallel.fetch(state)
          monitor.check_finite(step, host_state.online_params)
          checkpoint.save(checkpoints, host_state, meta, results)
  state = parallel.fetch(state)
  if parallel.is_first_process():
    _conclude(workdir)
  return state


def _batches(config, recipe, loader, first_step: int, last_step: int, devices, workdir):
  """The batches on the devices; draws a picture of the first one's views."""
  batches = loader.train_batches(
      (config.view1.to_dict(), config.view2.to_dict()), seed=config.seed,
      batch_size=config.train.batch_size, first_step=first_step, last_step=last_step)
  first = next(batches, None)
  if first is None:
    return iter(())
  if parallel.is_first_process() and not (workdir / pictures.VIEWS).exists():
    some = {name: array[:12] for name, array in first.items()}
    pictures.draw_views(workdir / pictures.VIEWS, *recipe.two_views(some))
    print(f'Augmented pairs of the first batch: {workdir / pictures.VIEWS}', flush=True)
  return input_pipeline.to_devices(itertools.chain([first], batches), devices)


def _conclude(workdir) -> None:
  """What was left out, and what can be done next."""
  print(f'Curves and pictures: python -m experiments.report {workdir}')
  if unreadable := loading.unreadable_images(workdir):
    print(f'{len(unreadable)} images could not be read and were left out: '
          f'{workdir / loading.UNREADABLE}')


def _evaluation(config, networks, train, devices, workdir
                ) -> Callable[[byol.TrainState], dict[str, float]]:
  """kNN of the online encoder: training images as the bank, validation as queries."""
  validation = loading.load(config.data, 'validation', purpose='kNN during the run',
                            workdir=workdir)
  encode = assembly.encoder_function(networks, config.data)
  k, images = config.evals.knn.k, train.data.num_examples
  if not 1 <= k <= images or config.evals.batch_size < 1:
    raise InputError(f'evals.knn.k is {k} with {images} training images, evals.batch_size '
                     f'{config.evals.batch_size}; set them to 1 or more, k to at most {images}, or '
                     'evals.every_epochs to 0.')

  def evaluate(state):
    variables = (state.online_params, state.online_state)
    bank, queries = (
        features.extract(encode, variables, part.evaluation_batches(config.evals.batch_size),
                         batch_size=config.evals.batch_size, devices=devices)
        for part in (train, validation))
    fitted = knn.fit(bank, queries, num_classes=train.data.num_classes,
                     **config.evals.knn.to_dict())
    return {f'knn/{name}': value for name, value in knn.evaluate(fitted, queries).items()}

  return evaluate


def _check_same_run(workdir: pathlib.Path, meta: Mapping[str, Any]) -> None:
  """The config, and what it comes to: another data set under the same path shows there."""
  saved = checkpoint.read_meta(workdir)
  # The JSON round trip turns tuples into lists, as in the saved one.
  differing = [line for line in assembly.differing_keys(saved['config'], meta['config'])
               + assembly.differing_keys(saved['resolved'], meta['resolved'], 'resolved.')
               if not line.startswith(assembly.MAY_CHANGE)]
  if differing:
    raise InputError(
        f'{workdir} holds a run at step {saved["step"]} with another config. These keys differ '
        '(saved -> given):\n  ' + '\n  '.join(differing) +
        '\nGive the saved values to resume it, or another --workdir to start anew.')


def _announce(workdir, config, resolved, state) -> None:
  """Prints and saves what the run is going to do."""
  counts = {name: model.count_parameters(state.online_params, name)
            for name in ('projector', 'predictor', 'classifier')}
  counts['encoder'] = model.count_parameters(model.encoder_only(state.online_params))
  summary = dict(resolved._asdict(), parameters=counts, device_kind=jax.devices()[0].device_kind,
                 processes=jax.process_count(), jax=jax.__version__)
  text = json.dumps(dict(config=assembly.as_json(config), resolved=summary), indent=2)
  (workdir / 'config.json').write_text(text + '\n')
  print(config)
  for name, value in summary.items():
    print(f'{name}: {value}')
  start = int(state.step)
  print(f'{"Resuming at" if start else "Starting at"} step {start} of {resolved.max_steps} in '
        f'{workdir}', flush=True)
