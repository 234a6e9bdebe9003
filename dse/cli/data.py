"""`enos data`: brings a data set's official files to disk, and says what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.progress import Bar, progress_bar
from search.data.catalogue import NAMES, OFFICIAL

if TYPE_CHECKING:
    from search.data.datasets import Dataset


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--dir", "directory", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True,
    help="Folder of all data sets; give it to a run with --data-dir.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Read everything and say how many images there are; fetches nothing.")
def data(name: str, directory: Path, check: bool) -> None:
    """Downloads a data set from its official address and unpacks it where runs look for it.

    The archive's checksum is compared with the published one. What is on disk already is left as it is.

    \b
    Example:
      enos data cifar10 --dir data
      enos run my_run.yaml --data-dir data
    """
    if name == "digits":
        click.echo("digits: come with enos, nothing to download")
    elif not check:
        from search.data.download import download

        existed = (directory / OFFICIAL[name].folder).exists()
        with progress_bar("bytes", left=True) as bar:
            folder = download(name, directory, _DownloadBar(name, bar))
        click.echo(f"{folder}: {'is there already' if existed else OFFICIAL[name].title}")
    if check:
        from search.data.datasets import DATASETS

        click.echo(_summary(name, DATASETS[name](directory, None, 0, None)))


def _summary(name: str, found: Dataset) -> str:
    sizes = " / ".join(f"{len(split):,}" for split in (found.train, found.validation, found.test))
    shape = "x".join(map(str, found.image_shape))
    line = f"{name}: {sizes} images of {shape} for training / validation / test, {found.classes} classes"
    return line if found.notice is None else f"{line}\nnote: {found.notice}"


class _DownloadBar:
    """A progress bar in the form that `search.data.download` reports to; appears with the first bytes."""

    def __init__(self, name: str, bar: Bar) -> None:
        self.total = 0
        self._name, self._bar = name, bar

    def update(self, size: int, /) -> None:
        self._bar.update(description=self._name, total=self.total or None, advance=size)

    def reset(self) -> None:
        self._bar.update(completed=0)

    def close(self) -> None:
        self._bar.stop()
