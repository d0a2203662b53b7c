"""The error for user input: one line that says what is wrong, where, and what to do."""


class InputError(ValueError):
  """A config, file or data set cannot be used; the commands print the message and exit."""


def counted(number: int, one: str, many: str = '') -> str:
  """A number with its noun: '1 file', '2 files'; `many` is for plurals that do not end in -s."""
  return f'{number} {one if number == 1 else many or one + "s"}'
