"""Which cluster a command line names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dse.core.errors import InputError

FORMS = "local:N, HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, or a scheduler file (.json)"
MOST_LOCAL = 1024

_HOST_PORT = re.compile(r"(?:(?:tcp|tls|ucx|ws|wss)://)?(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")


@dataclass(frozen=True)
class Address:
    """A cluster that is to be started here (`workers` processes), or one that runs (`scheduler`, or its `file`)."""

    text: str
    workers: int | None = None
    scheduler: str | None = None
    file: Path | None = None


def parse_address(text: str, where: str = "--cluster") -> Address:
    """The cluster that a text names; nothing is connected to.

    Args:
        text: one of `FORMS`.
        where: what errors name.

    Raises:
        InputError: another form, or a scheduler file that cannot be read.

    Example:
        >>> parse_address("local:4").workers, parse_address("node7:8786").scheduler
        (4, 'tcp://node7:8786')
    """
    if text.startswith("local:"):
        number = text.removeprefix("local:")
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= MOST_LOCAL):
            raise InputError(where, f"found {text!r}", f"local:N with N from 1 to {MOST_LOCAL}")
        return Address(text, workers=int(number))
    if text.endswith(".json") or Path(text).is_file():
        _check_file(Path(text), where)
        return Address(text, file=Path(text))
    found = _HOST_PORT.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 65535:
        raise InputError(where, f"found {text!r}", FORMS)
    return Address(text, scheduler=text if "://" in text else f"tcp://{text}")


def _check_file(path: Path, where: str) -> None:
    """Dask itself would wait for a file that does not exist."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(where, f"{path}: {(e.strerror or str(e)).lower()}", FORMS) from None
    except ValueError:
        document = None
    if not (isinstance(document, dict) and isinstance(document.get("address"), str)):
        raise InputError(
            where, f"{path} is no scheduler file", hint="`dask scheduler --scheduler-file FILE` writes one"
        )
