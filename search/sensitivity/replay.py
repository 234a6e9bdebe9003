"""Computes a network again from the first call of a changed module; what ran before it returns what it gave before.

It needs no trace of the network: every module's calls are counted, and a call that had ended before the changed module
was called first returns its kept output. So whole blocks are skipped, whatever the graph between them is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class _Call:
    """A call of a module in the reference run; calls are numbered in the order in which they begin."""

    module: nn.Module
    end: int = 0
    """The number of calls that had begun when this one ended: those inside it have the numbers up to `end`."""
    output: Any = None
    version: int = 0
    """Torch's count of changes in place of the output."""
    kept: bool = False


class Replay:
    """The calls of one run of a network, for runs that differ from one module on.

    Values that a network changes in place (``out += x``) are copied when they are kept and when they are returned. The
    first run on any input finds out which these are, so it is repeated once.

    Args:
        network: in evaluation mode, or at least without randomness.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> replay, x = Replay(network), torch.ones(1, 2)
        >>> with replay.patched():
        ...     before = replay.record(x)
        ...     network[1].bias.data += 1
        ...     after = replay.run(x, network[1])  # does not compute network[0]
        >>> (after - before).round(decimals=3).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._calls: list[_Call] = []
        self._begun = 0
        self._until: int | None = None  # None while a run is recorded
        self.computed: list[nn.Module] = []
        """Modules that the last run computed, in order of their calls, containers included."""
        self._changed_in_place: set[int] | None = None  # numbers of calls; None before the first run

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Inside, calls of the network's modules are counted."""
        modules = [m for m in self._network.modules() if "forward" not in vars(m)]
        for module in modules:
            module.forward = functools.partial(self._call, module, module.forward)
        try:
            yield
        finally:
            for module in modules:
                del module.forward
            self._calls = []

    @torch.no_grad()
    def record(self, x: Tensor) -> Any:
        """Computes the whole network and keeps what its modules give.

        Returns:
            The network's output.
        """
        first = self._changed_in_place is None
        while True:
            self._calls, self._begun, self._until = [], 0, None
            output = self._network(x)
            changed = {i for i, c in enumerate(self._calls) if c.kept and _version(c.output) != c.version}
            self._changed_in_place = (self._changed_in_place or set()) | changed
            if not (first and changed):
                return _copy(output)
            first = False

    @torch.no_grad()
    def run(self, x: Tensor, changed: nn.Module) -> Any:
        """The network's output, computed from the first call of `changed` on.

        Args:
            x: what was recorded last.
        """
        self._begun, self.computed = 0, []
        self._until = next((i for i, c in enumerate(self._calls) if c.module is changed), len(self._calls))
        return self._network(x)

    def order(self, modules: Mapping[str, nn.Module]) -> list[str]:
        """Names of `modules` in the order of their first calls in the recorded run; those never called come last."""
        names = {id(module): name for name, module in modules.items()}
        called = dict.fromkeys(names[id(c.module)] for c in self._calls if id(c.module) in names)
        return [*called, *(name for name in modules if name not in called)]

    def _call(self, module: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        index, in_place = self._begun, self._changed_in_place or ()
        if self._until is None:
            call = _Call(module)
            self._calls.append(call)
            self._begun += 1
            output = forward(*arguments, **named)
            call.end, call.kept = self._begun, _is_tensors(output)
            if call.kept:
                call.output = _copy(output) if index in in_place else output
                call.version = _version(call.output)
            return output
        if index < self._until:
            call = self._calls[index]
            if call.kept and call.end <= self._until:
                self._begun = call.end
                return _copy(call.output) if index in in_place else call.output
        self._begun += 1
        self.computed.append(module)
        return forward(*arguments, **named)


def _is_tensors(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_tensors(v) for v in value)
    return isinstance(value, Tensor)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return type(value)(_copy(v) for v in value) if type(value) in (tuple, list) else value


def _version(value: Any) -> int:
    if isinstance(value, Tensor):
        return int(value._version)
    return sum(_version(v) for v in value)
