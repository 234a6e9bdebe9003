"""Changes files of every kind at random and reads them: each must be accepted or refused in one line, and soon.

Every reader runs in this process, under a limit of time and of memory. A key that is misspelt must be refused.

usage: python benchmarks/fuzz.py [--inputs N] [--seed S] [--reader NAME ...]
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_inputs import Change, changed
from fuzz_readers import READERS, Reader

from dse.core.errors import LONGEST, InputError

SECONDS = 10.0
MEMORY = 2 * 2**30  # bytes above what the process has at its start

OUTCOMES = ("accepted", "refused", "misspelt key accepted", "message of another form", "traceback", "hang", "memory")
"""The first two are right."""


@dataclass(frozen=True)
class Outcome:
    """What a reader made of an input."""

    kind: str  # of OUTCOMES
    about: str = ""  # the place of a traceback, or the message


class _TooSlowError(BaseException):
    """The time is over; not an Exception, so that no reader takes it for an error of a file."""


def outcome(reader: Reader, path: Path, change: Change, seconds: float = SECONDS) -> Outcome:
    """Reads a file that was changed."""
    try:
        with _limits(seconds):
            reader.read(path)
    except InputError as e:
        line = str(e)
        right = line.isprintable() and len(line) <= LONGEST + 100
        return Outcome("refused" if right else "message of another form", line)
    except _TooSlowError:
        return Outcome("hang", f"more than {seconds:g} s")
    except MemoryError:
        return Outcome("memory")
    except BaseException as e:  # whatever a reader lets through
        last = traceback.extract_tb(e.__traceback__)[-1]
        return Outcome("traceback", f"{type(e).__name__} in {Path(last.filename).name}:{last.lineno}: {str(e)[:80]}")
    return Outcome("misspelt key accepted" if change.must_be_refused else "accepted")


@contextmanager
def _limits(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    folder: Path, inputs: int, seed: int, readers: dict[str, Reader], on_wrong: Callable[[str, Change, Outcome], None]
) -> dict[str, Counter[str]]:
    """Outcomes by reader of `inputs` changed files, the readers in turn; each that is wrong is told to `on_wrong`."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in readers}
    names = list(readers)
    for number in range(inputs):
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {number}")
        original = rng.choice(readers[name].originals())
        change = changed(rng, original, readers[name].free)
        for file in folder.glob("input*"):  # a store leaves its log beside it
            file.unlink()
        path = folder / f"input{original.suffix}"
        path.write_bytes(change.data)
        found = outcome(readers[name], path, change)
        counts[name][found.kind] += 1
        if found.kind not in OUTCOMES[:2]:
            on_wrong(f"{name} {number}", change, found)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=list(READERS), help="default: all")
    options = parser.parse_args()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    kinds: Counter[str] = Counter()

    def on_wrong(number: str, change: Change, found: Outcome) -> None:
        kind = f"{found.kind}: {found.about}"
        kinds[kind] += 1
        if kinds[kind] == 1:
            print(f"{number}: {change.about}: {kind}", flush=True)

    readers = {name: READERS[name] for name in options.reader or READERS}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(Path(folder), options.inputs, options.seed, readers, on_wrong)
    print(f"{options.inputs:,} inputs, seed {options.seed}, {time.monotonic() - start:.0f} s")
    for name, found in counts.items():
        print(f"{name:15}", ", ".join(f"{found[kind]} {kind}" for kind in OUTCOMES if found[kind]))
    sys.exit(1 if kinds else 0)


if __name__ == "__main__":
    main()
