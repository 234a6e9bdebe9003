"""The page of a cost table: one self-contained HTML file. `search.report.run_page` adds the results of a run."""

from dse.page.render import render, write_page
from dse.page.sweep_data import sweep_data
from dse.page.table_data import indices, page_data
from dse.page.table_page import write_table_page

__all__ = ["indices", "page_data", "render", "sweep_data", "write_page", "write_table_page"]
