"""What is committed in results/ is what the program wrote there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from search.reproduce.artefact import Claim, claim_row
from search.reproduce.protocol import FIGURES, load_protocol, shipped_protocol

RESULTS = Path(__file__).parents[3] / "results"


def test_the_claims_are_those_of_the_figures() -> None:
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| [fig")]
    written = [
        f"| [{figure}]({folder}/{figure}/README.md) | {' | '.join(claim_row(Claim(**claim)))} |"
        for folder in ("paper", "paper/more", "pretrained", "pretrained_more")
        for figure in FIGURES
        if (file := RESULTS / folder / figure / "data.json").is_file()
        for claim in json.loads(file.read_text(encoding="utf-8"))["claims"]
    ]
    assert len(written) >= 25
    assert lines == written


def test_every_budget_was_met_within_two_percent() -> None:
    protocol = load_protocol(shipped_protocol("desk"))
    networks = 0
    for file in (RESULTS / "paper").glob("**/data.csv"):
        with file.open(encoding="utf-8") as text:
            for row in csv.DictReader(text):
                if row.get("budget"):
                    networks += 1
                    assert 0.98 * float(row["budget"]) <= float(row["energy"]) <= float(row["budget"]), row
    assert networks >= len(protocol.runs["bilevel"].seeds) * 4
