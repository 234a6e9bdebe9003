"""Machines that are network namespaces of this one, on a bridge: their cables can be pulled, and lose packets.

Needs Linux, root, and the commands `ip` and, to lose packets, `nft`. Names are made of the id of this process: what a
killed one has left is found and removed by the next.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from measure import ROOT

PREFIX = "enosb"  # interfaces have names of at most 15 characters


class Machine:
    """A namespace with an address, and a cable to the bridge."""

    def __init__(self, name: str, address: str, bridge: str) -> None:
        self.name, self.address, self._cable = name, address, f"{name}c"
        _do("ip", "netns", "add", name)
        _do("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _do("ip", "link", "set", self._cable, "master", bridge, "up")
        _do("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _do("ip", "-n", name, "link", "set", device, "up")

    def plug(self, plugged: bool) -> None:
        """Pulls the cable at its other end, or puts it back: the machine keeps its address and its routes."""
        _do("ip", "link", "set", self._cable, "up" if plugged else "down")

    def lose(self, percent: int) -> None:
        """Loses so many of the packets that arrive, at random; 0 ends that."""
        rule = "table inet loss\ndelete table inet loss\n"  # the first line makes the second one valid
        if percent:
            drop = f"iifname eth0 numgen random mod 100 < {percent} drop"
            rule += f"table inet loss {{\nchain input {{\ntype filter hook input priority 0\n{drop}\n}}\n}}\n"
        _do("ip", "netns", "exec", self.name, "nft", "-f", "-", text=rule)

    def start(
        self, command: Sequence[str], log: IO[str] | int, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a command in the namespace, with the sources of this checkout."""
        return start(["ip", "netns", "exec", self.name, *command], log, environment)

    def remove(self) -> None:
        """Takes the machine away at once: nobody that was connected to it hears a word."""
        _quietly("ip", "link", "del", self._cable)
        remove_namespace(self.name)


class Network:
    """A bridge with machines; a context manager that removes all of it, and every process in it.

    Raises:
        RuntimeError: this process may not make namespaces.
    """

    def __init__(self) -> None:
        self._own = f"{PREFIX}{os.getpid()}"
        self._net = f"198.18.{os.getpid() % 256}"  # of RFC 2544: for benchmarks
        self._made = 0
        self.bridge, self.address = f"{self._own}b", f"{self._net}.1"

    def __enter__(self) -> Network:
        if os.name != "posix" or os.geteuid() != 0 or not shutil.which("ip"):
            raise RuntimeError("network namespaces need Linux, root and the command ip")
        _remove_left()
        try:
            _do("ip", "link", "add", self.bridge, "type", "bridge")
            _do("ip", "addr", "add", f"{self.address}/24", "dev", self.bridge)
            _do("ip", "link", "set", self.bridge, "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def machine(self) -> Machine:
        """One more."""
        self._made += 1
        return Machine(f"{self._own}m{self._made}", f"{self._net}.{self._made + 1}", self.bridge)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _remove_all(self._own)


def loses_packets() -> bool:
    """Whether packets can be lost on this machine."""
    return shutil.which("nft") is not None


def start(
    command: Sequence[str], log: IO[str] | int, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts a command in a group of processes of its own, which no Ctrl-C reaches."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", **(environment or {})}
    return subprocess.Popen(command, env=given, stdout=log, stderr=log, start_new_session=True, text=True)


def end(process: subprocess.Popen[str]) -> None:
    """Kills a command and its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove_namespace(name: str) -> None:
    """Kills what runs in a namespace, until nothing does, and removes it."""
    while pids := _quietly("ip", "netns", "pids", name).split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    _quietly("ip", "netns", "del", name)


def _remove_left() -> None:
    """Removes what a process has left that was killed."""
    names = _quietly("ip", "netns", "list") + _quietly("ip", "-o", "link")
    for pid in set(re.findall(rf"\b{PREFIX}(\d+)[mb]", names)):
        if not Path(f"/proc/{pid}").exists():
            _remove_all(f"{PREFIX}{pid}")


def _remove_all(own: str) -> None:
    for name in re.findall(rf"^{own}m\d+", _quietly("ip", "netns", "list"), re.MULTILINE):
        remove_namespace(name)
    for link in re.findall(rf"\b({own}(?:m\d+c|b))[@:]", _quietly("ip", "-o", "link")):
        _quietly("ip", "link", "del", link)


def _do(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _quietly(*command: str) -> str:
    """What a command says, also if it fails, as for what is gone already."""
    return subprocess.run(command, capture_output=True, text=True).stdout
