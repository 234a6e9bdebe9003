"""The file: nothing is fetched, nothing from the data is markup, and `enos report TABLE` writes it without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.page import write_table_page
from dse.page.render import embedded_json
from tests.conftest import refused
from tests.dse.page.tables import LAYERS, small_table

ROOT = data_dir("arch_specs").parent
HOSTILE = ("</script><script>alert(1)</script>", "<!--<script>", "a\"b'c&amp;", "\u2028line")


class Page(HTMLParser):
    """Collects what a browser would fetch, the elements left open, and what stands in scripts."""

    void = ("meta", "br")

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.fetched: list[Any] = []
        self.open: list[Any] = []
        self.scripts: list[Any] = []
        self.feed(text)

    def handle_starttag(self, tag: Any, attributes: Any) -> None:
        if tag not in self.void:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        self.fetched += [v for k, v in attributes if k in ("src", "href", "action", "data") and v and v[0] != "#"]

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


@pytest.fixture
def table_file(tmp_path: Path) -> Any:
    path = tmp_path / "small.csv"
    small_table().save(path)
    return path


def test_one_file_with_everything(table_file: Any) -> None:
    page = write_table_page(table_file)
    assert page == table_file.with_name("small.html")
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert found.fetched == [] and found.open == [] and len(found.scripts) == 2
    assert "@import" not in text and "url(" not in text and "fetch(" not in text
    assert [layer["name"] for layer in json.loads(found.scripts[0])["layers"]] == list(LAYERS)
    assert write_table_page(table_file).read_text(encoding="utf-8") == text


def test_names_of_layers_are_never_markup(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    small_table(HOSTILE, lacking=[(HOSTILE[0], "T4")]).save(path)
    text = write_table_page(path).read_text(encoding="utf-8")
    found = Page(text)
    assert len(found.scripts) == 2 and found.open == []
    assert [layer["name"] for layer in json.loads(found.scripts[0])["layers"]] == list(HOSTILE)


def test_embedded_json_reads_back_and_cannot_close_its_element() -> None:
    data = {"text": "</script> <!-- & \u2028", "numbers": [0.1 + 0.2, 1e-300, 2**53]}
    text = embedded_json(data)
    assert json.loads(text) == data
    assert not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError, match="Out of range"):
        embedded_json({"x": float("nan")})


def test_the_start_is_all_t8_or_else_what_is_possible(tmp_path: Path) -> None:
    for lacking, start in [((), "all T8"), ((("head", "T8"),), "all T4")]:
        small_table(lacking=lacking).save(tmp_path / "t.csv")
        found = Page(write_table_page(tmp_path / "t.csv").read_text(encoding="utf-8"))
        data = json.loads(found.scripts[0])
        assert data["networks"][data["start"]]["label"] == start
    small_table(lacking=[("stem", c) for c in ("T8", "T4", "MF8", "BC2")]).save(tmp_path / "t.csv")
    data = json.loads(Page(write_table_page(tmp_path / "t.csv").read_text(encoding="utf-8")).scripts[0])
    (network,) = data["networks"]
    assert network["energy_pj"] is None and network["assignment"] == [0, 3, 3, 3]


def test_the_command_writes_where_it_is_told(run: Any, table_file: Any, tmp_path: Path) -> None:
    summary = ROOT / "results" / "squeezenet_cifar" / "sweep" / "summary.csv"
    target = tmp_path / "page.html"
    code, out, _ = run("report", table_file, "--output", target, "--sweep", summary, "--transmission", "on_chip")
    assert (code, out) == (0, f"Page: {target}\n")
    text = target.read_text(encoding="utf-8")
    data = json.loads(Page(text).scripts[0])
    assert data["transmission"] == "on_chip" and data["sweep"]["axes"] == ["glb_ifmap.depth"]
    assert f"enos report {table_file} --transmission on_chip --sweep {summary} --output {target}" in text


def test_bad_input_is_one_line(run: Any, table_file: Any, tmp_path: Path) -> None:
    assert "none.csv: cannot be read" in refused(run("report", tmp_path / "none.csv"))
    assert "is neither a run nor a table" in refused(run("report", tmp_path / "none"))
    assert "column 'point' is missing" in refused(run("report", table_file, "--sweep", table_file))
    assert "cannot be written" in refused(run("report", table_file, "--output", tmp_path / "no" / "x.html"))
    (tmp_path / "bad.csv").write_text("layer\nx\n")
    assert "column 'workload' is missing" in refused(run("report", tmp_path / "bad.csv"))
    assert "does not go with a run" in refused(run("report", tmp_path, "--transmission", "on_chip"))


def test_a_table_needs_neither_torch_nor_matplotlib(table_file: Any) -> None:
    code = (
        "import sys\nfrom dse.cli.report import report\n"
        f"report([{str(table_file)!r}], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'matplotlib', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
