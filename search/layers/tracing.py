"""What is traced instead of computed: torch.export, torch.jit.trace, torch.compile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

F = TypeVar("F", bound=Callable[..., Any])


def traced(x: Tensor) -> bool:
    """Whether a graph is being made of what happens to `x`, so that its values must not be read, nor its memory."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or isinstance(x, FakeTensor)


def eager(forward: F) -> F:
    """A method of a module that `torch.compile` leaves as it is: it runs as usual between two compiled graphs.

    Layers learn statistics of their inputs and call compiled loops, of which no graph can be made. `torch.export` and
    `torch.jit.trace` see what it does.
    """
    apart = torch.compiler.disable(forward, recursive=True)  # type: ignore[no-untyped-call]

    @functools.wraps(forward)
    def choose(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return apart(*args, **kwargs)
        return forward(*args, **kwargs)

    return cast(F, choose)
