"""What a torch module computes while it runs once: every operation of torch, with its shapes and where it came from.

The module really runs, so control flow, several inputs, integer ids, keyword arguments and wrapped modules are no
obstacle. Fused forms of attention and of recurrent layers are switched off meanwhile, so that their products are seen.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import networkx

from dse.core.errors import InputError
from dse.workload.networks import Network, reason
from dse.workload.signs import cannot_be_negative, covers_its_memory, keeps_signs, proved
from dse.workload.written_out import written_out

# torch is imported inside the functions: `dse` must start fast, and only exporting needs it.


@dataclass(frozen=True)
class Operand:
    """A tensor that an operation reads.

    Attributes:
        shape: its sizes.
        parameters: names of the parameters and buffers that it was computed from, if inputs have no part in it.
        data: whether inputs of the network have a part in it.
        shared: whether its first axis is one matrix that was expanded.
        producer: the number of the call whose result it is; None for parameters and inputs.
        complex: whether its values are complex numbers.
        never_negative: whether the operations that computed it prove that it has no negative value, whatever the input.
    """

    shape: tuple[int, ...]
    parameters: frozenset[str]
    data: bool
    shared: bool
    producer: int | None
    complex: bool = False
    never_negative: bool = False

    @property
    def constant(self) -> bool:
        """Whether it is the same for all inputs."""
        return not self.data


@dataclass(frozen=True)
class Call:
    """A call of an operation of torch.

    Attributes:
        operation: its name, with the library if it is not torch's own (``convolution``, ``torchvision.deform_conv2d``).
        module: the innermost module that was running, dotted; ``""`` for the network itself.
        module_call: how often this module had been called before.
        operands: the tensors among its arguments, in order.
        arguments: all positional arguments; tensors are None.
        output: the shape of its first result; None if no result is a tensor.
        multiplications: torch's own count of its multiply-accumulates, four for each of complex numbers; 0 for
            operations that torch does not count.
        view: whether the result is the operand's memory under another shape.
        pointwise: whether every value of the result is computed from one value of each operand.
    """

    operation: str
    module: str
    module_call: int
    operands: tuple[Operand, ...]
    arguments: tuple[Any, ...]
    output: tuple[int, ...] | None
    multiplications: int
    view: bool
    pointwise: bool

    @property
    def where(self) -> str:
        """The module for people."""
        return self.module or "the network itself"


@dataclass(frozen=True)
class Recording:
    """The calls of one run, in order.

    Attributes:
        calls: what was computed.
        ran: how often each module ran, by name; modules that did not run are missing.
        names: all names of each parameter and buffer, by the first one: shared ones have several.
        sizes: number of values of each parameter and buffer.
        input_shape: of the first tensor of the input; empty if there is none.
    """

    calls: tuple[Call, ...]
    ran: dict[str, int]
    names: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    input_shape: tuple[int, ...]

    @cached_property
    def readers(self) -> Counter[int]:
        """Number of a call -> how many calls read its result."""
        return Counter(p for call in self.calls for p in {o.producer for o in call.operands} if p is not None)

    def graph(self) -> networkx.DiGraph:
        """A node for each call, with its fields; an edge to each call that reads its result."""
        graph = networkx.DiGraph()
        for i, call in enumerate(self.calls):
            graph.add_node(i, **vars(call))
            graph.add_edges_from((operand.producer, i) for operand in call.operands if operand.producer is not None)
        return graph


def record(network: Network) -> Recording:
    """Runs a network once at inference, without gradients, and records what it computes.

    Parameters and buffers that the run writes to, such as those of observers, have their values again afterwards.

    Raises:
        InputError: the network does not run on its input.

    Example:
        >>> from torch import nn
        >>> found = record(Network("tiny", nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), (1, 1, 8, 8)))
        >>> [(call.operation, call.module, call.output) for call in found.calls]
        [('convolution', '0', (1, 4, 6, 6)), ('relu', '1', (1, 4, 6, 6))]
        >>> list(found.graph().edges)
        [(0, 1)]
    """
    import torch

    module = network.module
    modes = {m: m.training for m in module.modules()}
    with contextlib.suppress(NotImplementedError):  # a module of torch.export has the mode that it was exported in
        module.eval()  # auxiliary heads and dropout are for training only
    text = f"an input of shape {network.input_shape}" if network.example is None else "its inputs"
    try:
        arguments, keywords = network.arguments()
        if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
            module(*arguments, **keywords)  # only then such layers know their weights' shapes
        recorder = _recorder(module, f"network {network.name!r}")
        input_shape = recorder.give((arguments, keywords))
        with recorder.restoring(), _running(module, recorder), _unfused(), torch.no_grad(), recorder:
            module(*arguments, **keywords)
    except InputError:
        raise
    except Exception as e:  # shape errors of any layer, and too little memory
        raise InputError(f"network {network.name!r}", f"does not run on {text}: {reason(e)}") from None
    finally:
        for m, training in modes.items():
            m.training = training
    ran = {name: times + 1 for name, times in recorder.times.items()}
    return Recording(tuple(recorder.calls), ran, recorder.names, recorder.sizes, input_shape)


class _Origin(NamedTuple):
    """Where a tensor comes from; see `Operand`."""

    parameters: frozenset[str] = frozenset()
    data: bool = False
    producer: int | None = None
    never_negative: bool = False


def _recorder(module: Any, where: str) -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten
    from torch.utils.flop_counter import flop_registry
    from torch.utils.weak import WeakIdKeyDictionary

    composite = torch._C.DispatchKey.CompositeImplicitAutograd

    def tensors(tree: Any) -> list[Any]:
        return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        supports_higher_order_operators = True

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.calls: list[Call] = []
            self.running: list[tuple[str, int]] = []
            self.times: dict[str, int] = {}
            self.names: dict[str, tuple[str, ...]] = {}
            self.sizes: dict[str, int] = {}
            self._origins: MutableMapping[Any, _Origin] = cast(Any, WeakIdKeyDictionary)()
            self._written: MutableMapping[Any, _Origin] = cast(Any, WeakIdKeyDictionary)()
            self._reads_data = False
            self._held: list[Any] = []  # or a scripted module's parameters would be other objects at each access
            self._saved: dict[int, tuple[Any, Any]] = {}
            for named in (module.named_parameters, module.named_buffers):
                for name, tensor in named(remove_duplicate=False):
                    known = self._origins.get(tensor)
                    first = name if known is None else next(iter(known.parameters))
                    self.names[first] = (*self.names.get(first, ()), name)
                    self._held.append(tensor)
                    self._origins[tensor] = _Origin(frozenset([first]))
                    self.sizes[first] = tensor.numel()

        def give(self, inputs: Any) -> tuple[int, ...]:
            """Marks the network's inputs; the shape of the first."""
            given = tensors(inputs)
            for tensor in given:
                self._origins[tensor] = _Origin(data=True)
            return tuple(given[0].shape) if given else ()

        @property
        def place(self) -> str:
            return f"{where}: {(self.running[-1][0] if self.running else '') or 'the network itself'}"

        @contextlib.contextmanager
        def restoring(self) -> Iterator[None]:
            """Gives the parameters and buffers that are written to their values again."""
            try:
                yield
            finally:
                with torch.no_grad():
                    for tensor, values in self._saved.values():
                        if tensor.shape != values.shape:  # observers give their empty buffers a size
                            tensor.resize_(values.shape)
                        tensor.copy_(values)

        def _check(self, used: list[Any]) -> None:
            if any(t.is_nested for t in used):
                raise InputError(self.place, "computes with nested tensors", "tensors of one shape")

        def _save(self, written: list[Any]) -> None:
            storages = {_storage(t) for t in written}
            for i, tensor in enumerate(self._held):
                if i not in self._saved and _storage(tensor) in storages:
                    self._saved[i] = tensor, tensor.detach().clone()

        def _origin(self, tensor: Any) -> _Origin:
            origin = self._origins.get(tensor, _Origin())
            written = self._written.get(_storage(tensor)) if self._written else None
            if written is None:
                return origin
            proved = origin.never_negative and written.never_negative
            return _union([origin, written], origin.producer, proved)

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            read = tensors((args, kwargs))
            self._check(read)
            own = written_out(func, self.place)
            if own is not None:
                with self:
                    return own(*args, **kwargs)
            if func.overloadpacket not in flop_registry and func.has_kernel_for_dispatch_key(composite):
                with self:  # a sequence of other operations; in inference mode torch does not take it apart itself
                    return func.decompose(*args, **kwargs)
            origins = [self._origin(t) for t in read]
            operands = tuple(
                Operand(
                    tuple(t.shape),
                    o.parameters,
                    o.data,
                    _expanded(t),
                    o.producer,
                    t.is_complex(),
                    cannot_be_negative(t, o.never_negative),
                )
                for t, o in zip(read, origins, strict=True)
            )
            if func._schema.is_mutable:
                self._save(_overwritten(func, args, kwargs))
            out = func(*args, **kwargs)
            results = tensors(out)
            self._check(results)
            name, times = self.running[-1] if self.running else ("", 0)
            library = "" if func.namespace in ("aten", "prims") else f"{func.namespace}."
            count = flop_registry.get(func.overloadpacket)
            real = 4 if any(operand.complex for operand in operands) else 1  # of one product of complex numbers
            self.calls.append(
                Call(
                    operation=library + func.overloadpacket.__name__,
                    module=name,
                    module_call=times,
                    operands=operands,
                    arguments=tuple(_argument(a) for a in args),
                    output=tuple(results[0].shape) if results else None,
                    multiplications=0 if count is None else real * int(count(*args, **kwargs, out_val=out)) // 2,
                    view=bool(getattr(func, "is_view", False)),
                    pointwise=torch.Tag.pointwise in func.tags,
                )
            )
            sure = proved(func, args, kwargs, [o.never_negative for o in operands], not self._reads_data)
            if self.calls[-1].operation == "_local_scalar_dense" and operands[0].data and read[0].dtype != torch.bool:
                self._reads_data = True  # from here on a number may be one of the input's
            made = _union(origins, len(self.calls) - 1)
            for t in results:
                self._origins[t] = made._replace(never_negative=sure and keeps_signs(t))
            if func._schema.is_mutable:
                self._overwrite(results, made, _overwritten(func, args, kwargs))
            return out

        def _overwrite(self, results: list[Any], made: _Origin, written: list[Any]) -> None:
            """Notes what a call that writes to its operands has done to them, and to all that shares their memory."""
            for t in results:  # a view of a larger tensor, which now has a part of these values
                storage, proved = _storage(t), self._origins[t].never_negative
                before = self._written.get(storage)
                if before is not None and not covers_its_memory(t):
                    proved = proved and before.never_negative
                self._written[storage] = made._replace(never_negative=proved)
            for t in written:
                if not any(t is result for result in results):  # nothing is known of what it has now
                    self._origins[t] = self._origin(t)._replace(never_negative=False)
                    storage = _storage(t)
                    self._written[storage] = self._written.get(storage, _Origin())._replace(never_negative=False)

    return Recorder()


