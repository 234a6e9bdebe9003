"""Readers of the fields of hand-written documents: each takes a value and says where it stands if it is wrong.

A document is what `dse.core.documents` makes of a YAML or JSON file: mappings, lists, text, numbers, truth values,
nothing, and now and then a date or another odd type. Nothing is converted silently: ``"8"`` is not a number and
``"false"`` no truth value.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from dse.core.errors import InputError, did_you_mean

LARGEST = 2**53
"""The largest integer that is read: up to here every integer is a float, too, so no energy is computed of another."""

MOST = 1e30
"""The largest number that is read: the energy of the largest layer stays finite."""

_LONGEST_NAME = 200

T = TypeVar("T")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlong = 40
_short.maxlevel = 4


def shown(value: Any) -> str:
    """A value in an error message, shortened where it is long, nested deeply or has too many digits."""
    try:
        return _short.repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than some thousand digits
        return f"a value of type {type(value).__name__} that is too long to show"


def mapping(
    value: Any, where: object, allowed: Collection[str] | None = None, required: Collection[str] = ()
) -> dict[str, Any]:
    """A mapping whose keys are text.

    Args:
        allowed: the keys that it may have; None allows all.
        required: the keys that it must have.

    Raises:
        InputError: something else, an unknown key (with the nearest one that is allowed), a missing one.
    """
    if not isinstance(value, dict):
        keys = ", ".join(allowed or required)
        raise InputError(where, f"found {shown(value)}", f"a mapping with {keys}" if keys else "a mapping")
    for key in value:
        if not isinstance(key, str):
            raise InputError(where, f"the key {shown(key)} is not text", allowed or None)
    if allowed is not None:
        only(value, allowed, where)
    for key in required:
        if key not in value:
            raise InputError(where, f"field {key!r} is missing")
    return value


def optional_mapping(value: Any, where: object, allowed: Collection[str] | None = None) -> dict[str, Any]:
    """As `mapping`; nothing (an empty YAML value) is a mapping without keys."""
    return mapping({} if value is None else value, where, allowed)


def only(keys: Iterable[str], allowed: Collection[str], where: object, kind: str = "field") -> None:
    """Refuses a key that is not allowed, whatever its value, and names the nearest one that is."""
    for key in keys:
        if key not in allowed:
            raise InputError(where, f"unknown {kind} {shown(key)}{did_you_mean(key, allowed)}", allowed)


def sequence(value: Any, where: object, read: Callable[[Any, str], T]) -> list[T]:
    """A list whose items `read` reads, each with its own place.

    Raises:
        InputError: no list, or what `read` refuses.
    """
    if not isinstance(value, list):
        raise InputError(where, f"found {shown(value)}", "a list")
    return [read(item, f"{where}[{i}]") for i, item in enumerate(value)]


def optional_sequence(value: Any, where: object, read: Callable[[Any, str], T]) -> list[T]:
    """As `sequence`; nothing (an empty YAML value) is a list without items."""
    return [] if value is None else sequence(value, where, read)


def anything(value: Any, where: object) -> Any:
    """An item that is read later; for `sequence`."""
    return value


def text(value: Any, where: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(where, f"found {shown(value)}", "text")
    return value


def name(value: Any, where: object) -> str:
    """Text of one line, of at most 200 characters, or a number that is taken as text: a level may be called 1."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = shown(value)
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST_NAME:
        raise InputError(where, f"found {shown(value)}", "a name")
    return value


def version(value: Any, where: object, allowed: Collection[str]) -> None:
    """Refuses a version that is not one of those allowed; 0.4 and ``"0.4"`` are the same."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or shown(value).strip("'") not in allowed:
        raise InputError(where, f"found {shown(value)}", allowed)


def one_of(value: Any, where: object, allowed: Collection[T], kind: str = "value") -> T:
    """One of some values; text has the nearest allowed one named."""
    if any(value == choice and type(value) is type(choice) for choice in allowed):
        found: T = value
        return found
    near = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
    raise InputError(where, f"unknown {kind} {shown(value)}{near}", allowed)


def boolean(value: Any, where: object) -> bool:
    """true or false; text such as ``"no"`` is refused, which Python takes for true."""
    if not isinstance(value, bool):
        raise InputError(where, f"found {shown(value)}", "true or false")
    return value


def integer(value: Any, where: object, least: int = 1, most: int = LARGEST) -> int:
    """A whole number from `least` to `most`; 4.0 is one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        limit = f"at least {least}" if not isinstance(value, int) or value < least else f"at most {most}"
        raise InputError(where, f"found {shown(value)}", f"a whole number, {limit}")
    return value


def number(value: Any, where: object, *, above: bool = False, unit: str = "") -> float:
    """A number of at least 0, or above it, with which products stay finite: at most `MOST`, and not below 1 / `MOST`.

    Args:
        above: 0 is refused.
        unit: what the number counts, for the message.
    """
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    # An integer too large for a float compares with one all the same, so that it ends here and not as OverflowError.
    if not real or not (1 / MOST if above else 0) <= value <= MOST:
        what = f"{unit}, a number" if unit else "a number"
        limits = "above 0" if above else "of at least 0"
        if real and value > 0:
            limits += f", from {1 / MOST:g} to {MOST:g}"
        raise InputError(where, f"found {shown(value)}", f"{what} {limits}")
    return float(value)
