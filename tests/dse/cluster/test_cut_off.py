"""A client that is cut off from its scheduler resumes when the connection is back, else it ends with one line."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dse.cluster.connection import Connection
from dse.cluster.pool import ClusterPool
from dse.core.errors import InputError
from tests.processes import until


class Cable:
    """A way to a TCP server that can be cut and mended; its address stays."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections; new ones are refused."""
        for end in [self._listener, *self._open]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it is cut
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self._target)
                self._open += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=_copy, args=ends, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[tuple[str, int]]:
    with Connection("local:2") as started:
        host, _, port = started.cluster.client.cluster.scheduler_address.removeprefix("tcp://").rpartition(":")
        yield host, int(port)


@pytest.fixture
def cable(scheduler: tuple[str, int]) -> Iterator[Cable]:
    cable = Cable(scheduler)
    yield cable
    cable.cut()


def wait_for(job: tuple[Path, int]) -> int:
    """Waits until a file is there."""
    file, number = job
    while not file.exists():
        time.sleep(0.05)
    return 2 * number


def test_tasks_are_answered_once_when_the_connection_is_back(cable: Cable, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Connection("{}:{}".format(*cable.address)) as connection:
        client = connection.cluster.client

        def cut() -> None:
            until(client.futures.keys)
            cable.cut()
            until(lambda: client.status != "running")
            cable.mend()
            until(lambda: client.status == "running")
            go.touch()

        thread = threading.Thread(target=cut)
        thread.start()
        answers = list(ClusterPool(connection).answers(wait_for, [(go, number) for number in range(12)]))
        thread.join()
    assert sorted(answers) == [2 * number for number in range(12)]


def test_a_connection_that_stays_away_is_one_line(cable: Cable, tmp_path: Path) -> None:
    with Connection("{}:{}".format(*cable.address)) as connection:
        answers = ClusterPool(connection).answers(wait_for, [(tmp_path / "go", number) for number in range(12)])
        client = connection.cluster.client

        def cut() -> None:
            until(client.futures.keys)
            cable.cut()

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(InputError, match=r"^--cluster .*: the scheduler cannot be reached any more"):
            list(answers)
        thread.join()
    (tmp_path / "go").touch()  # workers that still wait
