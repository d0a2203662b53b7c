"""Which ResNet of a file is taken, under the names that public programs give it."""

import numpy as np
import pytest

from byol_jax.convert import torch_encoder
from byol_jax.errors import InputError

PARTS = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')
INSIDE = {'conv1': ('weight',), 'bn1': ('weight', 'bias', 'running_mean', 'running_var')}
NAMES = [f'{part}.{name}' for part in PARTS
         for name in INSIDE.get(part, ('0.conv1.weight', '0.bn1.weight', '1.conv1.weight'))]


def resnet(prefix='', parts=PARTS):
  """{name: name as torchvision has it}, in the place of tensors."""
  renamed = dict(zip(PARTS, parts))
  return {f'{prefix}{renamed[name.split(".")[0]]}.{name.partition(".")[2]}': name for name in NAMES}


ITSELF = {name: name for name in NAMES}
LIGHTLY = ('0', '1', '4', '5', '6', '7')


@pytest.mark.parametrize('state_dicts, prefix, left', [
    ({(): resnet()}, None, []),
    ({(): resnet() | {'fc.weight': 1}}, None, ['fc.weight']),
    ({('state_dict',): resnet('module.')}, None, []),
    ({(): resnet('_orig_mod.')}, None, []),
    ({('model', 'state_dict', 'inner'): resnet('net.')}, 'net.', []),
    ({('state_dict',): resnet('module.encoder_q.') | resnet('module.encoder_k.')},
     'module.encoder_q.', sorted(resnet('module.encoder_k.'))),
    ({('teacher',): resnet('backbone.'), ('student',): resnet('module.backbone.'),
      ('optimizer', 'state', '0'): {'momentum': 1}, ('optimizer', 'state', '1'): {'momentum': 1}},
     'teacher.backbone.', ['optimizer', 'student']),
    ({('teacher',): resnet('backbone.'), ('student',): resnet('module.backbone.')},
     'module.backbone.', ['teacher']),
    ({('model',): resnet(), ('model_ema',): resnet()}, 'model_ema.', ['model']),
    ({('model',): resnet(), ('optimizer',): {'step': 1}, (): {'epoch': 1}}, None,
     ['optimizer', 'tensors at the top']),
    ({('state_dict',): resnet('backbone.', LIGHTLY) | {'head.0.weight': 1}}, None,
     ['head.0.weight']),
    ({(): resnet('', LIGHTLY)}, None, []),
    ({(): resnet('f.', ('0', '1', '3', '4', '5', '6'))}, None, []),
    ({(): resnet('backbone.', LIGHTLY) | resnet('momentum.', LIGHTLY)}, 'momentum.',
     sorted(resnet('backbone.', LIGHTLY))),
    ({('a', 'b'): resnet('c.d.'), ('a',): resnet('b.c.d.')}, 'b.c.d.', ['a.b']),
    ({(): resnet() | resnet('ema.')}, '', sorted(resnet('ema.')))])
def test_the_encoder_is_found(state_dicts, prefix, left):
  assert torch_encoder.find(state_dicts, prefix, 'a.pth') == (ITSELF, left)


