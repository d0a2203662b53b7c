"""Charts as SVG that a page can take in."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from byol_jax.plots import figures
from byol_jax.plots.figures import Line


def colours(svg):
  return set(re.findall(r'#[0-9a-f]{6}', svg))


def test_a_chart_takes_its_colours_from_the_page_and_nothing_from_outside():
  svg = figures.curves('the title', [Line(0, 0, [1, 2], [3., 4.]), Line(1, 1, [1], [2.])])
  root = ElementTree.fromstring(svg)
  assert 'viewBox' in root.attrib and 'width' not in root.attrib and 'height' not in root.attrib
  assert 'var(--series-0)' in svg and 'var(--series-1)' in svg and 'var(--ink)' in svg
  assert 'the title' in svg and 'http' not in svg and not colours(svg)


def test_ids_of_two_charts_differ():
  charts = [figures.curves(title, [Line(0, 0, [1, 2], [1, 2])]) for title in 'ab']
  ids = [set(re.findall(r'clip-path="url\(#(\w+)\)', chart)) for chart in charts]
  assert ids[0] and not ids[0] & ids[1]


def test_nothing_to_draw_is_no_chart():
  assert figures.curves('empty', [Line(0, 0, [], [])]) == ''


def test_a_map_has_a_colour_and_a_number_for_each_class():
  positions = np.random.default_rng(0).normal(size=(30, 2))
  svg = figures.points('map', positions, np.arange(30) % 3)
  assert all(f'>class {number}<' in svg for number in range(3))
  names = ('cat', 'a $name$ of many letters', 'dog')
  svg = figures.points('map', positions, np.arange(30) % 3, names)
  assert all(f'>{text}<' in svg for text in ('0: cat', '1: a $name$ of man…', '2: dog'))
  for label in range(3):
    assert f'var(--series-{label})' in svg and re.search(rf'>\s*{label}\s*</text>', svg)
  assert not colours(svg)
