"""How `make docs` builds these pages: Sphinx, MyST Markdown, docstrings as the API reference."""

import inspect
import re

import byol_jax

# The first line of a section of a docstring, which napoleon lays out.
SECTION = re.compile(r'(Args|Returns|Raises|Fields):$')

project = 'byol_jax'
author = 'the authors of byol_jax'
release = byol_jax.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']
highlight_language = 'text'

html_theme = 'sphinx_book_theme'
html_title = 'byol_jax'
html_theme_options = dict(
    use_download_button=False, use_fullscreen_button=False, navigation_with_keys=False,
    show_toc_level=2, footer_content_items=[],
    # The search field stands above the navigation.
    navbar_start=[], navbar_center=[], navbar_end=[], navbar_persistent=[])
html_static_path = ['_static']
html_css_files = ['pages.css']

# Headings get the anchors that GitHub gives them.
myst_heading_anchors = 4

default_role = 'code'
autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
add_module_names = False
napoleon_custom_sections = [('Fields', 'params_style')]
python_maximum_signature_line_length = 88
toc_object_entries = False

# Types of other libraries, and aliases that autodoc writes out, have no page here.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!byol_jax\.).*')]


def expand_modules(app, docname, source):
  """Turns the list of modules in api.md into headings and what the modules document."""
  if docname == 'api':
    source[0] = re.sub(
        r'(?m)^- `(.*)`$',
        r'### `\1`\n\n```{eval-rst}\n.. automodule:: byol_jax.\1\n```\n', source[0])


def name_fields(app, what, name, obj, options, lines):
  """Gives the fields of a NamedTuple, `name: text` in its docstring, a section of their own."""
  fields = getattr(obj, '_fields', None) if inspect.isclass(obj) else None
  first = next((i for i, line in enumerate(lines) if fields and line.split(':')[0] in fields), None)
  if first is not None:
    lines[first:] = ['Fields:', *('  ' + line for line in lines[first:])]


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


def shorten_tuples(app, what, name, obj, options, signature, returns):
  """A NamedTuple lists its fields in its text; its signature would repeat them."""
  return ('', None) if inspect.isclass(obj) and hasattr(obj, '_fields') else None


def skip_fields(app, what, name, obj, skipped, options):
  """The same for its attributes."""
  return True if type(obj).__name__ == '_tuplegetter' else skipped


def setup(app):
  """Connects the above."""
  app.connect('source-read', expand_modules)
  # Before napoleon, whose priority is 500.
  app.connect('autodoc-process-docstring', name_fields, priority=100)
  app.connect('autodoc-process-docstring', mark_formulas, priority=200)
  app.connect('autodoc-process-docstring', escape, priority=300)
  app.connect('autodoc-process-signature', shorten_tuples)
  app.connect('autodoc-skip-member', skip_fields)
