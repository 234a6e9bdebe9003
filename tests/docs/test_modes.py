"""`docs/modes.md` and `docs/in_memory.md`: their Python runs, and their files are those that are shipped."""

from __future__ import annotations

import pytest
import yaml

from dse.core.shipped import data_dir
from tests.docs.blocks import DOCS, blocks


@pytest.mark.parametrize("page", ["modes.md", "in_memory.md"])
def test_the_python_of_the_page_runs(page: str) -> None:
    programs = [block.text for block in blocks((DOCS / page).read_text(encoding="utf-8")) if block.language == "python"]
    assert programs
    for program in programs:
        exec(program, {"__name__": page})


def test_the_modes_of_the_page_are_those_of_the_shipped_file() -> None:
    text = (DOCS / "modes.md").read_text(encoding="utf-8")
    files = [yaml.safe_load(block.text) for block in blocks(text) if block.language == "yaml"]
    assert files[0] == yaml.safe_load((data_dir("arch_specs") / "hybrid.yaml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((data_dir("arch_specs") / "operators_cim.yaml").read_text(encoding="utf-8"))
    assert files[1]["operators"]["multiplication_free"] == shipped["operators"]["multiplication_free"]
