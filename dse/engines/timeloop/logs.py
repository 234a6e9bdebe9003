"""What Timeloop's logs say about a run without a result, in one line."""

from __future__ import annotations

import re

_NO_MAPPING = "no valid mappings found"
_CAUSES = re.compile(
    r"^(.*\bERROR\b.*|.*Assertion .*failed.*|.*what\(\):.*|.*Failed to run.*|.*error:.*)$", re.MULTILINE
)
_STATEMENT = re.compile(r"STATEMENT: (.*?),? *terminating search\.")
_FAILURE = re.compile(r"Level: (\S+)\s+Fail count: (\d+).*?Fail reason: (.*?)$", re.DOTALL | re.MULTILINE)
_LONGEST = 300


def found_no_mapping(log: str) -> bool:
    """Whether a search ended without any valid mapping."""
    return _NO_MAPPING in log


def no_mapping_reason(log: str) -> str:
    """Timeloop's own reason: why the search ended, and with diagnostics what was in the way at which level."""
    ends = list(dict.fromkeys(_STATEMENT.findall(log)))
    failures = sorted(_FAILURE.findall(log), key=lambda failure: -int(failure[1]))
    # Timeloop runs the reasons for both axes of a fan-out together.
    listed = [
        (level, count, reason.strip().replace("mapped", ", mapped").removeprefix(", "))
        for level, count, reason in failures
    ]
    parts = [*ends, *(f"{level}: {reason} ({count} times)" for level, count, reason in listed)]
    return "; ".join([_NO_MAPPING, *parts])


def failure(log: str) -> str:
    """The line that says why a program failed, or the last one where none does."""
    causes = [*_CAUSES.findall(log)] or [line for line in log.splitlines() if line.strip()][-1:]
    line = " ".join(causes[-1].split()) if causes else "no output"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
