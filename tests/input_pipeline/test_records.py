import numpy as np
import pytest

from byol_jax.input_pipeline.records import DataError, Shards, one_host


@pytest.mark.parametrize('shards, expected', [
    (Shards(), range(10)), (Shards(4, (1,)), [1, 5, 9]), (Shards(4, (0, 3)), [0, 3, 4, 7, 8]),
    (Shards(12, (11,)), [])])
def test_shards_own_the_ids_of_their_residues(shards, expected):
  ids = shards.sample_ids(10)
  assert ids.dtype == np.int32 and ids.tolist() == list(expected)


@pytest.mark.parametrize('count', [1, 2, 4, 8])
def test_hosts_share_the_virtual_shards_in_order(count):
  hosts = [one_host(i, count, 8) for i in range(count)]
  assert all(host.total == 8 and len(host.owned) == 8 // count for host in hosts)
  assert [shard for host in hosts for shard in host.owned] == list(range(8))
  assert sorted(np.concatenate([host.sample_ids(21) for host in hosts])) == list(range(21))


def test_hosts_that_do_not_divide_the_virtual_shards_are_an_error():
  with pytest.raises(DataError, match='data.virtual_shards is 8, which 3 hosts cannot share '
                                      'equally; set it to a multiple of 3'):
    one_host(0, 3, 8)
