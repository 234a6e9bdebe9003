"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first to the left and the others to the right.

    A header may have several lines; they end at the same height.
    """
    stacks = [name.split("\n") for name in header]
    height = max(len(stack) for stack in stacks)
    head = [[([""] * (height - len(stack)) + stack)[i] for stack in stacks] for i in range(height)]
    widths = [max(len(line[i]) for line in (*head, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([*map(line, head), "  ".join("-" * w for w in widths), *map(line, rows)])
