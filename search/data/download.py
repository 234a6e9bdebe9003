"""Downloads the official archive of a data set, compares its checksum and unpacks it where the readers expect it."""

from __future__ import annotations

import fnmatch
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Protocol

from dse.core.errors import InputError
from dse.core.files import system_errors
from search.data.catalogue import OFFICIAL, OfficialSet

CHUNK_BYTES = 2**16


class Progress(Protocol):
    """Receives the progress of a download: all bytes in `total` (0 if unknown), received bytes in `update`."""

    total: int

    def update(self, size: int, /) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


def download(name: str, directory: Path, progress: Progress) -> Path:
    """Downloads a data set into `directory` unless its folder exists; returns the folder of its files.

    The archive is removed after it is unpacked. An interrupted download leaves nothing. An interrupted unpacking leaves
    the archive, and the next call unpacks it.

    Args:
        name: one of `search.data.catalogue.OFFICIAL`.

    Raises:
        InputError: the archive cannot be downloaded, its checksum is not the published one, or it cannot be unpacked.
    """
    official = OFFICIAL[name]
    folder = directory / official.folder
    if folder.exists():
        return folder
    with system_errors(directory, "cannot be made"):
        directory.mkdir(parents=True, exist_ok=True)
    archive = _fetch(official, directory, progress)
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".unpacking-") as staging:
            _unpack(archive, Path(staging), f"{official.inside}/{official.wanted}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            (Path(staging) / official.inside).rename(folder)  # one atomic step: a folder that exists is complete
        archive.unlink()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as e:
        raise InputError(archive, f"cannot be unpacked: {' '.join(str(e).split())}") from None
    return folder


def _fetch(official: OfficialSet, directory: Path, progress: Progress) -> Path:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK_BYTES)
    name = official.url.rpartition("/")[2]
    try:
        archive = pooch.retrieve(official.url, f"md5:{official.md5}", fname=name, path=directory, downloader=downloader)
    except ValueError as e:  # pooch raises it for a wrong checksum
        if "hash" not in str(e):
            raise
        raise InputError(official.url, "the downloaded file does not have the published checksum, and was removed",
                         f"md5 {official.md5}; try again, or put the archive in {directory}") from None  # fmt: skip
    except OSError as e:  # of the network (requests' errors are OSErrors) and of the disk
        raise InputError(official.url, f"cannot be downloaded: {' '.join(str(e).split())}",
                         hint=f"connect to a network, or put the archive in {directory}") from None  # fmt: skip
    return Path(archive)


def _unpack(archive: Path, into: Path, pattern: str) -> None:
    """Unpacks the members that match `pattern`; neither format can write outside `into`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(into, [n for n in packed.namelist() if fnmatch.fnmatchcase(n, pattern)])
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(into, [m for m in tar if fnmatch.fnmatchcase(m.name, pattern)], filter="data")
