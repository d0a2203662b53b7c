"""Tables of scores as Markdown."""

import pytest

from byol_jax.errors import InputError
from byol_jax.plots import tables


def results(seed, **top1):
  return dict(seed=seed, step=7, test_split_reads=1, dataset='shapes', chance=.1,
              images=dict(train=80, validation=10, test=20),
              encoders={name: dict(knn=dict(top1=value)) for name, value in top1.items()})


def text_of(*found):
  return tables.markdown(tables.scores(found))


def test_one_result_is_printed_as_it_is():
  text = text_of(results(3, pretrained=.5, random=.25))
  assert '| BYOL, frozen | 50.0 |\n| random encoder | 25.0 |' in text
  assert '20 test images of shapes' in text and 'chance 10.0' in text and 'seed 3.' in text
  assert '+-' not in text and 'unreadable' not in text


def test_columns_are_named_and_linear_evaluation_has_its_top5():
  result = results(0, pretrained=.5)
  result['encoders']['pretrained'] |= dict(linear=dict(top1=.25, top5=.75),
                                           linear_features=dict(top1=.3, top5=.8))
  text = text_of(result | dict(unreadable=dict(test=3)))
  assert ('| encoder | kNN top-1 | linear (C.1) top-1 | linear (C.1) top-5 '
          '| linear on features top-1 |') in text
  assert '| BYOL, frozen | 50.0 | 25.0 | 75.0 | 30.0 |' in text
  assert '(3 of them unreadable and left out)' in text and 'differs' not in text
  result['encoders']['pretrained']['linear']['differs_from_paper'] = ['epochs 2.0 (80.0)']
  assert ('linear (C.1) differs from the paper, whose values are in brackets: epochs 2.0 (80.0).'
          in text_of(result))


def test_it_is_said_where_held_out_images_are_trained_on_in_the_end():
  result = results(0, pretrained=.5)
  assert 'together' not in text_of(result)
  row = result['encoders']['pretrained']
  row['linear_transfer'] = row['fine_tuned_transfer'] = dict(top1=.3, metric='top1')
  assert ('linear (D.2) and fine-tuned (D.3): after the choice trained on the training and the '
          'held-out images together.') in text_of(result)


def test_draws_of_a_few_images_have_their_spread():
  rows = [results(seed, pretrained=.5) for seed in (0, 1)]
  for row, mean in zip(rows, (.3, .4)):
    row['encoders']['pretrained']['few_shot'] = dict(top1_5_shots=mean, top1_5_shots_std=.0123)
  text = text_of(rows[0])
  assert '| encoder | kNN top-1 | few-shot top-1, 5 per class |' in text
  assert '| BYOL, frozen | 50.0 | 30.0 +- 1.2 |' in text and 'over the draws of the images' in text
  # Of several seeds it is theirs.
  text = text_of(*rows)
  assert '| 50.0 +- 0.0 | 35.0 +- 7.1 |' in text and 'draws' not in text


def test_an_encoder_that_is_fine_tuned_is_not_called_frozen():
  result = results(0, pretrained=.5)
  result['encoders']['pretrained']['semi_supervised'] = dict(top1=.3)
  assert '| BYOL | 50.0 | 30.0 |' in text_of(result)
  assert tables.name_of('pretrained', frozen=True) == 'BYOL, frozen'
  assert [tables.name_of(name, frozen=False) for name in ('pretrained', 'pixels', 'own')] == [
      'BYOL', 'raw pixels', 'own']


def test_retrieval_says_what_was_counted_or_what_is_missing():
  counted = dict(map=.5, rank1=.4, rank5=.6, rank10=.7, recall_10=.2, whitening=0, rerank=False,
                 queries=3, gallery_images=9, queries_without_match=1, chance_map=.125)
  result = results(0)
  result['encoders'] = dict(pretrained=dict(retrieval=counted))
  text = text_of(result)
  assert '| BYOL, frozen | 50.0 | 40.0 | 60.0 | 70.0 |' in text
  assert ('Retrieval: 3 queries in a gallery of 9 images; 1 queries without a match left out; mAP '
          'of a random order about 12.5.') in text and 'held-out ones' not in text
  del counted['queries']
  with pytest.raises(InputError, match="results of retrieval have no 'queries'; evaluate again."):
    text_of(result)


def test_images_of_several_labels_have_no_chance():
  assert 'held-out ones. Last checkpoint' in text_of(results(0, pretrained=.5) | dict(chance=None))


def test_several_results_give_mean_and_sample_standard_deviation():
  text = text_of(*(results(seed, pretrained=value) for seed, value in enumerate((.5, .6, .7))))
  assert '| BYOL, frozen | 60.0 +- 10.0 |' in text
  assert 'seeds 0, 1, 2' in text and 'standard deviation' in text
