"""Links between the pages lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, PAGES, ROOT, anchors, links

LINKED = [*PAGES, *(ROOT / name / "README.md" for name in ("results", "arch_specs", "benchmarks"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_index_has_every_page_once() -> None:
    index = links((DOCS / "README.md").read_text(encoding="utf-8"))
    pages = sorted(link for link in index if "/" not in link)
    assert pages == sorted(path.name for path in DOCS.glob("*.md") if path.name != "README.md")
