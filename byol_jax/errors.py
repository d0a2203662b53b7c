"""The error of a user's input: one line that says what, where and what to do."""


class InputError(ValueError):
  """A config, a file or a data set that cannot be used; the commands print it and exit."""
