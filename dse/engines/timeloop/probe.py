"""Whether the parts of an installation start: each is called once, all at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dse.core.files import reason
from dse.engines.timeloop.installation import Installation

SECONDS = 10.0
"""How long an answer is waited for. Healthy parts need a tenth of a second, but any time on a busy machine."""


@dataclass(frozen=True)
class Probe:
    """What the calls told. A part that did not answer in time is not broken: the machine may be busy."""

    broken: dict[str, str]  # part -> why it does not start
    unanswered: tuple[str, ...]


def probe(installation: Installation) -> Probe:
    """Calls what is there; what is missing is not tried."""
    with tempfile.TemporaryDirectory(prefix="enos-doctor-") as folder:
        private = {**os.environ, "HOME": folder}  # the program writes a configuration into a home that has none
        calls: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
        for program in (installation.model, installation.mapper):
            if program is not None:  # without a file to read both abort
                calls[program.name] = [str(program), "none"], os.environ
        if installation.accelergy is not None:
            calls["accelergy (program)"] = [str(installation.accelergy), "--help"], private
        for module, there in {
            installation.front_end: installation.front_end,
            "accelergy.accelergy_console": installation.accelergy_package,
        }.items():
            if module and there:
                calls[module] = [sys.executable, "-c", f"import {module}"], os.environ
        if not calls:
            return Probe({}, ())
        with ThreadPoolExecutor(len(calls)) as pool:
            answers = pool.map(lambda call: _call(call[0], call[1], Path(folder)), calls.values())
            reasons = dict(zip(calls, answers, strict=True))
        return Probe(
            {name: reason for name, reason in reasons.items() if reason},
            tuple(name for name, reason in reasons.items() if reason is None),
        )


def _call(command: Sequence[str], env: Mapping[str, str], folder: Path) -> str | None:
    """Why a call failed, in one line; empty if it did not, None if there was no answer in time.

    Programs that only refuse their arguments are healthy.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as e:
        return f"cannot be started: {reason(e)}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    imported = command[0] == sys.executable
    if done.returncode in (126, 127) or done.returncode < 0 or (imported and done.returncode):
        said = lines[-1].strip() if lines else f"exit code {done.returncode}"
        return said if len(said) <= 200 else f"{said[:200]}..."
    return ""
