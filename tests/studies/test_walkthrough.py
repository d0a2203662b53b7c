"""The walk-through takes a real step apart: its numbers are those of the run."""

import re

import numpy as np
import optax
import pytest

from byol_jax import train
from experiments.studies import walkthrough
from tests import tiny, tiny_collapse

TENSOR = walkthrough.TENSOR
# Every test needs a run and a step taken apart, by each process that has some of them.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """Folder of a run that keeps the checkpoints of steps 8 and 12."""
  home = tmp_path_factory.mktemp('home')
  train.pretrain(tiny.config(), home / 'demo')
  return home


@pytest.fixture(scope='module')
def found(home):
  return walkthrough.trace(tiny.config(), home / 'demo', 8)


@pytest.fixture(scope='module')
def numbers(found):
  return walkthrough.numbers(found, tiny.config(), TENSOR)


def test_the_step_is_the_next_one_of_the_run(found, home):
  assert found.state.step == 8 and found.new_state.step == 9
  stopped = tiny.config(train__stop_at_step=9, log__every_steps=1, checkpoint__every_epochs=0.0)
  state = train.pretrain(stopped, home / 'stopped')
  for module, arrays in state.online_params.items():
    for name, array in arrays.items():
      np.testing.assert_allclose(found.new_state.online_params[module][name], array, 1e-3, 1e-5)


def test_the_loss_follows_from_the_cosines(numbers, found):
  assert numbers['loss'] == pytest.approx(
      4 - 2 * numbers['cosine'] - 2 * numbers['cosine_back'], abs=1e-5)
  assert numbers['batch_loss'] == pytest.approx(float(found.scalars['byol_loss']), rel=1e-5)
  assert numbers['batch_size'] == 16 and numbers['side'] == 16


def test_the_target_follows_by_the_printed_equation(numbers):
  assert numbers['xi'][1] == pytest.approx(
      numbers['tau'] * numbers['xi'][0] + (1 - numbers['tau']) * numbers['theta'][1], abs=1e-6)


def test_the_trust_ratio_gives_the_step(numbers, found):
  module, name = TENSOR
  old = optax.tree.get(found.state.opt_state, 'trace')[module][name]
  gradient = found.gradients[module][name] + (
      numbers['weight_decay'] * found.state.online_params[module][name])
  momentum = numbers['momentum'] * old + numbers['ratio'] * gradient
  assert numbers['moved'] == pytest.approx(
      numbers['learning_rate'] * np.linalg.norm(momentum), rel=1e-3)


@pytest.mark.slow
def test_the_text_holds_the_numbers_and_every_variant(home):
  walkthrough.make(home, home / 'text.md', tiny.config(), tiny_collapse)
  text = (home / 'text.md').read_text()
  assert '{{' not in text and '{%' not in text and 'nan' not in text
  rows = [line for line in text.splitlines() if line.startswith(tuple(
      f'| {name} |' for name in tiny_collapse.VARIANTS))]
  assert len(rows) == 2 and all(re.search(r'\| [01] of 1 \|', row) for row in rows)
  assert (home / 'text.png').read_bytes().startswith(b'\x89PNG')


def test_the_text_in_the_docs_is_of_this_template():
  """The committed text differs from the template in its numbers only."""
  import importlib.resources
  import pathlib
  template = (importlib.resources.files('experiments.studies') / 'walkthrough.md').read_text()
  folder = pathlib.Path(__file__).parents[2] / 'docs' / 'measurements'
  text = (folder / 'walkthrough.md').read_text()
  for line in template.splitlines():
    if '{' not in line:
      assert line in text, line
