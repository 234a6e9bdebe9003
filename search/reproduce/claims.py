"""The paper's claims, one table: collected from the figures that a folder holds."""

from __future__ import annotations

import json
from pathlib import Path

from dse.core.documents import read_text
from dse.core.errors import InputError
from dse.core.files import write_text
from search.reproduce.artefact import CLAIM_HEAD, Claim, claim_row, markdown_table
from search.reproduce.protocol import FIGURES


def write_claims(folder: Path) -> Path:
    """Writes ``folder/README.md``: every claim of every figure that is there, with the command behind each.

    Raises:
        InputError: a figure's ``data.json`` is damaged; it names the file.
    """
    rows, commands, links = [], {}, []
    for figure in FIGURES:
        file = folder / figure / "data.json"
        if not file.is_file():
            continue
        try:
            document = json.loads(read_text(file))
            claims = [Claim(**claim) for claim in document["claims"]]
            source = document["provenance"]
            commands[figure] = f"{source['command']}   # scale {source['scale']}, commit {source['commit']}"
            links.append(f"- [{document['title']}]({figure}/README.md)")
        except (ValueError, KeyError, TypeError):
            raise InputError(file, "is damaged", hint=f"`enos reproduce {figure}` writes it again") from None
        rows += [[f"[{figure}]({figure}/README.md)", *claim_row(claim)] for claim in claims]
    text = "\n\n".join([
        "# The paper's claims, one by one",
        "Of several seeds the mean is given, and each seed's value behind it. What accuracies say is not clear where "
        "the mean lies within its standard error, or where there is one seed.",
        markdown_table(("figure", *CLAIM_HEAD), rows),
        "\n".join(links),
        "```\n" + "\n".join(commands.values()) + "\n```",
    ])  # fmt: skip
    page = folder / "README.md"
    write_text(page, text + "\n")
    return page
