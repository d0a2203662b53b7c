import numpy as np
import pytest

from byol_jax.config import as_json
from byol_jax.convert import architecture
from byol_jax.errors import InputError
from experiments.configs import default

SECTION = as_json(default.get_config())['model']


def params(**options):
  """Shapes of all parameters for options of the encoder."""
  section = dict(SECTION, encoder_options=dict(SECTION['encoder_options'], **options))
  return architecture.shapes(section, 10)[0]


@pytest.mark.parametrize('options', [
    dict(depth=50), dict(depth=200, width=2.), dict(depth=18), dict(depth=10, width=.25),
    dict(depth=101, version=2), dict(depth=34, width=4.), dict(depth='tiny'),
    dict(depth=18, first_projection=False)], ids=str)
def test_options_are_recognized(options):
  name, found = architecture.encoder_options(params(**options), 'file')
  assert name.startswith(('res_net', 'tiny_res_net'))
  wanted = dict(SECTION['encoder_options'], **options)
  assert found == {key: wanted[key] for key in found}
  assert set(wanted) - set(found) == {'padding', 'zero_init_last_scale', 'rematerialize'}


def test_heads_are_recognized():
  tree = architecture.shapes(dict(SECTION, projector=(64, 48, 32), predictor=(40, 32)), 0)[0]
  assert architecture.head_sizes(tree, 'projector') == (64, 48, 32)
  assert architecture.head_sizes(tree, 'predictor') == (40, 32)
  assert architecture.head_sizes(tree, 'nothing') == ()


def test_unknown_networks():
  tree = dict(params(depth=18))
  with pytest.raises(InputError, match=r'file: it has no ResNet'):
    architecture.encoder_options({}, 'file')
  for module in list(tree):
    if 'block_group_2/~/block_1' in module:
      del tree[module]
  with pytest.raises(InputError, match=r'\[2, 2, 1, 2\] basic blocks of 64 channels'):
    architecture.encoder_options(tree, 'file')
  with pytest.raises(InputError, match='kernel of 3 pixels'):
    architecture.encoder_options(params(depth=18, stem='small'), 'file')


def test_differences_name_missing_extra_and_other_tensors():
  wanted = dict(a=dict(w=np.zeros((2, 3), np.float32), b=np.zeros(3, np.float32)),
                c=dict(n=np.zeros((), np.int32)))
  found = dict(a=dict(w=np.zeros((3, 2), np.float64)), c=dict(n=np.zeros((), np.int64)),
               d=dict(w=np.ones(1, np.float32)))
  result = architecture.differences(found, wanted)
  assert result.missing == {'a/b': 'float32[3]'}
  assert result.extra == {'d/w': 'float32[1]'}
  assert result.other == {'a/w': 'float64[3, 2], where float32[2, 3] is needed'}
  assert '1 missing:\n  a/b float32[3]' in str(result)
  assert not architecture.differences(wanted, wanted)


def test_cast_keeps_the_numbers():
  tree = dict(c=dict(n=np.array(5, np.int64)))
  found = architecture.cast(tree, dict(c=dict(n=np.zeros((), np.int32))), 'file')
  np.testing.assert_array_equal(found['c']['n'], np.array(5, np.int32), strict=True)
