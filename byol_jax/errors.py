"""The error of a user's input: one line that says what, where and what to do."""


class InputError(ValueError):
  """A config, a file or a data set that cannot be used; the commands print it and exit."""


def counted(number: int, one: str, many: str = '') -> str:
  """A number with its noun: '1 file', '2 files'; `many` is for plurals that do not end in -s."""
  return f'{number} {one if number == 1 else many or one + "s"}'
