"""`enos doctor` on machines with all, none and half of the real tools: it says so and never fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

import dse.engines.timeloop.probe as probe

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def doctor(run: Any) -> Any:
    def call() -> Any:
        code, out, err = run("doctor", "--json")
        assert (code, err) == (0, "")
        people = run("doctor")
        assert people[0] == 0
        return json.loads(out)["timeloop"], people[1]

    return call


REAL = "enos check, and --engine timeloop"


def test_nothing_is_there(machine: Any, doctor: Any) -> None:
    found, text = doctor()
    assert found["programs"] == {"timeloop-model": None, "timeloop-mapper": None, "accelergy": None}
    assert not found["commands"][REAL] and found["commands"].pop(next(iter(found["commands"])))
    assert f"{REAL}: does not work: timeloop-model (program) is missing; timeloop-mapper" in text
    assert "https://timeloop.csail.mit.edu/installation" in text
    assert "timeloopaccelergy/accelergy-timeloop-infrastructure" in text


def test_everything_is_there(machine: Any, doctor: Any) -> None:
    machine.complete()
    machine.plug_in("dummy_tables")
    machine.plug_in("cacti")
    found, text = doctor()
    assert found["broken"] == {} and found["problems"] == [] and found["missing"] == []
    assert found["commands"][REAL]
    assert {p["name"]: (p["table_based"], p["dummy"]) for p in found["plug_ins"]} == {
        "cacti": (False, False),
        "dummy_tables": (False, True),
        "tables": (True, False),
    }
    assert f"{REAL}: works" in text and "dummy_tables: DUMMY" in text and "tables: table-based" in text


@pytest.mark.parametrize(
    ("break_it", "part", "reason"),
    [
        (
            lambda m: m.program("timeloop-mapper", "echo libntl.so.44: not found >&2; exit 127"),
            "timeloop-mapper",
            "libntl.so.44: not found",
        ),
        (lambda m: m.program("timeloop-model", "kill -SEGV $$"), "timeloop-model", "exit code -11"),
        (lambda m: (m.bin / "timeloop-model").write_bytes(b"\x7fELF"), "timeloop-model", "cannot be started: exec"),
        (
            lambda m: m.module("pytimeloop.timeloopfe.v4", "import nothing_like_this"),
            "pytimeloop.timeloopfe.v4",
            "ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        (
            lambda m: m.module("accelergy", "raise SystemExit('no config')"),
            "accelergy.accelergy_console",
            "no config",
        ),
    ],
)
def test_a_part_that_does_not_start(machine: Any, doctor: Any, break_it: Any, part: Any, reason: Any) -> None:
    machine.complete()
    break_it(machine)
    found, text = doctor()
    assert list(found["broken"]) == [part]
    assert reason in found["broken"][part]
    assert not found["commands"][REAL]
    assert f"{part} is broken" in text


def test_a_part_that_does_not_answer_is_not_called_broken(
    machine: Any, doctor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.complete()
    monkeypatch.setattr(probe, "SECONDS", 0.0)  # as on a machine that is too busy to start anything
    found, text = doctor()
    assert found["broken"] == {} and "accelergy (program)" in found["unanswered"]
    assert found["commands"][REAL] is None
    assert "broken" not in text and "does not work" not in text
    assert f"{REAL}: not known: no answer from timeloop-model, timeloop-mapper, accelergy (program)" in text


def test_problems_are_told(machine: Any, doctor: Any) -> None:
    machine.complete()
    machine.program("timeloop-model", executable=False)
    config = machine.config("estimator_plug_ins: [/no/such/folder]")
    found, text = doctor()
    assert f"{config} names /no/such/folder, which does not exist." in text
    assert "timeloop-model is there but not executable." in text
    assert found["missing"] == ["timeloop-model (program)", "Accelergy's table-based plug-in"]


def test_nothing_is_written_into_the_home_folder(machine: Any, doctor: Any) -> None:
    machine.program("accelergy", "mkdir -p $HOME/.config/accelergy; touch $HOME/.config/accelergy/new")
    doctor()
    assert list(machine.home.iterdir()) == []


@pytest.mark.timeloop
def test_the_real_ones_start(real_accelergy: Any) -> None:
    assert probe.probe(real_accelergy).broken == {}
