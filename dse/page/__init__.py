"""The page of a cost table: one self-contained HTML file. `search.report` adds what a run found and calls this."""

from dse.page.data import indices, page_data
from dse.page.of_table import write_table_page
from dse.page.render import render, write_page
from dse.page.sweep import sweep_data

__all__ = ["indices", "page_data", "render", "sweep_data", "write_page", "write_table_page"]
