"""Errors have fields, one line of text that is made of them, and survive the way between processes."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import dse
import search
from dse.core.errors import InputError, did_you_mean, unknown
from dse.core.files import system_errors, write_atomically, write_text

ERRORS = (
    InputError("a.yaml: depth", "found 0", "a whole number, at least 1"),
    InputError("a.yaml: depth", "found 0", range(3), "take 1"),
    InputError("a: b: c", "has: colons", hint="none"),
    InputError(Path("x"), "is empty", []),
)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_survives_pickling(error: InputError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (again.where, again.problem, again.allowed, again.hint) == (
        error.where,
        error.problem,
        error.allowed,
        error.hint,
    )
    assert type(again) is InputError and str(again) == str(error)


def test_an_empty_list_of_allowed_values_is_not_printed() -> None:
    assert str(InputError("a", "is wrong", [])) == "a: is wrong"
    assert str(InputError("a", "is wrong", "")) == "a: is wrong"


def test_an_error_can_be_moved_to_another_place() -> None:
    moved = InputError("space", "found 1", ["a", "b"], "try a").at("run.yaml: space")
    assert str(moved) == "run.yaml: space: found 1 (allowed: a, b); try a"
    assert moved.what == "found 1 (allowed: a, b); try a"


@pytest.mark.parametrize(
    ("given", "meant"), [("MF81", "MF8"), ("mf8", "MF8"), ("glb-depth", "glb_depth"), ("MF8", None), ("xyz", None)]
)
def test_a_name_that_is_spelt_nearly_the_same_is_named(given: str, meant: str | None) -> None:
    assert did_you_mean(given, ["T8", "MF8", "glb_depth"]) == (f"; did you mean {meant!r}?" if meant else "")
    assert (f"did you mean {meant!r}?" in str(unknown("x", "name", given, ["T8", "MF8", "glb_depth"]))) == bool(meant)


def test_what_the_operating_system_refuses_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^f: cannot be read: no space left on device$"),
        system_errors("f", "cannot be read"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError, match="cannot be written: no such file or directory"):
        write_text(tmp_path / "missing" / "f", "")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_text(file, "old")

    def half(path: Path) -> None:
        path.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="no space left"):
        write_atomically(file, half)
    assert file.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_device_is_one_line() -> None:
    with pytest.raises(InputError, match="/dev/full: cannot be written: no space left on device"):
        write_text(Path("/dev/full"), "text")


def test_nobody_reads_the_text_of_an_error() -> None:
    """`partition(": ")` and the like on an error's text is what its fields are for."""
    roots = [Path(module.__file__ or "").parent for module in (dse, search)]
    for file in (file for root in roots for file in root.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for line in text.splitlines():
            assert not ("str(e)." in line and ("partition" in line or "removeprefix" in line)), f"{file}: {line}"


def test_the_package_names_its_public_interface() -> None:
    for name in dse.__all__:
        assert getattr(dse, name) is not None
    with pytest.raises(AttributeError):
        _ = dse.nothing  # type: ignore[attr-defined]
    script = "import sys, dse; print(sorted(m for m in sys.modules if m.startswith('dse')))"
    assert subprocess.check_output([sys.executable, "-c", script]).strip() == b"['dse']"
