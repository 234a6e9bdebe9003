"""A `torch.nn.Module` as a workload: traces it with torch.fx and turns each weighted layer into a Timeloop problem."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import replace
from typing import Any

import networkx

from dse.core.errors import InputError
from dse.workload.layers import Layer, Workload
from dse.workload.networks import Network
from dse.workload.networks import reason as reason_of

# torch is imported inside the functions: `dse` must start fast, and only exporting needs it.

# Modules that have parameters but no multiply-accumulate over them, or only one operation per value.
_SCALING = (
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LayerNorm", "GroupNorm", "RMSNorm",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "PReLU", "Embedding", "EmbeddingBag",
)  # fmt: skip
# The same for functions and tensor methods that take a parameter. Anything else with a parameter is refused: without a
# product that is skipped by mistake the energy of the network would be too low.
_SCALING_FUNCTIONS = (
    "add", "iadd", "radd", "sub", "isub", "rsub", "mul", "imul", "rmul", "div", "truediv", "itruediv", "pow", "clamp",
    "maximum", "minimum", "where", "masked_fill", "cat", "concat", "stack", "index_select", "getitem", "expand_as",
    "embedding", "prelu", "batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm",
)  # fmt: skip


def trace(network: Network) -> networkx.DiGraph:
    """The network's graph at inference, one node per operation, in execution order.

    Every node has: ``op`` (of torch.fx), ``kind`` (class of a module, else name of a function or method), ``module``
    (dotted name, ``""`` if it is not a module), ``input_shapes``, ``output_shape`` (``()`` if the result is not a
    tensor) and ``weights`` (those of its inputs that are parameters or are computed only from parameters). The graph's
    attribute ``modules`` maps dotted names to modules.

    Raises:
        InputError: control flow depends on the data, or the network does not accept the input.

    Example:
        >>> from torch import nn
        >>> graph = trace(Network("tiny", nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), (1, 1, 8, 8)))
        >>> [(data["kind"], data["output_shape"]) for _, data in graph.nodes(data=True)][1:3]
        [('Conv2d', (1, 4, 6, 6)), ('ReLU', (1, 4, 6, 6))]
    """
    import torch
    from torch import fx, nn
    from torch.fx.passes.shape_prop import ShapeProp

    class Tracer(fx.Tracer):
        """Does not trace into subclasses of the layers that become problems; they compute the same shape."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear)) or super().is_leaf_module(m, module_qualified_name)

    where, module = f"network {network.name!r}", network.module
    modes = {m: m.training for m in module.modules()}
    module.eval()  # auxiliary heads and dropout are for training only
    try:
        try:
            graph_module = fx.GraphModule(module, Tracer(param_shapes_constant=True).trace(module))
        except Exception as e:  # fx raises whatever the traced code raises when it meets a symbolic value
            raise InputError(where, f"torch.fx cannot trace it: {reason_of(e)}", "control flow fixed by shapes") from e
        like = next(iter(module.parameters()), torch.empty(0))
        try:
            # torch prints the traceback of a node that fails; its cause is in the message.
            with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                sample = torch.zeros(network.input_shape, dtype=like.dtype, device=like.device)
                ShapeProp(graph_module).propagate(sample)
        except Exception as e:  # shape errors of any layer, and too little memory
            reason = reason_of(e.__cause__ or e)
            raise InputError(where, f"does not run on an input of shape {network.input_shape}: {reason}") from None
        return _graph(graph_module)
    finally:
        for m, training in modes.items():
            m.training = training


def _graph(graph_module: Any) -> networkx.DiGraph:
    modules = dict(graph_module.named_modules())
    graph = networkx.DiGraph(modules=modules)
    weights: set[str] = set()
    for node in graph_module.graph.nodes:
        is_module = node.op == "call_module"
        inputs = node.all_input_nodes
        held = [n.name for n in inputs if n.name in weights]
        output_shape = _shape(node.meta.get("tensor_meta"))
        graph.add_node(
            node.name,
            op=node.op,
            kind=type(modules[node.target]).__name__ if is_module else _function_name(node.target),
            module=node.target if is_module else "",
            input_shapes=tuple(_shape(n.meta.get("tensor_meta")) for n in inputs),
            output_shape=output_shape,
            weights=tuple(held),
        )
        graph.add_edges_from((n.name, node.name) for n in inputs)
        from_weights = inputs and len(held) == len(inputs) and node.op in ("call_function", "call_method")
        if output_shape and (node.op == "get_attr" or from_weights):
            weights.add(node.name)
    return graph


def export_network(network: Network) -> Workload:
    """The layers of a network that the MAC array computes, in execution order.

    These are Conv2d and Conv1d (grouped, depth-wise, strided, dilated, padded, any kernel) and Linear, whose leading
    dimensions all become N. Everything else is in `Workload.passed_over` with a reason.

    A module that is called twice gives two layers, ``name`` and ``name#2``: each execution needs energy, and their
    shapes may differ, so each has its own mapping.

    Raises:
        InputError: as in `trace`; or a module with weights cannot be a Timeloop problem, or the network has no layer.

    Example:
        >>> from torch import nn
        >>> network = Network("tiny", nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)), (1, 1, 8, 8))
        >>> [(layer.name, layer.problem.macs) for layer in export_network(network).layers]
        [('0', 1296), ('2', 1440)]
    """
    graph = trace(network)
    modules = graph.graph["modules"]
    layers: list[Layer] = []
    passed_over: dict[str, str] = {}
    for node, data in graph.nodes(data=True):
        where = f"network {network.name!r}: layer {data['module'] or node}"
        if data["op"] == "call_module" and (layer := _layer(data, modules[data["module"]], where)):
            layers.append(replace(layer, name=_unused(layer.name, [known.name for known in layers])))
        elif data["op"] == "call_module":
            passed_over[data["module"]] = _module_reason(data, modules[data["module"]], where)
        elif data["op"] in ("call_function", "call_method") and data["output_shape"]:
            passed_over[_unused(node, passed_over)] = _function_reason(data, where)
    if not layers:
        raise InputError(f"network {network.name!r}", "has no layer for the MAC array", "Conv2d, Conv1d, Linear")
    called = {data["module"] for _, data in graph.nodes(data=True)}
    for name, module in network.module.named_modules():
        if name not in called and not list(module.children()) and list(module.parameters()):
            passed_over[name] = f"{type(module).__name__}: does not run at inference"
    return Workload(network.name, tuple(layers), network.input_shape, passed_over)


