"""The whole way of a download, from a web server of this test's own."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dse.cli.data import data
from dse.core.errors import InputError
from search.data.catalogue import OFFICIAL
from search.data.download import download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@dataclass
class Counted:
    total: int = 0
    came: int = 0

    def update(self: Any, size: int, /) -> None:
        self.came += size

    def reset(self) -> None:
        self.came = 0

    def close(self) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Publishes bytes as the archive of a data set, with their own checksum or another."""
    site = tmp_path / "site"
    site.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def publish(name: str, content: bytes | None, md5: str | None = None) -> None:
        file = OFFICIAL[name].url.rpartition("/")[2]
        if content is not None:
            (site / file).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{file}"
        monkeypatch.setitem(
            OFFICIAL, name, replace(OFFICIAL[name], url=url, md5=md5 or hashlib.md5(content or b"").hexdigest())
        )

    yield publish
    server.shutdown()
    server.server_close()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_archive_is_fetched_checked_and_unpacked(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    content = tar({"cifar-100-python/train": b"a" * 100_000, "cifar-100-python/test": b"b", "other/x": b"c"})
    serve("cifar100", content)
    bar = Counted()
    folder = download("cifar100", tmp_path / "new" / "data", bar)
    assert folder == tmp_path / "new" / "data" / "cifar-100-python"
    assert files_of(folder.parent) == {"cifar-100-python/train": b"a" * 100_000, "cifar-100-python/test": b"b"}
    assert bar.total == len(content)


def test_of_emnist_the_balanced_files_are_kept_where_torchvision_has_them(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve(
        "emnist_balanced",
        zipped({"gzip/emnist-balanced-train-labels-idx1-ubyte.gz": b"1", "gzip/emnist-mnist-x.gz": b"2"}),
    )
    download("emnist_balanced", tmp_path / "data", Counted())
    assert files_of(tmp_path / "data") == {"EMNIST/raw/emnist-balanced-train-labels-idx1-ubyte.gz": b"1"}


def test_folders_within_a_zip_are_unpacked(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve(
        "tiny_imagenet", zipped({"tiny-imagenet-200/val/images/val_0.JPEG": b"1", "tiny-imagenet-200/wnids.txt": b"2"})
    )
    assert set(files_of(download("tiny_imagenet", tmp_path / "data", Counted()))) == {
        "val/images/val_0.JPEG",
        "wnids.txt",
    }


def test_what_is_there_is_not_fetched_again(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve("cifar10", tar({"cifar-10-batches-py/test_batch": b"new"}))
    (tmp_path / "cifar-10-batches-py").mkdir()
    bar = Counted()
    assert files_of(download("cifar10", tmp_path, bar)) == {} and bar.came == 0


def test_another_checksum_is_one_line_and_leaves_nothing(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve("cifar10", tar({"cifar-10-batches-py/test_batch": b"forged"}), md5="0" * 32)
    with pytest.raises(
        InputError, match=r"cifar-10-python.tar.gz: the downloaded file does not have the .*md5 0{32}"
    ) as caught:
        download("cifar10", tmp_path / "data", Counted())
    assert "\n" not in str(caught.value) and files_of(tmp_path / "data") == {}


def test_an_archive_that_is_none_and_one_that_is_not_there(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve("cifar10", b"<html>moved</html>")
    with pytest.raises(InputError, match=r"cifar-10-python.tar.gz: cannot be unpacked"):
        download("cifar10", tmp_path / "data", Counted())
    assert not (tmp_path / "data" / "cifar-10-batches-py").exists()
    serve("cifar100", None)
    with pytest.raises(InputError, match=r"cifar-100-python.tar.gz: cannot be downloaded: 404"):
        download("cifar100", tmp_path / "data", Counted())


def test_an_archive_cannot_write_elsewhere(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve("cifar10", tar({"cifar-10-batches-py/../../../escaped": b"x"}))
    with pytest.raises(InputError, match=r"cannot be unpacked"):
        download("cifar10", tmp_path / "data", Counted())
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "data" / "escaped").exists()


def test_the_command(tmp_path: Path, serve: Any) -> None:  # type: ignore[no-untyped-def]
    serve("cifar10", tar({"cifar-10-batches-py/test_batch": b"x"}))
    runner = CliRunner()
    first, again = (runner.invoke(data, ["cifar10", "--dir", str(tmp_path)]) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    assert "CIFAR-10 (Krizhevsky 2009)" in first.output and "is there already" in again.output
    assert "nothing to download" in runner.invoke(data, ["digits"]).output
    assert "898 / 360 / 539 images of 1x8x8" in runner.invoke(data, ["digits", "--check"]).output
    broken = runner.invoke(data, ["cifar10", "--dir", str(tmp_path), "--check"])
    assert isinstance(broken.exception, InputError) and "data_batch_1: cannot be read" in str(broken.exception)
