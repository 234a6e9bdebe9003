"""How much more energy than the least a mapping may need to be faster; read from text and files, and checked."""

from __future__ import annotations

import re
from typing import Any

from dse.core.errors import InputError
from dse.core.fields import shown

_TEXT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", re.ASCII)
_ALLOWED = "a share of the least energy, 0 to 1 or 0% to 100%"


def read_slack(value: Any, where: object = "slack") -> float:
    """A slack as a share: of ``1%``, ``1 %``, ``0.01`` or the number 0.01 it is 0.01.

    Raises:
        InputError: something else, below 0 or above 1.

    Example:
        >>> read_slack("1 %"), read_slack("0.01"), read_slack(0)
        (0.01, 0.01, 0.0)
    """
    share = value
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        share = float(match[1]) / (100 if match[2] else 1) if match else None
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise InputError(where, f"found {shown(value)}", _ALLOWED)
    return float(share)


def check_slack(slack: Any, objective: str, where: object = "slack") -> float:
    """The share that a slack is, refused where nothing takes one.

    Raises:
        InputError: at `where`: no share, or a share above 0 with another objective than energy.
    """
    share = read_slack(slack, where)
    if share and objective != "energy":
        raise InputError(where, f"does not go with objective {objective!r}", "objective energy")
    return share
