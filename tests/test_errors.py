"""How errors count."""

from byol_jax.errors import counted


def test_one_is_counted_otherwise_than_none_and_many():
  assert [counted(number, 'file') for number in range(3)] == ['0 files', '1 file', '2 files']
  assert [counted(number, 'class', 'classes') for number in (1, 2)] == ['1 class', '2 classes']
