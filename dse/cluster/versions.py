"""What has to be the same on the client and on every worker, so that results do not depend on where they are made."""

from __future__ import annotations

import functools
import hashlib
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Versions:
    """The programs of a process: version and source files of ENOS, Python, torch."""

    enos: str
    sources: str
    python: str
    torch: str

    def differences(self, other: Versions) -> str:
        """What differs, as text: ``has ENOS 0.1.0, not 0.2.0``; nothing where nothing does.

        Example:
            >>> Versions("0.1", "a", "3.11", "2.4").differences(Versions("0.1", "a", "3.12", "2.4"))
            'has Python 3.11, not 3.12'
        """
        names = {"enos": "ENOS", "sources": "sources of ENOS", "python": "Python", "torch": "torch"}
        theirs = asdict(other)
        found = [f"{names[key]} {own}, not {theirs[key]}" for key, own in asdict(self).items() if own != theirs[key]]
        return f"has {', '.join(found)}" if found else ""


@functools.cache
def versions() -> Versions:
    """Those of this process.

    Example:
        >>> versions() == versions(), len(versions().sources)
        (True, 8)
    """
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("dse", "search"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Versions(_version("enos-dse"), digest.hexdigest()[:8], python, _version("torch"))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # as in a checkout that is not installed
        return "of no package"
