"""Explains a run's numbers in words: collapse, loss, quality and speed."""

import math
from typing import NamedTuple

from byol_jax import monitor
from byol_jax.plots.tables import cell
from byol_jax.report.runs import Run

# Waiting for data is reported as a problem above this share of the training time.
LONG_WAIT = 0.1


class Finding(NamedTuple):
  """A sentence or two about a run.

  kind: 'good', 'bad', 'note', or 'missing' if there are no numbers.
  title: a few words.
  text: the numbers, and what to try.
  """

  kind: str
  title: str
  text: str


NORMAL = (
    ('Loss', 'Both directions summed, 0 (all predictions exact) to 8 (all opposite); about 4 for '
     'unrelated vectors. It falls steeply during the warm-up, then slowly, and may rise again '
     'while the representation improves: the target gets harder to predict. It does not measure '
     'quality: collapsed runs have the lowest losses.'),
    ('Spread of the projections', 'The standard deviation of the normalised projections, times '
     'the square root of their dimension: 1 when they cover the whole sphere, 0 when all are the '
     f'same. Healthy runs stay above 0.5. The monitor warns below {monitor.SMALLEST_STD}.'),
    ('Effective rank of the projections', 'The number of directions that the projections use, '
     'between 1 and their dimension; 0 if all are the same. '
     f'The monitor warns below {monitor.SMALLEST_RANK}: one line, or one point.'),
    ('Effective rank of the embeddings', 'The same for the embeddings of held-out images, which '
     'are what is used later. In a partial (dimensional) collapse it stays near 3: the encoder '
     'then tells apart few things, and its map is a thin line. Small networks without negatives '
     'tend to it (arXiv 2209.15007). The monitor warns below '
     f'{monitor.SMALLEST_EMBEDDING_RANK:g} in the second half of a run. The log also has RankMe '
     '(arXiv 2210.02885), which counts weak directions more.'),
    ('Online probe and kNN', 'The probe is a linear classifier trained during the run, on '
     'augmented images; kNN uses held-out images without augmentation. Both should rise above '
     'chance within the first epochs. The projections collapse before the embedding: a collapsed '
     'run may look good for some epochs, and ends like a random encoder, above chance.'),
    ('If it has collapsed', 'Try, one at a time: a lower train.base_learning_rate; a longer '
     'train.warmup_epochs; train.base_tau closer to 1, such as 0.99 or 0.996; the '
     "paper's train.optimizer_options.weight_decay of 1.5e-6. Check that there is a predictor, "
     'that train.target is moving_average and that the heads have BatchNorm.'),
    ('If it has partly collapsed', f'Try, one at a time: {"; ".join(monitor.REMEDIES)}.'),
)
COLLAPSED, PARTLY, NOT, UNKNOWN = 'collapsed', 'partly', 'no', 'not known'


def findings(run: Run) -> list[Finding]:
  """All findings about a run, its state first."""
  found = [_state(run)]
  if run.config:
    found += [_collapse(run), _loss(run), _quality(run), _speed(run)]
  damaged = [*run.problems, *run.damaged.values()]
  return found + [Finding('bad', 'Damaged file', text) for text in damaged]


def has_collapsed(run: Run) -> bool | None:
  """Whether the last statistics count as collapsed for the monitor; None if there are none."""
  std, rank = run.last('collapse/std'), run.last('collapse/effective_rank')
  return None if std is None or rank is None else monitor.has_collapsed(std, rank)


def verdict(run: Run) -> str:
  """COLLAPSED, PARTLY, NOT or UNKNOWN: the last statistics, as the monitor judges them."""
  if (collapsed := has_collapsed(run)) is None or not run.config:
    return UNKNOWN
  if collapsed:
    return COLLAPSED
  return {'bad': PARTLY, 'good': NOT}.get(_embeddings(run, '').kind, UNKNOWN)


def _state(run: Run) -> Finding:
  if run.failure:
    lines = '\n'.join(run.failure.get('last_lines', []))
    return Finding('bad', 'Failed', f'{run.failure.get("stage")} ended with code '
                   f'{run.failure.get("code")} after step {run.step}. Its last lines:\n{lines}')
  if run.state == 'finished':
    return Finding('good', 'Finished', f'All {run.step} steps were done.')
  if run.state == 'not started':
    return Finding('missing', 'Not started', 'The folder has no config.json.')
  return Finding('note', 'Unfinished', f'Step {run.step} of {run.resolved["max_steps"]}: it is '
                 'running or was interrupted; the same command resumes it.')


