"""Evaluates encoders, frozen or fine-tuned; prints a table, writes results.json and results.md.

  python -m experiments.evaluate --config=experiments/configs/eval/linear_features.py \\
      --checkpoint=DIR --workdir=DIR2
"""

from absl import flags

from experiments import command_line
from byol_jax import evaluate
from byol_jax.evaluation import results
from byol_jax.plots import tables


def main() -> None:
  arguments = flags.FLAGS
  found = evaluate.evaluate(arguments.config, arguments.checkpoint, arguments.workdir)
  if found:
    print(tables.markdown(tables.scores([found])))
    print(f'Protocols, choices and counts: {arguments.workdir}/{results.RESULTS}')


if __name__ == '__main__':
  command_line.run(main, job=True, kind='evaluation', config='File with get_config().',
                   checkpoint='Workdir of a pretraining run.', workdir='Folder for the results.')
