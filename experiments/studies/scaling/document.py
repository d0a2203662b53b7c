"""The page on scale: tables computed from shapes and from the results saved beside it."""

from collections.abc import Mapping, Sequence
import importlib.resources
import math
import pathlib
from typing import Any, NamedTuple

import jinja2
import ml_collections

from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.plots.tables import Table, markdown
from experiments.studies.scaling import arithmetic, record, shapes

# Grill et al. 2020, section 3.3: ResNet-50 1x, all of ImageNet's training images.
PAPER = arithmetic.Published(accelerators=512, hours=8, epochs=1000, images=1_281_167,
                             batch_size=4096)
CLASSES = 1000
ACCELERATORS = (8, 64, 512)
# TPU v3: four chips of two cores per host.
CORES_PER_HOST = 8
# The available part of the 16 GiB, according to libtpu 0.0.42.1 when it refuses a program.
CORE_MEMORY = 15.48 * 2 ** 30
# https://cloud.google.com/tpu/docs/v3, per chip of two cores: 900 GB/s, 123 teraflops
# (bfloat16); all-reduce bandwidth of a pod of 1,024 chips: 340 TB/s.
CORE_MEMORY_RATE = 450e9
CORE_FLOPS = 61.5e12
CORE_LINK_RATE = 340e12 / 2048
# Assumed, not measured.
ETHERNET_RATE = 25e9 / 8
STORAGE_RATE = 200e6
# Measured with two processes on a CPU, jax 0.10.2: 20 to 22 ms for 1,119 leaves.
SECONDS_PER_LEAF = 18e-6


class Network(NamedTuple):
  """A network of the page.

  name: its name in words.
  sizes: sizes of its run.
  work: operations of its step, relative to the published run's.
  checkpoint_epochs: epochs between two checkpoints.
  """

  name: str
  sizes: arithmetic.Sizes
  work: float
  checkpoint_epochs: float


def networks(configs: Mapping[str, ml_collections.ConfigDict], compiled: Sequence[Mapping]
             ) -> list[Network]:
  """The networks of these configs, by name; the first is the published run's.

  Raises:
    InputError: they were not compiled with the same options, so their work cannot be compared.
  """
  first, *_ = configs.values()
  found = []
  for name, config in configs.items():
    recipe = shapes.recipe(config, PAPER.images, CLASSES)
    sizes = arithmetic.sizes(shapes.state(recipe, config.data.image_size))
    found.append(Network(name, sizes, _work(config, first, compiled),
                         config.checkpoint.every_epochs))
  return found


def _work(config, reference, compiled) -> float:
  """The ratio of the compiler's operation counts for two steps that differ only in the network.

  Raises:
    InputError: the two were not compiled with the same options.
  """
  options = lambda c: {key: c.model.encoder_options[key] for key in ('depth', 'width')}
  for row in record.find(compiled, **options(config)):
    alike = {key: row[key] for key in ('batch_per_core', 'dtype')}
    for other in record.find(compiled, **options(reference), **alike):
      if 'flops' in row and 'flops' in other:
        return row['flops'] / other['flops']
  raise InputError(f'No compilation of {options(config)} matches one of {options(reference)} to '
                   'compare with; make both with --compile.')


def input_table(network: Network, per_core: float) -> Table:
  """Images per second that a host must deliver; `per_core` is the rate of one host core."""
  rows = []
  for count in ACCELERATORS:
    hosts = count // CORES_PER_HOST
    seconds = arithmetic.scaled_seconds(PAPER, count, network.work)
    scaled, published = (arithmetic.host_images_per_second(PAPER.batch_size, s, hosts)
                         for s in (seconds, PAPER.seconds_per_step))
    rows.append([f'{count}', f'{hosts}', f'{PAPER.batch_size // count}', f'{1e3 * seconds:,.0f} ms',
                 f'{seconds * PAPER.steps / 86400:,.1f}', f'{scaled:,.0f}',
                 f'{scaled / per_core:.1f}', f'{published:,.0f}', f'{published / per_core:,.1f}'])
  return Table(['accelerators', 'hosts', 'images per accelerator', 'step', 'days, 1000 epochs',
                'images/s per host', 'host cores for it', 'images/s per host to end in 8 hours',
                'host cores for it'], rows, [])


