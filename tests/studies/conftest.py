"""Folders as runs leave them, as in the tests of reports."""

from tests.report.conftest import make_run

__all__ = ['make_run']
