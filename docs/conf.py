"""How `make docs` builds these pages: Sphinx, MyST Markdown, docstrings as the API reference."""

import inspect
import re

import byol_jax

# The first line of a section of a docstring, which napoleon lays out.
SECTION = re.compile(r'(Args|Returns|Raises|Attributes):$')

project = 'byol_jax'
release = byol_jax.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']
highlight_language = 'text'

html_theme = 'sphinx_book_theme'
html_title = 'byol_jax'
html_theme_options = dict(use_download_button=False, use_fullscreen_button=False,
                          show_toc_level=2, navigation_with_keys=False)
html_static_path = ['_static']
html_css_files = ['pages.css']

# Headings get the anchors that GitHub gives them.
myst_heading_anchors = 4

default_role = 'code'
autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

# Types of other libraries, and aliases that autodoc writes out, have no page here.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!byol_jax\.).*')]


def name_fields(app, what, name, obj, options, lines):
  """Gives the fields of a NamedTuple, `name: text` in its docstring, a section of their own."""
  fields = getattr(obj, '_fields', None) if inspect.isclass(obj) else None
  first = next((i for i, line in enumerate(lines) if fields and line.split(':')[0] in fields), None)
  if first is not None:
    lines[first:] = ['Attributes:', *('  ' + line for line in lines[first:])]


def mark_formulas(app, what, name, obj, options, lines):
  """Makes an indented formula within a docstring's prose a block of its own."""
  end = next((i for i, line in enumerate(lines) if SECTION.match(line)), len(lines))
  for i in reversed(range(1, end)):
    if lines[i].startswith(' ') and lines[i - 1].strip() and not lines[i - 1].startswith(' '):
      after = next((j for j in range(i, end) if not lines[j].startswith(' ')), end)
      lines[after:after] = ['']
      lines[i:i] = ['', '::', '']


def escape(app, what, name, obj, options, lines):
  """Stars and bars, as in `|p| * eta`, are text in docstrings and no markup."""
  literal = False
  for i, line in enumerate(lines):
    literal = line.endswith('::') or literal and (not line or line.startswith(' '))
    if not literal:
      parts = re.split(r'(`+[^`]*`+)', line)
      parts[::2] = [re.sub(r'[*|]', r'\\\g<0>', part) for part in parts[::2]]
      lines[i] = ''.join(parts)


def skip(app, what, name, obj, skipped, options):
  """Fields of a NamedTuple stand in the text of their class."""
  return True if type(obj).__name__ == '_tuplegetter' else skipped


def setup(app):
  """Connects the above."""
  # Before napoleon, whose priority is 500.
  app.connect('autodoc-process-docstring', name_fields, priority=100)
  app.connect('autodoc-process-docstring', mark_formulas, priority=200)
  app.connect('autodoc-process-docstring', escape, priority=300)
  app.connect('autodoc-skip-member', skip)
