"""Mixture files: a Gaussian mixture and the attributes of the macro that samples it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Len
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core.documents import parse_yaml, read_yaml
from dse.core.errors import InputError
from dse.core.schema import CONFIG, number, validated
from search.sampling.macro import Macro
from search.sampling.mixture import Mixture, mixture

FOLDER = Path(__file__).parent / "mixtures"
"""The shipped mixture files."""

_LARGEST = 1e9

_Number = Annotated[float, number(-_LARGEST, _LARGEST)]


@validated_dataclass(frozen=True, config=CONFIG)
class MixtureFile:
    """The fields of a mixture file as they stand there."""

    weights: Annotated[tuple[_Number, ...], Len(1)]
    """One for each component; their sum is 1."""
    means: Annotated[tuple[tuple[_Number, ...], ...], Len(1)]
    """A list of D coordinates for each component."""
    covariances: Annotated[tuple[tuple[tuple[_Number, ...], ...], ...], Len(1)]
    """A symmetric positive definite matrix, D lists of D numbers, for each component."""
    macro: Macro = Macro()
    """The attributes of the sampling macro."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a mixture file asks for: `name` is the file's without its ending."""

    name: str
    target: Mixture
    macro: Macro


def read_mixture_file(path: Path | str, changes: Sequence[str] = ()) -> Job:
    """Reads a mixture file, or a shipped one by its name.

    Args:
        changes: attributes of the macro to take instead of the file's, as ``adc_bits=4``; null for the default.

    Raises:
        InputError: a wrong field, an invalid mixture, such as one with a singular covariance, an unknown name.

    Example:
        >>> job = read_mixture_file("two_modes", ["adc_bits=4"])
        >>> job.target.size, job.target.dimensions, job.macro.adc_bits
        (2, 2, 4)
    """
    file = _found(path)
    document = read_yaml(file)
    for change in changes:
        field, equals, text = change.partition("=")
        if not (equals and field):
            raise InputError(f"--set {change}", "expected ATTRIBUTE=VALUE", hint="for example adc_bits=4")
        value = parse_yaml(text, f"--set {change}")
        if isinstance(document, dict) and isinstance(document.setdefault("macro", {}), dict):
            document["macro"].pop(field, None)
            if value is not None:
                document["macro"][field] = value
    read = validated(MixtureFile, document, file)
    try:
        return Job(file.stem, mixture(read.weights, read.means, read.covariances), read.macro)
    except InputError as e:
        raise e.at(f"{file}: {e.where}") from None


def _found(path: Path | str) -> Path:
    shipped = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if str(path) in shipped and not Path(path).exists():
        return FOLDER / f"{path}.yaml"
    if not Path(path).exists():
        raise InputError(path, "no such file", ["a file", *shipped])
    return Path(path)
