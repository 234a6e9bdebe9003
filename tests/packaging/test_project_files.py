"""What contributors read and code hosts show: it names what is there, and says of versions what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse import __version__
from tests.docs.blocks import anchors, links, table

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_map_of_the_layout_has_every_package_once() -> None:
    mapped = [row["package"] for row in table(read("CONTRIBUTING.md"), "| package | purpose |")]
    packages = [f"{half}/{p.parent.name}" for half in ("dse", "search") for p in ROOT.glob(f"{half}/*/__init__.py")]
    assert sorted(mapped) == sorted([*packages, "search/*.py"])


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_links_lead_to_files_and_headings(page: str) -> None:
    text = read(page)
    for path in re.findall(r"`((?:dse|search|tests|arch_specs|workloads|results)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    for name, _, anchor in (link.partition("#") for link in links(text)):
        assert (ROOT / name).exists(), name
        assert not anchor or anchor in anchors(read(name)), f"{name}#{anchor}"


def test_versions_are_the_same_everywhere() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert __version__ == PROJECT["version"] == citation["version"]
    assert f"## [{__version__}]" in read("CHANGELOG.md")


def test_the_paper_is_the_same_everywhere() -> None:
    doi = yaml.safe_load(read("CITATION.cff"))["preferred-citation"]["doi"]
    assert PROJECT["urls"]["Paper"] == f"https://doi.org/{doi}"


def test_the_continuous_integration_tests_the_versions_of_python_that_are_supported() -> None:
    matrix = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert matrix["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named[0] in read("README.md") and named[-1] in read("README.md")


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem)
def test_issue_templates_are_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert form["name"] and form["description"]
    assert all(part["type"] in ("textarea", "input") and part["attributes"]["label"] for part in form["body"])
    assert any("enos doctor" in part["attributes"]["label"] for part in form["body"])
