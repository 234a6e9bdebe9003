"""A look at every function of torch that runs in a block: what searched layers and products are found by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch.overrides import TorchFunctionMode


class FunctionMode(TorchFunctionMode):
    """Hands each call of a torch function in its ``with`` block to `called`, which computes the result.

    Example:
        >>> import torch
        >>> class Names(FunctionMode):
        ...     names: list[str] = []
        ...     def called(self, func, name, args, kwargs):
        ...         self.names.append(name)
        ...         return func(*args, **kwargs)
        >>> x = torch.ones(2)
        >>> with Names() as seen:
        ...     y = x.exp()
        >>> seen.names
        ['exp']
    """

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.called(func, getattr(func, "__name__", ""), args, kwargs or {})

    def called(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call; `name` is the function's."""
        raise NotImplementedError
