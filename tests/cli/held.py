"""`enos map` with two workers on any machine and an engine that never answers once it was asked often enough."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import joblib

import dse.engines.native
from dse.cli import main
from tests.dse.fakes import FakeEngine


@dataclass(frozen=True)
class HeldEngine(FakeEngine):
    """Writes a line for the log of `enos --verbose`, too; ends its process at the search number `dies`."""

    batches_candidates: bool = False
    dies: bool = False

    def search(self, *arguments: Any, **options: Any) -> Any:
        logging.getLogger("enos.mapper").debug("a search in process %d", os.getpid())
        if self.dies:
            os._exit(1)
        return super().search(*arguments, **options)


def enos(log: str, halts: int = 0, dies: bool = False) -> None:
    """The command line with the arguments of the process.

    Args:
        log: file that gets one line for each search.
        halts: number of that search that never ends, and those after it; 0 for none.
        dies: whether every search ends its process.
    """
    joblib.cpu_count = lambda: 2
    dse.engines.native.NativeEngine = partial(HeldEngine, log=log, halts=halts, dies=dies)  # type: ignore[misc,assignment]
    main()
