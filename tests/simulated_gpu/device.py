"""Tensors of the simulated device, the rules for operations on them, and what is used of `torch.cuda`."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
MIXED = {"aten._to_copy", "aten.copy_", "aten.index", "aten.index_put_", "aten.index_put", "aten._index_put_impl_"}
"""Operations that take tensors of both devices, besides those with a single number from the host."""

WAITS = {
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.bincount", "aten._unique2",
    "aten.unique_dim", "aten.repeat_interleave",
}  # fmt: skip
"""Operations whose result, or its size, the host waits for."""


class State:
    """What the device does at present."""

    graph: Graph | None = None
    """The graph that is being captured."""

    debug: str | int = "default"
    """What happens when the host waits: nothing, or "warn" or "error"."""

    def set_debug(self, mode: str | int) -> None:
        self.debug = mode


STATE = State()


class Simulated(Tensor):
    """A tensor that torch takes for one on a GPU; `inner` has its values, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Simulated:
        made: Simulated = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip
        return made

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved files are read on the CPU, so that they are those of a CPU."""
        return self.detach().cpu().__reduce_ex__(protocol)


class _Everywhere(TorchDispatchMode):
    """Sees the operations that have no tensor of the device among their arguments."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation; refused as torch refuses it, if tensors lie on two devices."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, Simulated)]
    wanted = kwargs.get("device")
    if not there and (wanted is None or torch.device(wanted).type != "cuda"):
        return func(*args, **kwargs)
    name = func.overloadpacket._qualified_op_name.replace("::", ".")
    _check(func, name, tensors, there)
    result_here = wanted is not None and torch.device(wanted).type != "cuda"
    _watch(name, args, kwargs, there, result_here)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
    if STATE.graph is not None and not result_here:
        found = STATE.graph.record(func, inner_args, inner_kwargs)
    else:
        found = func(*inner_args, **inner_kwargs)
        if result_here and name == "aten._to_copy" and any(t is found for t in tree_leaves(inner_args)):
            found = found.clone()
    if result_here:
        return found
    return _wrapped(func, found, args, kwargs, there)


def _check(func: Any, name: str, tensors: list[Tensor], there: list[Simulated]) -> None:
    here = [t for t in tensors if not isinstance(t, Simulated)]
    if there and here and name not in MIXED:
        numbers = all(t.dim() == 0 and t.device.type == "cpu" for t in here)
        if not (numbers and (torch.Tag.pointwise in func.tags or name == "aten.fill_")):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and cuda:0 in {name}")
        if STATE.graph is not None:
            raise RuntimeError(f"{name}: a number of the host would be the same in each replay")
    if there and here and name.startswith("aten.index") and isinstance(here[0], Tensor) and tensors[0] is here[0]:
        raise RuntimeError(f"{name}: indices on cuda:0 for a tensor on cpu")


def _watch(name: str, args: Any, kwargs: dict[str, Any], there: list[Simulated], result_here: bool) -> None:
    """Notices what the host waits for, and refuses in a capture what a graph cannot do."""
    copied = name == "aten.copy_" and any(not isinstance(t, Simulated) for t in args[:2])
    masked = name.startswith(("aten.index", "aten._index_put")) and any(
        t.dtype in (torch.bool, torch.uint8) for t in tree_leaves(args[1]) if isinstance(t, Tensor)
    )
    to_device = (name == "aten._to_copy" and not there) or (copied and isinstance(args[0], Simulated))
    if not (name in WAITS or masked or copied or to_device or (result_here and name == "aten._to_copy")):
        return
    if STATE.graph is not None:
        raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
    at_once = to_device and (kwargs.get("non_blocking") or (copied and len(args) > 2 and args[2]))
    if at_once or STATE.debug == "default":
        return
    said = f"called a synchronizing CUDA operation: {name} at {_line()}"  # the words of a real GPU
    if STATE.debug == "error":
        raise RuntimeError(said)
    warnings.warn(said, stacklevel=2)


def _line() -> str:
    """The innermost line of ENOS that is being run."""
    frames = [f for f in traceback.extract_stack() if "simulated_gpu" not in f.filename]
    ours = [f for f in frames if f"{os.sep}search{os.sep}" in f.filename or f"{os.sep}benchmarks{os.sep}" in f.filename]
    of = (ours or frames)[-1]
    return f"{Path(of.filename).name}:{of.lineno} {of.name}"


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Simulated) else value


def _wrapped(func: Any, found: Any, args: Any, kwargs: dict[str, Any], there: list[Simulated]) -> Any:
    """The results as tensors of the device: arguments that were written to are returned themselves."""
    known = {id(t.inner): t for t in there}
    if any(t.inner.shape != t.shape for t in there):
        raise NotImplementedError(f"{func} changes the shape of a tensor of the simulated device in place")
    return tree_map(
        lambda t: known.get(id(t), t) if id(t) in known or not isinstance(t, Tensor) else Simulated(t), found
    )


class Graph:
    """The operations of a capture, which are not computed until they are replayed."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._steps: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._own: set[int] = set()

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        for t in _written(func, args):
            at = t.untyped_storage().data_ptr()
            if at not in self._own and at not in self._before:
                flat = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
                self._before[at] = flat, flat.clone()
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        found = func(*args, **kwargs)
        outputs = [t for t in tree_leaves(found) if isinstance(t, Tensor)]
        new = [t for t in outputs if t.untyped_storage().data_ptr() not in known]
        self._own |= {t.untyped_storage().data_ptr() for t in new}
        self._steps.append((func, args, kwargs, outputs))
        return found

    def end(self) -> None:
        """Undoes what the capture has written: on a GPU it computes nothing."""
        for now, before in self._before.values():
            now.copy_(before)

    def replay(self) -> None:
        for func, args, kwargs, outputs in self._steps:
            found = [t for t in tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
            for into, value in zip(outputs, found, strict=True):
                if into.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    into.copy_(value)

    def reset(self) -> None:
        self._steps.clear()


def _written(func: Any, args: Any) -> list[Tensor]:
    """The arguments that an operation writes to."""
    writes = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
    if func.overloadpacket is torch.ops.aten.native_batch_norm:  # its schema does not say so of the running statistics
        writes[3:5] = [True, True]
    return [t for w, given in zip(writes, args, strict=False) if w for t in tree_leaves(given) if isinstance(t, Tensor)]


@contextmanager
def capture(graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
    STATE.graph = graph
    try:
        yield
    finally:
        STATE.graph = None
        graph.end()


def install() -> None:
    """Gives this process, which has loaded the library, the device for good."""
    values: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *_, **__: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda *_: "simulated",
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "manual_seed_all": lambda _: None,
        "max_memory_reserved": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "is_current_stream_capturing": lambda: STATE.graph is not None,
        "set_sync_debug_mode": STATE.set_debug,
        "CUDAGraph": Graph,
        "graph": capture,
    }
    for name, value in values.items():
        setattr(torch.cuda, name, value)
    torch.cuda.graphs.is_current_stream_capturing = values["is_current_stream_capturing"]
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that is moved stays the same object
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor copies to the device by an operation
    _Everywhere().__enter__()