def _overwritten(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The tensors that an operation writes to."""
    from torch.utils._pytree import tree_flatten

    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    written = [given[a.name] for a in func._schema.arguments if a.is_write and a.name in given]
    return [t for t in tree_flatten(written)[0] if hasattr(t, "untyped_storage")]


def _argument(value: Any) -> Any:
    import torch

    return None if isinstance(value, torch.Tensor) else value


def _union(origins: list[_Origin], producer: int | None, never_negative: bool = False) -> _Origin:
    if any(origin.data for origin in origins):  # of data it does not matter which parameters had a part in them
        return _Origin(data=True, producer=producer, never_negative=never_negative)
    parameters = frozenset().union(*(origin.parameters for origin in origins))
    return _Origin(parameters, False, producer, never_negative)


def _storage(tensor: Any) -> Any:
    try:
        return tensor.untyped_storage()
    except NotImplementedError:  # sparse tensors and some subclasses have none
        return tensor


def _expanded(tensor: Any) -> bool:
    """Whether a batch of matrices is one matrix under every index."""
    try:
        return bool(tensor.dim() == 3 and tensor.shape[0] > 1 and tensor.stride(0) == 0)
    except RuntimeError:  # a layout without strides
        return False


@contextlib.contextmanager
def _running(module: Any, recorder: Any) -> Iterator[None]:
    """Tells the recorder which module runs; recurrent ones run without oneDNN, which computes them as a whole."""
    import torch

    handles = []
    without = contextlib.ExitStack()

    def recurrent(_module: Any, _inputs: Any) -> None:
        with warnings.catch_warnings(action="ignore"):  # of types of numbers that this machine lacks
            without.enter_context(torch.backends.mkldnn.flags(enabled=False))

    def not_recurrent(_module: Any, _inputs: Any, _output: Any) -> None:
        without.close()

    def entered(name: str) -> Any:
        def hook(_module: Any, _inputs: Any) -> None:
            times = recorder.times.get(name, -1) + 1
            recorder.times[name] = times
            recorder.running.append((name, times))

        return hook

    def left(_module: Any, _inputs: Any, _output: Any) -> None:
        recorder.running.pop()

    try:
        for name, m in module.named_modules():
            if type(m).__module__.startswith("torch.jit"):  # scripted code does not call hooks
                continue
            handles.append(m.register_forward_pre_hook(entered(name), prepend=True))
            handles.append(m.register_forward_hook(left, always_call=True))
            if isinstance(m, torch.nn.RNNBase):  # all other layers are slower without it
                handles.append(m.register_forward_pre_hook(recurrent))
                handles.append(m.register_forward_hook(not_recurrent, always_call=True))
        yield
    finally:
        without.close()
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Attention as the products that it consists of; compiled modules as they were written."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if hasattr(torch.compiler, "set_stance"):  # torch 2.6
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
