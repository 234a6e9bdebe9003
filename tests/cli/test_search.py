"""The commands as users type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dse.cli import main
from dse.table.cost_table import CostTable
from tests.search.runs.test_run import TINY
from tests.search.tiny import tiny

ROOT = Path(__file__).parents[2]


def enos(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from dse.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, make_table: Any) -> Path:  # type: ignore[no-untyped-def]
    make_table(tiny()).save(tmp_path / "table.csv")
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return tmp_path


def test_search_then_report(folder: Path) -> None:
    done = enos("search", folder / "tiny.yaml", "--table", folder / "table.csv", "--out", folder / "runs", "--json")
    assert done.returncode == 0, done.stderr
    assert {p["kind"] for p in json.loads(done.stdout)["networks"]} == {"baseline", "searched"}
    page = folder / "runs" / "tiny" / "report.html"
    before = page.read_bytes()
    page.unlink()
    again = enos("report", folder / "runs" / "tiny")
    assert again.returncode == 0 and str(page) in again.stdout
    assert page.read_bytes() == before
    text = enos("search", folder / "tiny.yaml", "--table", folder / "table.csv", "--out", folder / "runs", "--jobs", 2)
    assert "searched, lambda 0.5" in text.stdout and "all BC8" in text.stdout


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.mark.parametrize("command", ["search", "run", "report"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = in_process(capsys, command, "--help")
    assert code == 0 and "Example:" in out and f"enos {command}" in out


def test_bad_input_is_one_line_and_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, config = folder / "table.csv", folder / "tiny.yaml"
    CostTable(CostTable.load(table).rows[9:]).save(folder / "short.csv")
    (folder / "arch.yaml").write_text("name: x\narch: abacus\nnetwork: {args: {in_channels: 1, image: 8}}\n")
    (folder / "bad.yaml").write_text("name: x\nsede: 1\n")
    for arguments, problem in [
        (("search", folder / "none.yaml", "--table", table), "none.yaml: cannot be read"),
        (
            ("search", folder / "bad.yaml", "--table", table),
            "unknown field 'sede'; did you mean 'seeds'? (allowed: name",
        ),
        (("search", config, "--table", folder / "none.csv"), "none.csv: cannot be read"),
        (("search", config, "--table", folder / "short.csv", "--out", folder / "x"), "no rows for layer 'conv'"),
        (("search", config, "--table", table, "--jobs", 0), "Invalid value for '--jobs'"),
        (("search", config), "Missing option '--table'"),
        (("run", folder / "bad.yaml"), "unknown field 'sede'"),
        (
            ("run", folder / "arch.yaml"),
            "arch: unknown file or shipped architecture 'abacus' (allowed: cim_macros,",
        ),
        (("report", folder), "holds no finished run"),
    ]:
        code, _, err = in_process(capsys, *arguments)
        assert code == 2 and problem in err
        assert err.startswith("error: ") and err.count("\n") == 1
    assert not (folder / "x").exists()


def test_the_commands_module_does_not_import_torch() -> None:
    code = "import sys, dse.cli.search; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