def _layer(data: dict[str, Any], module: Any, where: str) -> Layer | None:
    """A call of a convolution or linear module as a layer; None for other modules."""
    from torch import nn

    output = data["output_shape"]
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        axes = len(module.kernel_size)
        batched = output if len(output) == axes + 2 else (1, *output)
        kernel, stride, dilation = (
            (1,) * (2 - axes) + tuple(v) for v in (module.kernel_size, module.stride, module.dilation)
        )
        instance = {
            "N": batched[0],
            "G": module.groups,
            "C": module.in_channels // module.groups,
            "M": module.out_channels // module.groups,
            **dict(zip("PQ", (1,) * (2 - axes) + batched[2:], strict=True)),
            **dict(zip("RS", kernel, strict=True)),
            **{k: v for k, v in zip(("Hstride", "Wstride"), stride, strict=True) if v != 1},
            **{k: v for k, v in zip(("Hdilation", "Wdilation"), dilation, strict=True) if v != 1},
        }
        layer = Layer(data["module"], "conv", instance)
    elif isinstance(module, nn.Linear):
        one = dict.fromkeys("GPQRS", 1)
        instance = one | {"N": math.prod(output[:-1]), "C": module.in_features, "M": module.out_features}
        layer = Layer(data["module"], "linear", {d: instance[d] for d in "NGCMPQRS"})
    else:
        return None
    _check(layer, module, data["input_shapes"][0], output, where)
    return layer


def _check(layer: Layer, module: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...], where: str) -> None:
    """Compares a layer's tensors and MACs with the shapes in torch.

    A subclass may pad its input itself. Padding is not part of a Timeloop problem, so only an upper limit of it is
    checked. A layer that computes something else than its class is an error.
    """
    problem, weight, outputs = layer.problem, module.weight, math.prod(output_shape)
    facts = [
        ("weights", problem.tensor_size("Weights"), weight.numel()),
        ("outputs", problem.tensor_size("Outputs"), outputs),
        ("MACs", problem.macs, outputs * weight[0].numel()),
    ]
    if layer.kind == "linear":
        facts.append(("inputs", problem.tensor_size("Inputs"), math.prod(input_shape)))
    for what, ours, torchs in facts:
        if ours != torchs:
            raise InputError(where, f"computes {torchs} {what}, where a {layer.kind} layer has {ours}", _AS_TORCH)
    if layer.kind == "conv":
        axes = len(module.kernel_size)
        inputs = problem.data_space("Inputs").axes[-axes:]
        for i, axis in enumerate(inputs):
            extent = 1 + sum(c * (problem.bound[d] - 1) for d, c in axis)
            reach = module.dilation[i] * (module.kernel_size[i] - 1)
            available = input_shape[i - axes] + max(_padding(module, i), 2 * reach)
            if extent > available:
                raise InputError(where, f"reads {extent} inputs along axis {i}, of {available} with padding", _AS_TORCH)


_AS_TORCH = "layers that compute what torch.nn's Conv2d, Conv1d and Linear do"


def _padding(module: Any, axis: int) -> int:
    """Values a convolution adds to an axis, at both ends together."""
    if module.padding == "same":
        return int(module.dilation[axis] * (module.kernel_size[axis] - 1))
    return 0 if module.padding == "valid" else int(2 * module.padding[axis])


def _module_reason(data: dict[str, Any], module: Any, where: str) -> str:
    """Why a module is not a layer; InputError if it computes with weights."""
    kind = data["kind"]
    if not list(module.parameters()):
        return f"{kind}: has no weights"
    if kind in _SCALING:
        return f"{kind}: no multiply-accumulate over its parameters"
    raise InputError(where, f"{kind} computes with weights but has no Timeloop form here", "Conv2d, Conv1d, Linear")


def _function_reason(data: dict[str, Any], where: str) -> str:
    """Why a function or method is not a layer; InputError if it computes with weights."""
    kind = data["kind"]
    if not data["weights"]:
        return f"{kind}: has no weights"
    if len(data["weights"]) == len(data["input_shapes"]):
        return f"{kind}: prepares parameters"
    if kind in _SCALING_FUNCTIONS:
        return f"{kind}: no multiply-accumulate over its parameters"
    raise InputError(where, f"function {kind} computes with weights", "the modules Conv2d, Conv1d, Linear")


def _unused(name: str, used: Any) -> str:
    """`name`, or ``name#2``, ``name#3``, ... if it is taken."""
    candidate, n = name, 1
    while candidate in used:
        n += 1
        candidate = f"{name}#{n}"
    return candidate


def _function_name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target)).strip("_")


def _shape(meta: Any) -> tuple[Any, ...]:
    """Shape of a traced value: of a tensor, or of each tensor of a tuple."""
    if hasattr(meta, "shape"):
        return tuple(meta.shape)
    return tuple(_shape(m) for m in meta) if isinstance(meta, (tuple, list)) else ()