def network_table(network: Network) -> Table:
  """Bytes that the all-reduces of a step send, and the minimum time for this."""
  rows, sizes = [], network.sizes
  for count in ACCELERATORS:
    hosts = count // CORES_PER_HOST
    seconds = arithmetic.scaled_seconds(PAPER, count, network.work)
    gradients = arithmetic.ring_bytes(sizes.parameter_bytes, count)
    moments = arithmetic.ring_bytes(
        arithmetic.batch_norm_bytes(sizes.batch_norm_channels), count)
    between = arithmetic.ring_bytes(sizes.parameter_bytes, hosts)
    rows.append([f'{count}', _megabytes(gradients), _megabytes(moments),
                 f'{1e3 * (gradients + moments) / CORE_LINK_RATE:.1f} ms',
                 f'{100 * (gradients + moments) / CORE_LINK_RATE / seconds:.2f} %',
                 _megabytes(between), f'{1e3 * between / ETHERNET_RATE:,.0f} ms',
                 f'{100 * between / ETHERNET_RATE / seconds:,.0f} %'])
  return Table(['accelerators', 'gradients, sent by each', 'BatchNorm, sent by each',
                'both over the links of a TPU v3', 'share of the step',
                'gradients, sent by each host', 'over 25 Gbit/s', 'share of the step'], rows, [])


def host_table(found: Sequence[Network], digest_rate: float) -> Table:
  """The host's work besides the input, and when it takes as long as a step."""
  rows = []
  for network in found:
    sizes = network.sizes
    dispatch = arithmetic.dispatch_seconds(sizes.state_leaves, SECONDS_PER_LEAF)
    interval = network.checkpoint_epochs * PAPER.images / PAPER.batch_size
    seconds = interval * arithmetic.scaled_seconds(PAPER, PAPER.accelerators, network.work)
    rows.append([network.name, f'{sizes.state_leaves:,}', f'{1e3 * dispatch:.0f} ms',
                 f'{arithmetic.break_even(PAPER, dispatch, network.work):,.0f}',
                 _megabytes(sizes.checkpoint_bytes),
                 f'{sizes.checkpoint_bytes / digest_rate:.1f} s',
                 f'{sizes.checkpoint_bytes / STORAGE_RATE:.1f} s', f'{seconds:,.0f} s'])
  return Table(['', 'arrays in the state', 'host time of a pmap call',
                'accelerators at which a step is as short', 'checkpoint', 'its digests',
                'written at 200 MB/s', 'between checkpoints at 512'], rows, [])


def size_table(found: Sequence[Network]) -> Table:
  """The counts from which the other tables are computed."""
  rows = [[n.name, f'{n.sizes.parameters:,}', _megabytes(n.sizes.parameter_bytes),
           f'{n.sizes.batch_norms}', f'{n.sizes.batch_norm_channels:,}',
           f'{arithmetic.batch_norm_reductions(n.sizes.batch_norms):,}',
           _megabytes(arithmetic.batch_norm_bytes(n.sizes.batch_norm_channels)),
           f'{n.work:.2f}'] for n in found]
  return Table(['', 'parameters', 'gradients', 'BatchNorm layers', 'their channels',
                'BatchNorm all-reduces per step', 'their bytes', 'work of a step'], rows, [])


def compiled_table(compiled: Sequence[Mapping[str, Any]]) -> Table:
  """The compiler's numbers; times are the minimum for a TPU v3 core."""
  rows = []
  for row in compiled:
    cells = [f'ResNet-{row["depth"]} {row["width"]:g}x', row['dtype'], row['topology'],
             f'{row["cores"]}', f'{row["batch_per_core"]}']
    if 'error' in row:
      cells += [f'refused: {row["error"]}', *[''] * 6]
    else:
      cells += [f'{row["memory_bytes"] / 2 ** 30:.2f} GiB',
                f'{100 * row["memory_bytes"] / CORE_MEMORY:.0f} %', f'{row["flops"] / 1e9:,.0f}',
                f'{1e3 * row["flops"] / CORE_FLOPS:.0f} ms', f'{row["accessed_bytes"] / 1e9:,.1f}',
                f'{1e3 * row["accessed_bytes"] / CORE_MEMORY_RATE:.0f} ms',
                f'{row["all_reduces"]}']
    rows.append([*cells, f'{row["compile_seconds"]:,.0f} s'])
  return Table(['network', 'dtype', 'topology', 'cores', 'images per core', 'memory of a core',
                'of 15.48 GiB', 'GFLOP per core', 'at 61.5 TFLOP/s', 'GB accessed', 'at 450 GB/s',
                'all-reduces', 'compiled in'], rows, [])


