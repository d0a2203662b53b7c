"""Follows one image through a step of BYOL in numbers, and compares runs with a part removed.

It writes `docs/measurements/walkthrough.md`: `trace` takes a step of a real run apart with the
functions of the run itself, `collapse_table` reads the runs of a sweep, and `write` puts
both into the text of `walkthrough.md` beside this file.
"""

from collections.abc import Mapping, Sequence
import importlib.resources
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jinja2
import ml_collections
import numpy as np

from byol_jax import build, checkpoint, files, train, train_step
from byol_jax.config import plain
from byol_jax.distributed import devices, parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline import loading, prefetch
from byol_jax.input_pipeline.records import class_name
from byol_jax.plots import pictures
from byol_jax.plots.tables import Table, markdown, mean_and_spread
from byol_jax.report import compare, diagnosis, runs
from byol_jax.sweep import points as sweep
from byol_jax.sweep import runner

# The image of the batch, and the weight tensor, that are followed.
ROW = 0
TENSOR = ('projector/linear', 'w')


class Trace(NamedTuple):
  """The values of a step, all on the host.

  state: the state before the step.
  batch: uint8 images [B, H, W, 3], sample_id [B] and labels [B].
  views: two arrays [B, H, W, 3] in [0, 1].
  online: `model.Outputs` of each view.
  target: the same for the target network.
  losses: [B].
  gradients: gradients of the online parameters.
  new_state: the state after the step.
  scalars: scalars of the step.
  class_names: class names of the data set.
  """

  state: train_step.TrainState
  batch: Mapping[str, np.ndarray]
  views: Sequence[np.ndarray]
  online: Sequence[Any]
  target: Sequence[Any]
  losses: np.ndarray
  gradients: train_step.Params
  new_state: train_step.TrainState
  scalars: Mapping[str, np.ndarray]
  class_names: tuple[str, ...]


def trace(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, step: int) -> Trace:
  """Takes the step after a checkpoint apart, on one device.

  Args:
    config: config of the run.
    workdir: workdir of the run.
    step: step of a checkpoint in it, before the last one.

  Raises:
    InputError: there is no such checkpoint, or the config is not that of the run.
  """
  workdir, size = pathlib.Path(workdir), config.data.image_size
  if step == checkpoint.steps(workdir)[-1]:
    raise InputError(f'Step {step} is the last checkpoint in {workdir} and the run has no step '
                     'after it; keep an earlier one with checkpoint.every_epochs.')
  loader = loading.load(plain(config.data), 'train', purpose='walk-through', workdir=workdir)
  recipe = build.build_recipe(config, build.resolve(config, loader.data))
  state, _ = checkpoint.restore(workdir, jax.eval_shape(
      lambda key: train_step.init_state(key, jnp.zeros((2, size, size, 3)), recipe),
      jax.random.key(0)), step)
  policies = config.view1.to_dict(), config.view2.to_dict()
  batch = next(loader.train_batches(policies, seed=config.seed, first_step=step,
                                    batch_size=config.train.batch_size, last_step=step + 1))

  def taken_apart(state, batch):
    views = recipe.views(batch)
    online, target = (
        [recipe.model.apply(params, batch_norm, view, True)[0] for view in views]
        for params, batch_norm in ((state.online_params, state.online_state),
                                   (state.target_params, state.target_state)))
    gradients, *_ = train_step.compute_gradients(state, batch, recipe)
    new_state, scalars = train_step.train_step(state, batch, recipe)
    return (views, online, target, recipe.objective(online, target), gradients, new_state,
            scalars)

  one = jax.local_devices()[:1]
  parts = parallel.pmap_step(taken_apart, one)(
      parallel.replicate(state, one), next(prefetch.to_devices(iter([batch]), one)))
  return Trace(state, batch, *parallel.fetch(parts), loader.data.class_names)