def _collapse(run: Run) -> Finding:
  collapsed = has_collapsed(run)
  if collapsed is None:
    return Finding('missing', 'Collapse', 'No statistics of the projections were logged '
                   '(log.every_steps is 0, or the run has just begun).')
  steps, stds = run.series('collapse/std')
  ranks = run.series('collapse/effective_rank')[1]
  size = run.config['model']['projector'][-1]
  if not (math.isfinite(stds[-1]) and math.isfinite(ranks[-1])):
    return Finding('bad', 'Not finite', f'Spread {stds[-1]}, effective rank {ranks[-1]} at step '
                   f'{steps[-1]}: the run has diverged.')
  numbers = (f'Spread {stds[-1]:.2f}, effective rank {ranks[-1]:.1f} of {size} at step '
             f'{steps[-1]}.')
  bad = [step for step, std, rank in zip(steps, stds, ranks) if monitor.has_collapsed(std, rank)]
  if collapsed:
    return Finding('bad', 'Collapsed', f'{numbers} The network gives nearly the same output for '
                   f'every image; first seen at step {bad[0]}. Such an encoder is useless.')
  found = _embeddings(run, (
      f'{numbers} It counted as collapsed in {len(bad)} of {len(steps)} reports, the last at step '
      f'{bad[-1]}.' if bad else f'{numbers} No report was below the limits '
      f'({monitor.SMALLEST_STD} and {monitor.SMALLEST_RANK}).'))
  if bad and found.kind == 'good':
    return Finding('note', 'Not collapsed in the end', found.text)
  return found


def _embeddings(run: Run, projections: str) -> Finding:
  """The verdict on a run whose projections have not collapsed."""
  steps, ranks = run.series('embeddings/effective_rank')
  if not ranks:
    return Finding('note', 'The projections have not collapsed', f'{projections} The embeddings '
                   'were not evaluated (evals.every_epochs is 0, or it is too early), so a partial '
                   'collapse cannot be excluded.')
  numbers = (f'Effective rank of the held-out embeddings {ranks[-1]:.1f} at step {steps[-1]}, '
             f'{ranks[0]:.1f} at step {steps[0]}. Projections: {projections}')
  spectra = run.spectra()
  if not math.isfinite(ranks[-1]) or not spectra:
    return Finding('note', 'The spectrum is not known', numbers)
  if not monitor.is_narrow(ranks[-1], len(spectra[-1][1])):
    return Finding('good', 'Not collapsed', numbers)
  if not monitor.has_settled(steps[-1], run.resolved['max_steps']):
    return Finding('note', 'Too early to tell', f'{numbers} The embeddings vary in few directions, '
                   'as they often do in the first half of a run.')
  return Finding('bad', 'Partly collapsed', f'{numbers} The embeddings vary in few directions: '
                 f'the limit is {monitor.SMALLEST_EMBEDDING_RANK:g}. See below what to try.')


def _loss(run: Run) -> Finding:
  steps, losses = run.series('train/byol_loss')
  if not losses:
    return Finding('missing', 'Loss', 'No loss was logged.')
  if not math.isfinite(losses[-1]):
    return Finding('bad', 'The loss is not finite', f'{losses[-1]} at step {steps[-1]}. Try a '
                   'lower train.base_learning_rate or a longer train.warmup_epochs.')
  low = min(losses)
  numbers = (f'{cell(losses[0])} at step {steps[0]}, {cell(losses[-1])} at step {steps[-1]}, '
             f'lowest {cell(low)} at step {steps[losses.index(low)]}.')
  if len(losses) > 2 and losses[-1] > .95 * losses[0]:
    return Finding('note', 'The loss has not fallen', f'{numbers} Check whether the learning rate '
                   'is far too low or too high, or whether the target is fixed (base_tau 1).')
  if has_collapsed(run):
    return Finding('note', 'The loss is that of a collapsed run', numbers)
  return Finding('good', 'The loss has fallen', f'{numbers} Its value says nothing about '
                 'the quality.')


def _quality(run: Run) -> Finding:
  steps, values = run.series('knn/top1')
  if not values:
    why = 'the data have no labels'
    if run.resolved.get('num_classes'):
      why = ('no evaluation has been made yet' if run.config['evals']['every_epochs']
             else 'evals.every_epochs is 0')
    return Finding('missing', 'Quality during the run', f'Not measured: {why}. '
                   'Evaluate the encoder on a labelled data set.')
  chance = 100 / run.resolved['num_classes']
  text = (f'Held-out kNN top-1: {100 * values[0]:.1f} % at step {steps[0]}, '
          f'{100 * values[-1]:.1f} % at step {steps[-1]}; chance {chance:.1f} %.')
  if 100 * values[-1] < 1.5 * chance:
    return Finding('bad', 'The representation is near chance', text)
  if has_collapsed(run):
    return Finding('note', 'The embedding will follow the projections', f'{text} Such a score '
                   'does not last.')
  if values[-1] < .95 * max(values):
    best = steps[values.index(max(values))]
    return Finding('note', 'The representation has become worse', f'{text} The best was '
                   f'{100 * max(values):.1f} % at step {best}.')
  return Finding('good', 'The representation has learned', text)


def _speed(run: Run) -> Finding:
  speed = run.last('time/images_per_second')
  waited, trained = (sum(run.series(f'time/{name}_seconds')[1]) for name in (
      'data_wait', 'training'))
  if speed is None or not trained:
    return Finding('missing', 'Speed', 'Not logged.')
  share = waited / (waited + trained)
  text = f'{speed:.0f} images/s at the end, {100 * share:.0f} % of the time waiting for data.'
  if share > LONG_WAIT:
    return Finding('note', 'The data are the bottleneck', f'{text} Try more data.workers, '
                   'data.pipeline=memory for a set that fits, or smaller images on disk.')
  return Finding('good', 'The data keep up', text)
