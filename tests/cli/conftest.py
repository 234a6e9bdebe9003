"""The synthetic table of the search's tests."""

from tests.search.conftest import make_table as make_table