def numbers(found: Trace, config: ml_collections.ConfigDict, tensor: tuple[str, str]
            ) -> dict[str, Any]:
  """The numbers in the text: those of image ROW, and of one weight tensor (module, name)."""
  vector = lambda values: ', '.join(f'{value:.3f}' for value in values[:4])
  length = lambda values: float(np.linalg.norm(values.astype(np.float64)))
  direction = lambda values: values / np.linalg.norm(values, axis=-1, keepdims=True)
  embedding, projection, prediction = (
      getattr(found.online[0], name) for name in ('embedding', 'projection', 'prediction'))
  other = found.target[1].projection
  cosines = direction(prediction) @ direction(other).T
  back = direction(found.online[1].prediction) @ direction(found.target[0].projection).T
  module, name = tensor
  theta, xi, gradient, moved, followed = (
      tree[module][name].astype(np.float64) for tree in (
          found.state.online_params, found.state.target_params, found.gradients,
          found.new_state.online_params, found.new_state.target_params))
  optimizer = config.train.optimizer_options
  decayed = gradient + optimizer.weight_decay * theta
  return dict(
      step=int(found.state.step), batch_size=len(found.losses),
      sample_id=int(found.batch['sample_id'][ROW]),
      label=class_name(found.class_names, int(found.batch['labels'][ROW])),
      side=found.views[0].shape[1], colours=[vector(v[ROW].mean(axis=(0, 1))) for v in found.views],
      embedding=vector(embedding[ROW]), embedding_size=embedding.shape[1],
      projection=vector(projection[ROW]), projection_size=projection.shape[1],
      prediction=vector(prediction[ROW]), target_projection=vector(other[ROW]),
      lengths=[length(x[ROW]) for x in (embedding, projection, prediction, other)],
      directions=[vector(direction(x[ROW])) for x in (prediction, other)],
      cosine=float(cosines[ROW, ROW]), cosine_back=float(back[ROW, ROW]),
      others=float(np.delete(cosines[ROW], ROW).mean()), loss=float(found.losses[ROW]),
      batch_loss=float(found.losses.mean()), tensor='/'.join(tensor), shape=list(theta.shape),
      theta_length=length(theta), gradient_length=length(gradient),
      ratio=optimizer.eta * length(theta) / length(decayed), **optimizer,
      learning_rate=float(found.scalars['learning_rate']), tau=float(found.scalars['tau']),
      moved=length(moved - theta), theta=[float(x.flat[0]) for x in (theta, moved)],
      xi=[float(x.flat[0]) for x in (xi, followed)],
      apart=length(theta - xi) / length(theta))


class Variant(NamedTuple):
  """Runs with one part removed, for several seeds.

  name: name of the change.
  paper: the paper's linear top-1 on ImageNet with this change, in percent.
  runs: one run per seed.
  """

  name: str
  paper: str
  runs: list[runs.Run]

  @property
  def collapsed(self) -> int:
    """How many of its runs count as collapsed for the monitor at the end."""
    return sum(bool(diagnosis.has_collapsed(run)) for run in self.runs)


def variants(points: Sequence[sweep.Point], paper: Mapping[str, str]) -> list[Variant]:
  """Groups the finished points of a sweep by variant.

  Args:
    points: points of all variants, in the order of `paper`; apart from seeds, each variant is
      one setting.
    paper: {name: the paper's number} for the variants.
  """
  found = compare.settings(runs.read([point.folder for point in points]))
  return [Variant(name, number, setting.runs)
          for (name, number), setting in zip(paper.items(), found, strict=True)]


def collapse_table(found: Sequence[Variant]) -> Table:
  """A row per variant: the last numbers, over seeds, and the monitor's verdict."""
  rows = []
  for variant in found:
    last = lambda metric, digits, scale=1, runs=variant.runs: mean_and_spread(
        [scale * run.last(metric) for run in runs], digits)
    rows.append([variant.name, last('train/byol_loss', 3), last('collapse/std', 3),
                 last('collapse/effective_rank', 1), last('knn/top1', 1, 100),
                 f'{variant.collapsed} of {len(variant.runs)}', variant.paper])
  return Table(['run', 'loss', 'spread', 'effective rank', 'held-out kNN top-1, %',
                'called collapsed', 'paper: linear top-1 on ImageNet, %'], rows, [])


def make(home: pathlib.Path, output: str | pathlib.Path, config: ml_collections.ConfigDict,
         module: Any) -> str:
  """Runs what is missing, writes the text and returns it.

  Args:
    home: folder of the runs.
    output: the file.
    config: config of the run that is taken apart.
    module: a sweep's config file with VARIANTS, {name: (changes, the paper's number)}.

  Raises:
    InputError: a run has failed.
  """
  output = pathlib.Path(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  files.check_writable(output)
  train.pretrain(config, home / 'demo')
  points = sweep.points(module.get_config, module.get_hyper, config_path=module.__file__,
                        overrides={}, workdir=home / 'collapse')
  failed = runner.run(points, slots=devices.divided(1), progress=lambda: None)
  if failed:
    raise InputError(f'{len(failed)} of the short runs failed; see {failed[0].folder}.')
  found = trace(config, home / 'demo', checkpoint.steps(home / 'demo')[0])
  return write(output, found, numbers(found, config, TENSOR), variants(
      points, {name: paper for name, (_, paper) in module.VARIANTS.items()}))


def write(output: str | pathlib.Path, found: Trace, values: Mapping[str, Any],
          found_variants: Sequence[Variant]) -> str:
  """Writes the text and, beside it, its picture; returns the text."""
  output = pathlib.Path(output)
  picture = output.with_suffix('.png')
  pictures.draw_views(picture, *(view[:8] for view in found.views))
  source = (importlib.resources.files('experiments.studies') / 'walkthrough.md').read_text()
  environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True,
                                   keep_trailing_newline=True)
  text = environment.from_string(source).render(
      values, picture=picture.name, table=markdown(collapse_table(found_variants)),
      seeds=len(found_variants[0].runs),
      collapsed=[v.name for v in found_variants if v.collapsed == len(v.runs)],
      healthy=[v.name for v in found_variants if not v.collapsed])
  with files.atomic_write(output) as file:
    file.write(text)
  return text
