"""Runs a page of the documentation as a reader would: writes its files, runs its commands, compares what they print.

What a fenced block is for, by its first line:

- ``python title="mynets.py"`` (or yaml, ...): a file of that name.
- ``sh``: commands; they must succeed. ``sh exit=2`` must end with that code. ``sh timeloop`` is run where Timeloop is.
- ``text``: lines that the commands before print, in this order; ``...`` stands for others. With ``numbers-vary``
  numbers may differ, for they depend on the machine.
- ``diff title="search/data/catalogue.py"``: an edit of a file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks


class PageError(AssertionError):
    """What went wrong at which line of a page."""


@dataclass
class Runner:
    """Runs the blocks of pages in a folder, with `enos` and `python` of this checkout and a store of its own."""

    folder: Path
    tools: Path
    timeloop: bool = False
    printed: str = ""

    def __post_init__(self) -> None:
        python = sys.executable
        for name, arguments in (("enos", '-c "from dse.cli import main; main()" '), ("python", "")):
            script = self.tools / name
            script.write_text(f'#!/bin/sh\nexec "{python}" {arguments}"$@"\n', encoding="utf-8")
            script.chmod(0o755)

    def page(self, path: Path) -> int:
        """Runs every block of a page; the number of those that were checked."""
        done = 0
        for block in blocks(path.read_text(encoding="utf-8")):
            done += self._block(block, f"{path.relative_to(ROOT)}:{block.line}")
        return done

    def _block(self, block: Block, where: str) -> bool:
        if block.language == "diff":
            edit(self.folder / str(block.title), block.text, where)
        elif block.title is not None:
            (self.folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            if "timeloop" in block.options and not self.timeloop:
                return False
            self.run(block.text, where, next((int(o[5:]) for o in block.options if o.startswith("exit=")), 0))
        elif block.language == "text":
            if "timeloop" in block.options and not self.timeloop:
                return False
            compare(block.text, self.printed, where, "numbers-vary" in block.options)
        else:
            return False
        return True

    def run(self, script: str, where: str, code: int = 0) -> str:
        """What a script of the shell prints; every command in it must succeed, unless another `code` is expected."""
        environment = {
            **os.environ,
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ENOS_STORE": str(self.folder / "store.sqlite"),
        }
        done = subprocess.run(["bash", "-e", "-x", "-o", "pipefail", "-c", script], cwd=self.folder, env=environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode != code:
            raise PageError(f"{where}: exit code {done.returncode}, not {code}\n{done.stderr}\n{done.stdout}")
        traced = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith("+"))
        self.printed = done.stdout + traced
        return self.printed


def compare(expected: str, printed: str, where: str, numbers_vary: bool = False) -> None:
    """Raises a PageError at the first expected line that was not printed behind the one before."""
    rest = iter([_words(line, numbers_vary) for line in printed.splitlines()])
    for line in expected.splitlines():
        if line.strip() != "..." and _words(line, numbers_vary) not in rest:
            raise PageError(f"{where}: the commands before do not print this line here:\n{line}\nbut:\n{printed}")


def _words(line: str, numbers_vary: bool) -> list[str]:
    """A line without regard to the width of its gaps, and where numbers vary without digits and rules."""
    if numbers_vary:
        line = re.sub(r"-{3,}|(?<![A-Za-z])[-+]?\d[\d.,]*", "#", line)
    return line.split()


def edit(path: Path, diff: str, where: str) -> None:
    """Applies the lines of a diff without line numbers to a file; what they replace must be there exactly once."""
    lines = diff.splitlines()
    before, after = ("\n".join(line[1:] for line in lines if line[:1] in kept) for kept in (" -", " +"))
    text = path.read_text(encoding="utf-8")
    if text.count(before) != 1:
        raise PageError(f"{where}: {path.name} has these lines {text.count(before)} times:\n{before}")
    path.unlink()  # it may be a link to the file of the checkout
    path.write_text(text.replace(before, after), encoding="utf-8")