@pytest.mark.parametrize('state_dicts, prefix, message', [
    ({('teacher',): resnet('backbone.'), ('student',): resnet('module.backbone.')}, None,
     'a.pth: it has 2 ResNets, but one is needed; choose with --prefix: '
     "'teacher.backbone.', 'student.module.backbone.'."),
    ({('state_dict',): resnet('module.encoder_q.') | resnet('module.encoder_k.')}, None,
     'a.pth: it has 2 ResNets, but one is needed; choose with --prefix: '
     "'module.encoder_q.', 'module.encoder_k.'."),
    ({('model',): resnet(), ('model_ema',): resnet()}, '',
     'a.pth: it has 2 ResNets, but one is needed; choose with --prefix: '
     "'model.', 'model_ema.'."),
    ({('teacher',): resnet('backbone.'), ('student',): resnet('module.backbone.')}, 'net.',
     "a.pth: it has no ResNet with the prefix 'net.'; the 2 that it has have the prefixes: "
     "'teacher.backbone.', 'student.module.backbone.'."),
    ({(): resnet()}, 'net.', "a.pth: it has no ResNet with the prefix 'net.'; the one that it "
     'has is without a prefix; leave --prefix out.'),
    ({('a',): resnet('b.')}, '', 'a.pth: it has no ResNet without a prefix; the one that it '
     "has is with the prefix 'b.'; leave --prefix out."),
    ({(): resnet() | resnet('ema.')}, None, 'a.pth: it has 2 ResNets, but one is needed; '
     "choose with --prefix: none (--prefix=), 'ema.'."),
    ({('a', 'b'): resnet('c.d.'), ('a',): resnet('b.c.d.')}, 'a.b.c.d.',
     "a.pth: it has 2 ResNets, but one is needed; choose with --prefix: 'c.d.', 'b.c.d.'."),
    ({('a', 'b'): resnet('c.d.'), ('a.b',): resnet('c.d.')}, None, 'a.pth: it has 2 ResNets with '
     "the prefix 'c.d.', which --prefix cannot tell apart; save only the one that is needed, "
     'with torch.save(model.state_dict(), FILE).'),
    ({('model',): {'patch_embed.proj.weight': 1, 'blocks.0.attn.weight': 1, 'blocks.0.norm': 1}},
     None, 'a.pth: it has no ResNet under the names of torchvision and timm, conv1.weight, '
     'layer1.0.conv1.weight, ..., or of nn.Sequential, 0.weight, 4.0.conv1.weight, ..., with any '
     "prefix. Its names start with 'model.patch_embed', 'model.blocks'."),
    ({(): {name.replace('conv1.w', 'conv1.0.w') if name == 'conv1.weight' else name: 1
           for name in NAMES}}, None,
     "a.pth: its ResNet has a stem of several convolutions (ResNet-D, like timm's resnet50d), "
     'unlike the ResNets here.')])
def test_what_is_found_instead_of_one_encoder(state_dicts, prefix, message):
  with pytest.raises(InputError) as error:
    torch_encoder.find(state_dicts, prefix, 'a.pth')
  assert str(error.value) == message


def test_many_names_are_cut_short():
  with pytest.raises(InputError, match="'a.8', 'a.9' and 30 more"):
    torch_encoder.find({(): {f'a.{i}.weight': 1 for i in range(40)}}, None, 'a.pth')


def shapes(**changed):
  """The first block of a ResNet-50, with other shapes; None leaves a tensor out."""
  block = {'conv1.weight': (64, 3, 7, 7), 'bn1.running_mean': (64,),
           'layer1.0.conv1.weight': (64, 64, 1, 1), 'layer1.0.conv2.weight': (64, 64, 3, 3),
           'layer1.0.conv3.weight': (256, 64, 1, 1)}
  block |= {name.replace('__', '.'): shape for name, shape in changed.items()}
  return {name: np.zeros(shape, np.float32) for name, shape in block.items() if shape is not None}


@pytest.mark.parametrize('weights, words', [
    (shapes(), ''), (shapes(layer1__0__conv3__weight=None), ''), ({'conv1.weight': np.zeros(3),
                                                                  'bn1.running_mean': 0}, ''),
    (shapes(conv1__bias=(64,)), 'its convolutions have biases'),
    (shapes(bn1__running_mean=None), 'it has no running statistics of BatchNorm'),
    (shapes(layer1__0__conv1__weight=(128, 64, 1, 1), layer1__0__conv2__weight=(128, 4, 3, 3)),
     'its convolutions have 32 groups (ResNeXt)'),
    (shapes(layer1__0__conv1__weight=(128, 64, 1, 1), layer1__0__conv2__weight=(128, 128, 3, 3)),
     'its bottlenecks are 128 channels wide inside and 256 outside (a wide ResNet')])
def test_resnets_that_are_not_ours_are_called_by_what_they_are(weights, words):
  found = torch_encoder.unlike(weights)
  assert found.startswith(words) and bool(found) == bool(words)
