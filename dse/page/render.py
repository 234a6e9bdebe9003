"""Writes the page's data, style and script into one HTML file that needs no other files."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from dse.core.files import system_errors

_FOLDER = Path(__file__).parent
_SCRIPTS = ("base", "model", "chart", "strip", "layer", "networks", "what_if", "run", "sweep", "main")
"""The page's script in the order of its files: later ones use names of earlier ones."""

_JSON_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def render(
    data: Mapping[str, Any],
    *,
    title: str,
    subtitle: str,
    findings: Sequence[str] = (),
    commands: str = "",
    config: str = "",
) -> str:
    """The HTML of the page; texts and data may contain any characters.

    Args:
        data: `dse.page.page_data` with ``networks``, and with ``run`` and ``sweep``, which may be None.
        title: heading of the page, and its title in the browser.
        subtitle: the line below the heading.
        findings: paragraphs of the section on findings.
        commands: the commands that make the page again.
        config: the run's configuration as YAML; "" without a run.
    """
    script = "\n".join(
        ['(() => {\n"use strict";', *(_text(f"{name}.js") for name in _SCRIPTS), "main(document);\n})();"]
    )
    style = _text("page.css")
    return Template(_text("page.html")).substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        findings="".join(f"<p>{html.escape(text)}</p>\n" for text in findings),
        commands=html.escape(commands),
        config=_configuration(config) if config else "",
        # Only this style and this script are allowed, and no requests.
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
        style=style,
        script=script,
        data=embedded_json(data),
    )


def embedded_json(data: Mapping[str, Any]) -> str:
    """JSON that is safe in a script element: it cannot close the element or open a comment."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_JSON_ESCAPES)


def write_page(path: Path, page: str) -> Path:
    """Writes the page and returns its path; InputError if it cannot be written."""
    with system_errors(path):
        path.write_text(page, encoding="utf-8")
    return path


def _configuration(text: str) -> str:
    what = "The configuration, including all defaults"
    return f"<details><summary>{what}</summary>\n<pre tabindex=0>{html.escape(text)}</pre></details>"


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").rstrip("\n")


def _hash(text: str) -> str:
    """The source expression by which a content security policy allows an inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
