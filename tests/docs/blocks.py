"""Reads the documentation: fenced blocks, tables, links and headings of Markdown files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^```(?P<language>\w*) *(?P<options>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of text, `options` what follows the language."""

    language: str
    options: tuple[str, ...]
    title: str | None
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    """Every fenced block, in order."""
    found, opened, start = [], None, 0
    lines = markdown.splitlines()
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence and opened is None:
            opened, start = fence, number
        elif line == "```" and opened is not None:
            options, title = opened["options"], _TITLE.search(opened["options"])
            text = "\n".join(lines[start : number - 1]) + "\n"
            others = tuple(_TITLE.sub("", options).split())
            found.append(Block(opened["language"], others, title[1] if title else None, text, start + 1))
            opened = None
    assert opened is None, f"a block that opens at line {start} is not closed"
    return found


def without_blocks(markdown: str) -> str:
    """The text between the fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", markdown)


def table(markdown: str, heading: str) -> list[dict[str, str]]:
    """Rows of the first table behind a heading or a text, by the names of its columns; cells without backticks."""
    lines = markdown[markdown.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"(?m)^#+ +(.*)$", without_blocks(markdown))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(markdown: str) -> list[str]:
    """Targets of links and images that are no addresses of the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(markdown))
    return [target for target in targets if "://" not in target]
