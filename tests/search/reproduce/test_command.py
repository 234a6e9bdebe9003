"""`enos reproduce` as users type it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.test_search import enos, in_process
from tests.search.reproduce.test_protocol import TINY


def test_figures_of_a_protocol_of_ones_own(tmp_path: Path) -> None:
    command = (
        "reproduce",
        "fig6",
        "fig8",
        "--protocol",
        TINY,
        "--out",
        tmp_path / "o",
        "--store",
        tmp_path / "s.sqlite",
    )
    done = enos(*command)
    assert done.returncode == 0, done.stderr
    for name in ("fig6", "fig8"):
        folder = tmp_path / "o" / name
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()
        text = (folder / "README.md").read_text()
        assert "## What the paper shows" in text and f"enos reproduce {name} --protocol" in text
        assert "seeds 0, 1" in text and "two layers, for tests" in text
    results = json.loads((tmp_path / "o" / "runs" / "bilevel" / "results.json").read_text())
    with (tmp_path / "o" / "fig8" / "data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["series"] == "bi-level"]
    searched = [p for p in results["networks"] if p["kind"] == "searched"]
    assert [float(r["test_accuracy"]) for r in rows] == [p["test_accuracy"] for p in searched]
    claims = (tmp_path / "o" / "README.md").read_text()
    assert "sequential against bi-level at equal energy" in claims and "enos reproduce fig8" in claims

    before = {p: p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.parent.name.startswith("fig")}
    again = enos(*command)  # nothing is trained anew
    assert again.returncode == 0
    assert {p: p.read_bytes() for p in before} == before

    data = tmp_path / "o" / "fig6" / "data.json"
    data.write_text("{}")
    broken = enos("reproduce", "fig8", *command[3:])
    assert broken.returncode == 2 and "fig6/data.json: is damaged" in broken.stderr


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, problem in (
        (("fig3",), "'fig3' is not one of 'fig4'"),
        (("fig7", "--protocol", TINY), "protocol tiny: has no panels for fig7 (allowed: fig4, fig5"),
        (("fig8", "--protocol", tmp_path / "none.yaml"), "none.yaml: cannot be read"),
        (("fig8", "--scale", "smoke", "--protocol", TINY), "--protocol: does not go with --scale"),
        (("fig8", "--scale", "huge"), "'huge' is not one of"),
        (("fig8", "--scale", "desk", "--out", tmp_path, "--store", tmp_path / "s"), "data.dir: is not given"),
    ):
        code, _, err = in_process(capsys, "reproduce", *arguments)
        assert code == 2 and problem in err, err
        assert [line for line in err.splitlines() if line.startswith("error: ")]
