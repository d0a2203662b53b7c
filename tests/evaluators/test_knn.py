import numpy as np
import pytest

from byol_jax.evaluation.contract import Features
from byol_jax.evaluators import knn
from tests.evaluators import by_features

fit, evaluate = by_features.functions(knn)
NUM_CLASSES = 7
OPTIONS = dict(num_classes=NUM_CLASSES, k=5, temperature=0.07)


def make_features(seed, count):
  """Overlapping clusters of very different lengths of embeddings, ids shuffled."""
  random = np.random.default_rng(seed)
  centres = np.random.default_rng(9).normal(size=(NUM_CLASSES, 6))
  labels = random.integers(0, NUM_CLASSES, count).astype(np.int32)
  embeddings = centres[labels] + random.normal(size=(count, 6))
  embeddings *= random.uniform(0.01, 100, (count, 1))
  return Features(embeddings.astype(np.float32), labels,
                  random.permutation(count).astype(np.int32))


@pytest.fixture(scope='module')
def train():
  return make_features(0, 100)


@pytest.fixture(scope='module')
def queries():
  return make_features(1, 45)


def brute_force(train, queries, k, temperature):
  """Classes of each query by descending votes, in float64, int [M, num_classes]."""
  order = np.argsort(train.sample_id)
  bank, queries = (
      part.astype(np.float64) / np.linalg.norm(part.astype(np.float64), axis=1, keepdims=True)
      for part in (train.embeddings[order], queries.embeddings))
  ranking = []
  for similarity in queries @ bank.T:
    votes = np.zeros(NUM_CLASSES)
    for neighbour in np.argsort(-similarity, kind='stable')[:k]:
      votes[train.labels[order][neighbour]] += np.exp(similarity[neighbour] / temperature)
    ranking.append(np.argsort(-votes, kind='stable'))
  return np.array(ranking)


@pytest.mark.parametrize('query_chunk, bank_chunk', [(1, 100), (10, 7), (45, 10), (1024, 1024)])
@pytest.mark.parametrize('k, temperature', [(1, 0.07), (12, 0.07), (12, 0.5), (100, 0.2)])
def test_against_brute_force(train, queries, query_chunk, bank_chunk, k, temperature):
  fitted = fit(train, queries, num_classes=NUM_CLASSES, k=k, temperature=temperature,
                   query_chunk=query_chunk, bank_chunk=bank_chunk)
  ranking = brute_force(train, queries, k, temperature)
  found = evaluate(fitted, queries)
  correct = ranking == queries.labels[:, None]
  assert found == pytest.approx(
      {'top1': correct[:, :1].any(axis=1).mean(), 'top5': correct[:, :5].any(axis=1).mean()})
  assert 0.3 < found['top1'] < 1


def test_predictions_against_brute_force(train, queries):
  fitted = fit(train, queries, **OPTIONS, query_chunk=10, bank_chunk=7)
  predicted = brute_force(train, queries, 5, 0.07)[:, 0]
  right = evaluate(fitted, queries._replace(labels=predicted))
  wrong = evaluate(fitted, queries._replace(labels=(predicted + 1) % NUM_CLASSES))
  assert (right['top1'], wrong['top1']) == (1, 0)


def test_a_tiny_temperature_leaves_the_nearest(train, queries):
  by_one = fit(train, queries, num_classes=NUM_CLASSES, k=1, temperature=1)
  cold = fit(train, queries, num_classes=NUM_CLASSES, k=50, temperature=1e-6)
  assert evaluate(by_one, queries)['top1'] == evaluate(cold, queries)['top1']


@pytest.mark.parametrize('bank_chunk', [1, 3, 20])
def test_of_equal_images_the_lower_ids_are_neighbours(bank_chunk):
  random = np.random.default_rng(0)
  ids = random.permutation(20).astype(np.int32)
  # Ids 0 to 2 are of class 4, the others, just as near, of the lower class 1.
  train = Features(np.tile(np.float32([[0, 2]]), (20, 1)), np.where(ids < 3, 4, 1), ids)
  query = Features(np.float32([[0, 1]]), np.array([4]), np.array([0]))
  top1 = {}
  for k in (5, 7):
    fitted = fit(train, query, num_classes=NUM_CLASSES, k=k, temperature=0.07,
                     bank_chunk=bank_chunk)
    top1[k] = evaluate(fitted, query)['top1']
  assert top1 == {5: 1, 7: 0}


def test_to_an_embedding_of_zeros_all_images_are_equal(train):
  lowest = train.labels[np.argmin(train.sample_id)]
  query = Features(np.zeros((1, 6), np.float32), np.array([lowest]), np.array([0]))
  fitted = fit(train, query, num_classes=NUM_CLASSES, k=1, temperature=0.07)
  assert evaluate(fitted, query)['top1'] == 1


@pytest.mark.parametrize('label, top1', [(2, 1), (3, 0)])
def test_of_equal_votes_the_lower_class_wins(label, top1):
  train = Features(np.float32([[1, 0], [1, 0]]), np.array([3, 2]), np.array([0, 1]))
  query = Features(np.float32([[1, 0]]), np.array([label]), np.array([0]))
  fitted = fit(train, query, num_classes=NUM_CLASSES, k=2, temperature=0.07)
  assert evaluate(fitted, query)['top1'] == top1


def test_an_embedding_of_zeros_is_a_neighbour_of_none(train, queries):
  embeddings = np.concatenate([train.embeddings, np.zeros((1, 6), np.float32)])
  more = Features(embeddings, np.append(train.labels, 0), np.append(train.sample_id, 100))
  found, expected = (
      evaluate(fit(bank, queries, **OPTIONS), queries) for bank in (more, train))
  assert found == expected


def test_describe(train, queries):
  described = knn.describe(fit(train, queries, **OPTIONS))
  assert 'Wu et al. 2018' in described.pop('protocol')
  assert described == dict(OPTIONS, train_images=100, validation_images=45)


@pytest.mark.parametrize('changes, message', [
    (dict(k=101), r'knn.k is 101 but there are 100 training images; set k to 1 \.\.\. 100'),
    (dict(num_classes=6), r'labels run from 0 to 6, outside 0 \.\.\. 5'),
])
def test_options_out_of_range(train, queries, changes, message):
  with pytest.raises(ValueError, match=message):
    fit(train, queries, **{**OPTIONS, **changes})


def test_unlabelled_images(train, queries):
  with pytest.raises(ValueError, match='100 train images have no labels'):
    fit(train._replace(labels=None), queries, **OPTIONS)
  with pytest.raises(ValueError, match='45 test images have no labels'):
    evaluate(fit(train, queries, **OPTIONS), queries._replace(labels=None))
