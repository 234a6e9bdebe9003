"""Every `enos` command that a page mentions exists, with the options that the page gives it."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dse.cli import enos
from tests.docs.blocks import DOCS, PAGES, ROOT, blocks, without_blocks
from tests.docs.runner import Runner

READMES = [*PAGES, *(ROOT / name / "README.md" for name in ("results", "arch_specs", "benchmarks"))]
RUN_FROM_README = (
    "enos export squeezenet ",
    "enos map squeezenet --output table.csv",
    "enos table squeezenet --output table.parquet --breakdown BC8",
    "enos plot table.csv --output breakdown.png --candidate T8",
    "golden=tests/golden",
    "enos mapper $golden/arch.yaml $golden/problem.yaml $golden/ert.yaml --output mapping.yaml",
    "enos model $golden/arch.yaml $golden/problem.yaml mapping.yaml $golden/ert.yaml --json",
)
"""Those that take seconds; `docs/tutorial.md` runs the others on something smaller."""


def scripts(markdown: str) -> Iterator[str]:
    """Lines of the fenced and of the indented blocks that start with `enos`, continued lines joined."""
    text = "".join(b.text for b in blocks(markdown) if b.language in ("", "sh"))
    text += "".join(f"{line}\n" for line in re.findall(r"(?m)^    (enos .*)$", without_blocks(markdown)))
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("enos "):
            yield line


def arguments(command: str) -> list[str]:
    """Its words, without what the shell takes: comments, redirections."""
    return shlex.split(command.partition(" > ")[0], comments=True)[1:]


def check(command: str, *, whole: bool) -> None:
    """Raises click's error for an unknown command or option; with `whole` also for a missing or a wrong value."""
    words = arguments(command)
    with click.Context(enos, info_name="enos") as context:
        name, found, rest = enos.resolve_command(context, words)
    assert found is not None
    if whole:
        found.make_context(name, rest).close()
    else:
        with contextlib.suppress(click.BadOptionUsage):  # `enos map --output` names an option, without its value
            found.make_parser(click.Context(found, info_name=name)).parse_args(rest)


@pytest.mark.parametrize("page", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_the_blocks_parse(page: Path) -> None:
    for command in scripts(page.read_text(encoding="utf-8")):
        try:
            check(command, whole=page.name != "extending.md")  # its data set is known in the copy that its test runs
        except click.ClickException as e:
            pytest.fail(f"{command}: {e.format_message()}")


@pytest.mark.parametrize("page", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_text_parse(page: Path) -> None:
    text = without_blocks(page.read_text(encoding="utf-8"))
    for command in re.findall(r"`(enos [a-z][^`]*)`", text):
        try:
            check(" ".join(command.replace("|", " ").split()), whole=False)
        except click.ClickException as e:
            pytest.fail(f"{command}: {e.format_message()}")


@pytest.mark.parametrize(
    ("command", "problem"),
    [("enos ponder", "No such command"), ("enos map x --ponder", "No such option"), ("enos map x --jobs y", "integer")],
)
def test_wrong_commands_are_found(command: str, problem: str) -> None:
    with pytest.raises(click.ClickException, match=problem):
        check(command, whole=True)


def test_quick_commands_of_the_readme_and_of_the_page_on_energy_run(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for b in blocks(readme) for line in b.text.splitlines()]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    chosen = [next(line for line in lines if line.startswith(wanted)) for wanted in RUN_FROM_README]
    runner = Runner(tmp_path, tmp_path / "tools")
    printed = runner.run("\n".join(chosen), "README.md")
    for file in ("workloads/squeezenet_cifar.yaml", "table.csv", "table.parquet", "breakdown.png", "mapping.yaml"):
        assert (tmp_path / file).stat().st_size > 0
    assert "Proven optimal among mappings with remainders." in printed and '"energy_pj"' in printed
    assert runner.page(DOCS / "energy.md") == 1, "its commands find everything in the store"
    assert "fire5.squeeze" in runner.printed
