"""What `mkdocs build` adds to the pages of docs/: pages and files of other folders, and the API reference.

The pages are written for a code host: their links are relative to their place in the repository. On the site docs/ is
the root. So files outside it get a place on the site, and links to them are rewritten.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "arch_specs/README.md",
    "benchmarks/README.md",
)
OVERVIEW = "overview.md"
"""The README of the repository on the site, where docs/README.md is the index."""

HALVES = ("dse", "search")
INTERNAL = ("dse/cli", "dse/mapper/kernels")
"""Packages without a page in the reference: commands have their own help, and kernels are parts of functions."""

MENU = {
    "Use": [
        "tutorial",
        "table",
        "sweeps",
        "assign",
        "search",
        "own_loop",
        "budgets",
        "data",
        "onnx",
        "transformers",
        "report",
        "reproduce",
        "sampler",
        "gpu",
        "cluster",
        "limits",
    ],
    "Understand": [
        "energy",
        "rtl",
        "model",
        "conventions",
        "mapper",
        "imperfect",
        "operators",
        "modes",
        "in_memory",
        "timeloop",
        "designs",
        "accelergy",
    ],
    "Extend": ["extending"],
}
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r'^( *```\w*)(?: (title="[^"]*"))?.*$', re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Shows the section ``Example:`` of docstrings as code: the parser knows it as ``Examples:`` only."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)


def on_config(config: Any) -> Any:
    """The menu: pages of docs/ by purpose, results, the reference by package.

    Raises:
        PluginError: a page of docs/ that the menu does not have.
    """
    named = {"README", *(name for names in MENU.values() for name in names)}
    if missing := {path.stem for path in (ROOT / "docs").glob("*.md")} - named:
        raise PluginError(f"docs/api/site.py: MENU lacks {', '.join(sorted(missing))}")
    config.nav = [
        {"Start": ["README.md", OVERVIEW]},
        *({title: [f"{name}.md" for name in names]} for title, names in MENU.items()),
        {"Results": ["results/README.md", "benchmarks/README.md", "arch_specs/README.md"]},
        {"Contribute": ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]},
        {"Python interface": ["api/README.md", *({name: f"api/{name}.md"} for name in _packages())]},
    ]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages outside docs/, what any page links to, and a page for each package."""
    pages = [*OUTSIDE, *(str(path.relative_to(ROOT)) for path in ROOT.glob("results/**/README.md"))]
    linked = {target for page in [*pages, *_pages_of_docs()] for target in _targets(page)}
    for path in sorted({*pages, *linked}):
        if not path.startswith("docs/"):
            files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
    for package, modules in _packages().items():
        content = "\n\n".join([f"# {package}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"api/{package}.md", content=content + "\n"))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as the site needs them, and code blocks without the options that only tests read."""
    source = _source(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        target = _resolved(source, match[2])
        if target is None:
            return match[0]
        place = os.path.relpath(_place(target), PurePosixPath(page.file.src_uri).parent)
        return f"{match[1]}{place}{match[3] or ''})"

    return _FENCE.sub(lambda m: f"{m[1]} {m[2]}" if m[2] else m[1], _LINK.sub(link, markdown))


def _pages_of_docs() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")]


def _targets(page: str) -> list[str]:
    """Files of the repository that a page links to."""
    resolved = (_resolved(page, m[2]) for m in _LINK.finditer((ROOT / page).read_text(encoding="utf-8")))
    return [target for target in resolved if target is not None]


def _resolved(page: str, link: str) -> str | None:
    """The file of the repository that a link of a page means; None for an address or a file that does not exist."""
    path = Path(os.path.normpath(ROOT / Path(page).parent / link))
    path = path / "README.md" if path.is_dir() else path
    return str(path.relative_to(ROOT)) if path.is_file() and path.is_relative_to(ROOT) else None


def _place(path: str) -> str:
    """Where the site has a file of the repository."""
    return OVERVIEW if path == "README.md" else path.removeprefix("docs/")


def _source(place: str) -> str:
    """The file of the repository that the site has at this place."""
    if place == OVERVIEW:
        return "README.md"
    return f"docs/{place}" if (ROOT / "docs" / place).is_file() else place


def _packages() -> dict[str, list[str]]:
    """Modules of each package of the reference; those of sub-packages are on the page of their package."""
    packages: dict[str, list[str]] = {}
    for path in sorted(p for half in HALVES for p in (ROOT / half).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not str(path.relative_to(ROOT)).startswith(INTERNAL):
            module = ".".join(parts).removesuffix(".__init__")
            packages.setdefault(".".join(parts[:2]) if len(parts) > 2 else parts[0], []).append(module)
    return packages
