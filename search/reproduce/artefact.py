"""What a figure is on disk: its data as CSV and JSON, the drawing as PNG and SVG, and a text beside the paper's."""

from __future__ import annotations

import functools
import io
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from dse.core.documents import parse_yaml, read_text
from dse.core.files import write_atomically, write_json, write_text
from dse.table.rows import write_rows


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper with its figure and ours; `agrees` is None where ours cannot tell the direction."""

    claim: str
    paper: str
    ours: str
    agrees: bool | None


@dataclass(frozen=True)
class Artefact:
    """A figure of the paper, made again; what is said of it whatever comes out is in ``texts.yaml``.

    Args:
        name: ``fig4`` to ``fig10``.
        rows: what is drawn, a mapping of columns an entry; becomes ``data.csv``.
        ours: what came out here, paragraphs of Markdown.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    figure: Figure
    ours: Sequence[str]
    claims: Sequence[Claim] = field(default=())

    @property
    def texts(self) -> Mapping[str, str]:
        """``title``, ``alt``, ``paper`` and ``differs`` of the figure."""
        path = Path(__file__).with_name("texts.yaml")
        found: Mapping[str, str] = parse_yaml(read_text(path), path)[self.name]
        return found


@dataclass(frozen=True)
class Provenance:
    """Where results come from: the command and its scale, the code, seeds, the class of machine."""

    command: str
    scale: str
    commit: str
    seeds: tuple[int, ...]
    machine: str
    versions: str


def provenance(command: str, scale: str, seeds: Sequence[int]) -> Provenance:
    """The provenance of what this process computes, with `command` as its user would type it again."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB"
    versions = f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}"
    return Provenance(command, scale, _commit(), tuple(seeds), machine, versions)


def write_artefact(artefact: Artefact, folder: Path, source: Provenance, about: Sequence[str]) -> None:
    """Writes ``folder/NAME/``: data.csv, data.json, NAME.png, NAME.svg, README.md; each as a whole or not at all."""
    own = folder / artefact.name
    own.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(c for row in artefact.rows for c in row))
    write_atomically(own / "data.csv", lambda file: write_rows([dict(r) for r in artefact.rows], columns, file))
    document = {
        "figure": artefact.name,
        "title": artefact.texts["title"],
        "provenance": asdict(source),
        "claims": [asdict(claim) for claim in artefact.claims],
        "rows": list(artefact.rows),
    }
    write_json(own / "data.json", document)
    for suffix in ("png", "svg"):
        content = _drawn(artefact.figure, suffix, artefact.name)
        write_atomically(own / f"{artefact.name}.{suffix}", functools.partial(Path.write_bytes, data=content))
    write_text(own / "README.md", _text(artefact, source, about))


def _drawn(figure: Figure, suffix: str, salt: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": salt}):  # the same bytes from the same data
        figure.savefig(out, format=suffix, dpi=150, facecolor="white", bbox_inches="tight", metadata=metadata)
    return out.getvalue()


def _text(artefact: Artefact, source: Provenance, about: Sequence[str]) -> str:
    texts = artefact.texts
    parts = [
        f"# {texts['title']}",
        f"```\n{source.command}\n```",
        f"Scale {source.scale}; commit {source.commit}; seeds {', '.join(map(str, source.seeds)) or 'none'}; "
        f"{source.machine}; {source.versions}.",
        f"![{texts['alt']}]({artefact.name}.png)",
        "## What the paper shows",
        texts["paper"].rstrip(),
        "## What we got",
        *artefact.ours,
        "## Why they can differ",
        texts["differs"].rstrip(),
    ]
    if artefact.claims:
        parts += ["## Claim by claim", markdown_table(CLAIM_HEAD, [claim_row(c) for c in artefact.claims])]
    if about:
        parts += [f"## The scale `{source.scale}`", "\n".join(f"- {text}" for text in about)]
    return "\n\n".join(parts) + "\n"


CLAIM_HEAD = ("claim", "paper", "ours", "same direction")


def claim_row(claim: Claim) -> list[str]:
    verdict = "not clear" if claim.agrees is None else ("yes" if claim.agrees else "**no**")
    return [claim.claim, claim.paper, claim.ours, verdict]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _commit() -> str:
    """The commit of the code, marked where files differ from it; the version, where the code is not a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"],
                              capture_output=True, text=True, check=False, timeout=10)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode or not (root / "pyproject.toml").is_file():
        return f"version {version('enos-dse')}"
    return done.stdout.strip()
