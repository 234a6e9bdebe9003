"""Colours of candidates: a hue for each operator, lighter for narrower words, with a legible text colour."""

from __future__ import annotations

from collections.abc import Sequence

HUES = {"typical": "#2f6db5", "multiplication_free": "#d9822b", "binary_connect": "#3c9a5f"}
OTHER_HUES = ("#8a5bb0", "#c04f6b", "#3b9ea8")
_INKS = ("#ffffff", "#0c1116")
_LIGHTEST = 0.62  # share of white in the colour of the narrowest words


_STRIPES = "repeating-linear-gradient(135deg, transparent 0 4px, rgb(255 255 255 / 45%) 4px 6px)"


def hue(operator: str, operators: Sequence[str]) -> str:
    """The colour of an operator; operators without a fixed colour take `OTHER_HUES` in the order of `operators`."""
    others = [name for name in dict.fromkeys(operators) if name not in HUES]
    return HUES.get(operator) or OTHER_HUES[others.index(operator) % len(OTHER_HUES)]


def shades(candidates: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """(fill, text) of each candidate (operator, bits), as ``#rrggbb``."""
    operators = [operator for operator, _ in candidates]
    found = []
    for operator, bits in candidates:
        widths = sorted({b for name, b in candidates if name == operator}, reverse=True)
        white = _LIGHTEST * widths.index(bits) / max(1, len(widths) - 1)
        fill = _mixed(hue(operator, operators), white)
        found.append((fill, max(_INKS, key=lambda ink, fill=fill: contrast(ink, fill))))  # type: ignore[misc]
    return found


def hatch(candidate: str) -> str:
    """What is drawn over the colour of a candidate, as a background of CSS: stripes beside the first computing mode.

    Example:
        >>> hatch("MF8"), hatch("MF8@cim")[:25]
        ('none', 'repeating-linear-gradient')
    """
    return _STRIPES if "@" in candidate else "none"


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2, relative luminance)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mixed(colour: str, white: float) -> str:
    return "#" + "".join(f"{round(c + (255 - c) * white):02x}" for c in _rgb(colour))


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