def rate_table(rates: Sequence[Mapping[str, float]]) -> Table:
  """The measured rates of one host's pipeline, by the number of hosts."""
  return Table(['hosts', 'shards of this host', 'images timed', 'images/s per core',
                'images/s by the clock'],
               [[f'{r["hosts"]}', f'{r["shards"]}', f'{r["images"]:,}',
                 f'{r["per_core_second"]:.0f}', f'{r["per_second"]:.0f}'] for r in rates], [])


def text(found: Sequence[Network], results: Mapping[str, Any]) -> str:
  """The page.

  Args:
    found: the networks; the first is the published run's.
    results: from `record.read`, with a measurement and compilations.

  Raises:
    InputError: the input pipeline has not been measured yet.
  """
  if not results['input']:
    raise InputError('The input pipeline has not been measured; add --measure --data_dir=DATA.')
  measured = results['input']
  # The slowest rate: that of a host in the largest or in the smallest run.
  per_core = min(rate['per_core_second'] for rate in measured['rates'])
  digest_rate = measured['digest_bytes_per_core_second']
  tables = dict(
      sizes=size_table(found), host=host_table(found, digest_rate),
      compiled=compiled_table(results['compiled']), rates=rate_table(measured['rates']))
  tables = {name: markdown(table) for name, table in tables.items()}
  each = [dict(name=n.name, input=markdown(input_table(n, per_core)),
               network=markdown(network_table(n))) for n in found]
  source = (importlib.resources.files('experiments.studies.scaling') / 'scaling.md').read_text()
  environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True,
                                   keep_trailing_newline=True)
  return environment.from_string(source).render(
      paper=PAPER, networks=found, tables=tables, each=each, measured=measured,
      per_core=per_core, compiled=results['compiled'], digest_rate=digest_rate,
      limits=_limits(found[0], per_core, results['compiled']))


def _limits(network: Network, per_core: float, compiled) -> dict[str, Any]:
  """The numbers for the text about limits, for the network of the published run.

  Raises:
    InputError: it was not compiled for two batch sizes.
  """
  sizes, seconds = network.sizes, PAPER.seconds_per_step
  rate = arithmetic.host_images_per_second(
      PAPER.batch_size, seconds, PAPER.accelerators // CORES_PER_HOST)
  sent = arithmetic.ring_bytes(sizes.parameter_bytes, PAPER.accelerators)
  rows = [row for row in record.find(compiled, depth=50, width=1.0, dtype='float32')
          if 'memory_bytes' in row]
  memory = sorted((row['batch_per_core'], row['memory_bytes']) for row in rows)
  if memory[0][0] == memory[-1][0]:
    raise InputError('ResNet-50 1x in float32 has been compiled for only one batch per core; use '
                     '--compile with another --batch_per_core.')
  largest = arithmetic.largest_batch(memory[0], memory[-1], CORE_MEMORY)
  merged = max(row['all_reduces'] for row in rows)
  return dict(
      rate=rate, cores=rate / per_core, times_96=96 * per_core / rate,
      gradient_break_even=arithmetic.break_even(PAPER, sent / CORE_LINK_RATE),
      ethernet_break_even=arithmetic.break_even(
          PAPER, 2 * sizes.parameter_bytes / ETHERNET_RATE),
      reductions=arithmetic.batch_norm_reductions(sizes.batch_norms), merged=merged,
      budget_ms=1e3 * seconds / merged, batches=(memory[0][0], memory[-1][0]), largest=largest,
      fewest=math.ceil(PAPER.batch_size / largest))


def write(output: str | pathlib.Path, configs: Mapping[str, ml_collections.ConfigDict],
          results: Mapping[str, Any]) -> None:
  """Writes the page of these networks; see `networks` and `text`."""
  output = pathlib.Path(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(output) as file:
    file.write(text(networks(configs, results['compiled']), results))


def _megabytes(size: float) -> str:
  return f'{size / 1e6:,.1f} MB'
