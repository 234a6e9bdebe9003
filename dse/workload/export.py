"""A `torch.nn.Module` as a workload: runs it once and turns each product of its tensors into a Timeloop problem."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dse.core.errors import InputError
from dse.workload.layers import Layer, Workload
from dse.workload.names import listed, unused
from dse.workload.networks import Network
from dse.workload.products import Product, products
from dse.workload.record import Call, Recording, record
from dse.workload.sums import by_broadcasting, sums_of_activations, sums_of_values, sums_one_by_one

# Operations that read parameters and data without multiplying and adding up, beside those that torch declares to be
# pointwise. Anything else that reads parameters is refused: with a product that is skipped by mistake the energy of the
# network would be too low.
_ONE_PER_VALUE = (
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm",
    "cudnn_batch_norm", "native_layer_norm", "native_group_norm", "rms_norm", "_fused_rms_norm", "_prelu_kernel",
    "rsub", "pow", "cat", "stack", "index_select", "index", "gather", "take", "copy_", "copy", "index_put_",
    "index_put", "_index_put_impl_", "index_copy_", "index_copy", "index_add_", "index_add", "index_fill",
    "index_fill_",
    "slice_scatter", "select_scatter", "scatter", "scatter_", "scatter_add", "scatter_add_", "masked_scatter",
    "masked_scatter_", "masked_fill_", "constant_pad_nd", "hardswish", "floor_divide", "searchsorted", "bucketize",
    "isin", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine",
    "fake_quantize_per_tensor_affine_cachemask", "fake_quantize_per_channel_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "_fused_moving_avg_obs_fq_helper",
    "_fused_moving_avg_obs_fq_helper_functional", "embedding", "set_", "resize_", "equal", "allclose",
    "_embedding_bag", "native_dropout", "sub_", "add_", "mul_", "div_", "lerp_", "where", "_foreach_add",
)  # fmt: skip
# Operations of other libraries than torch that read data and multiply no two of them.
_OTHER_LIBRARIES = (
    "torchvision.nms", "torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align",
    "torchvision.ps_roi_pool",
)  # fmt: skip


def export_network(network: Network) -> Workload:
    """The layers of a network that the MAC array computes, in execution order.

    The network runs once at inference. Every product that torch computes meanwhile is a layer: convolutions of one,
    two and three axes, also transposed ones (grouped, dilated, padded), linear layers, the products of attention and of
    recurrent layers, however they are written. Lookups in tables of parameters are layers without products. Everything
    else is in `Workload.passed_over`: kind of module or operation -> reason and places.

    A layer whose inputs cannot be negative by the operations that compute them (`dse.workload.signs`), such as those
    after a ReLU, is not `signed`. Only this run is followed: where it depends on data, another one may differ.

    A layer is named after the module that computes it, else after its parameter (``attention.in_proj``,
    ``rnn.weight_hh_l0``); products of two activations after the module in which they run (``attention.matmul_1``). What
    is computed again with the same name is a further layer, ``name#2``: each execution needs energy.

    Products of parameters alone that prepare the weights of a layer (a low-rank update that is added to them) are
    passed over: they are the same for all inputs.

    Raises:
        InputError: the network does not run on its input; it reads parameters in an operation that is unknown here; a
            layer has another number of products than torch counts; or it has no layer.

    Example:
        >>> from torch import nn
        >>> network = Network("tiny", nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)), (1, 1, 8, 8))
        >>> [(layer.name, layer.problem.macs) for layer in export_network(network).layers]
        [('0', 1296), ('2', 1440)]
    """
    recording = record(network)
    where = f"network {network.name!r}"
    plain = _plain(network.module)
    _check_seen(recording, plain, where)
    of_calls = _products(recording, plain, where)
    layers: list[Layer] = []
    names: set[str] = set()
    named = list(_named(recording, of_calls))
    signed = {name for name, product in named if product.signed}  # all calls of a layer have one form of words
    for name, product in named:
        unique = unused(name, names)
        names.add(unique)
        layers.append(Layer(unique, product.kind, product.instance, image=product.image, signed=name in signed))
    if not layers:
        raise InputError(where, "has no layer for the MAC array", hint="a layer multiplies by weights or activations")
    shape = network.input_shape or recording.input_shape
    return Workload(network.name, tuple(layers), shape, _passed_over(network.module, recording, of_calls))


def _plain(module: Any) -> frozenset[str]:
    """Names of the modules that are layers of torch's own and compute what these do."""
    import torch

    nn = torch.nn
    kinds = (
        nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
        nn.ConvTranspose3d, nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention,
    )  # fmt: skip
    forwards = [kind.forward for kind in kinds]
    return frozenset(name for name, m in module.named_modules() if isinstance(m, kinds) and type(m).forward in forwards)


def _check_seen(recording: Recording, plain: Collection[str], where: str) -> None:
    """Refuses a layer that ran where it could not be recorded."""
    seen = {(call.module, call.module_call) for call in recording.calls}
    for name in plain:
        if any((name, i) not in seen for i in range(recording.ran.get(name, 0))):
            problem = "runs where its operations cannot be recorded"
            raise InputError(f"{where}: {name}", problem, hint="such as in another thread or process")


def _products(recording: Recording, plain: Collection[str], where: str) -> dict[int, tuple[Product, ...]]:
    """Number of a call -> its products; checks them against torch's own count, and what has none against the list."""
    found: dict[int, tuple[Product, ...]] = {}
    preparing = _preparing(recording, plain)
    for i, call in enumerate(recording.calls):
        own = products(call)
        if own and any(0 in operand.shape for operand in call.operands):
            continue  # nothing is computed, as by an expert that no token chose
        if not own and (summed := by_broadcasting(recording, call, where)) is not None:
            own = (summed,)
        place = f"{where}: {call.where}"
        macs = sum(Layer("", p.kind, p.instance).macs for p in own)
        if call.multiplications and macs != call.multiplications:
            problem = f"{call.operation} has {call.multiplications:,} multiply-accumulates, of which {macs:,} are read"
            raise InputError(place, problem, hint="this form is unknown here")
        if own and i not in preparing and not _only_parameters(call):
            found[i] = own
        elif not own:
            _check_known(call, place)
    return found


def _check_known(call: Call, place: str) -> None:
    """Refuses an operation that may multiply parameters by data."""
    library, dot, _ = call.operation.rpartition(".")
    if call.operands and any(type(a).__name__ == "ScriptObject" for a in _leaves(call.arguments)):
        raise InputError(place, f"{call.operation} computes with packed weights", hint=_EXPORT_FLOAT)
    if library.startswith("quantized") or call.operation.startswith("quantized_"):
        return
    if dot and call.operation not in _OTHER_LIBRARIES and any(o.data for o in call.operands):
        problem = f"{call.operation} is of another library than torch, and what it computes is unknown here"
        raise InputError(place, problem, hint="use operations of torch in its place")
    mixed = any(o.data for o in call.operands) and any(o.constant and o.parameters for o in call.operands)
    if mixed and not (call.pointwise or call.view or call.operation in _ONE_PER_VALUE):
        problem = f"{call.operation} computes with parameters in a way that is unknown here"
        raise InputError(place, problem, "convolutions, products of matrices, one operation per value")


def _leaves(arguments: Any) -> list[Any]:
    return [leaf for a in arguments for leaf in _leaves(a)] if isinstance(arguments, (list, tuple)) else [arguments]


_EXPORT_FLOAT = "export the network before it is converted"


def _only_parameters(call: Call) -> bool:
    """A product without data that torch does not count, such as a step of a spectral norm."""
    return not call.multiplications and all(operand.constant for operand in call.operands)


def _preparing(recording: Recording, plain: Collection[str]) -> set[int]:
    """Calls that compute with parameters alone what is the weight of a layer.

    What layers of torch's own compute is no such preparation, even if it is the same for all inputs: queries that are
    parameters go through the same layers as others.
    """
    open_calls = [
        product.weights.producer
        for call in recording.calls
        for product in products(call)
        if product.weights is not None and product.weights.producer is not None
    ]
    found: set[int] = set()
    while open_calls:
        i = open_calls.pop()
        call = recording.calls[i]
        if i not in found and not (call.module in plain and call.multiplications):
            found.add(i)
            open_calls += [o.producer for o in call.operands if o.producer is not None]
    return found


def _named(recording: Recording, of_calls: dict[int, tuple[Product, ...]]) -> Iterator[tuple[str, Product]]:
    """The products with the names of their layers, which may be equal."""
    numbers: dict[tuple[str, int, str], int] = {}
    for i, found in of_calls.items():
        call = recording.calls[i]
        for product in found:
            if product.weights is not None and product.weights.parameters:
                yield _parameter_name(recording, call.module, product.weights.parameters), product
                continue
            key = (call.module, call.module_call, product.label)
            numbers[key] = numbers.get(key, 0) + 1
            yield f"{call.module}.{product.label}_{numbers[key]}".lstrip("."), product


def _parameter_name(recording: Recording, module: str, parameters: Collection[str]) -> str:
    """The name of a layer from the parameters that its weights were computed from.

    Those of the running module come first, then the largest: a weight has few values of scales and norms beside it.
    """
    names = {name: first for first in parameters for name in recording.names.get(first, (first,))}
    owned = {name: _owner(name) for name in names}
    best = max(owned, key=lambda n: (owned[n][0] == module, owned[n][1] == "", recording.sizes.get(names[n], 0)))
    owner, attribute = owned[best]
    return f"{owner}.{attribute}".strip(".") or "weight"


def _owner(name: str) -> tuple[str, str]:
    """Module and attribute of a parameter; the attribute is empty if it is the module's only weight."""
    name = name.replace(".parametrizations.", ".") if ".parametrizations." in name else name
    name = name.removeprefix("parametrizations.")
    for suffix in (".original", ".original0", ".original1"):
        name = name.removesuffix(suffix)
    owner, _, attribute = name.rpartition(".")
    if attribute in ("weight", "weight_orig", "weight_g", "weight_v"):
        return owner, ""
    return owner, attribute.removesuffix("_weight")


def _passed_over(module: Any, recording: Recording, of_calls: dict[int, tuple[Product, ...]]) -> dict[str, str]:
    """Kind of module or operation -> why it is no layer, and where."""
    leaves = {name: type(m).__name__ for name, m in module.named_modules() if name and not list(m.children())}
    computing = {recording.calls[i].module for i in of_calls}  # a layer may prepare its weights before
    reasons: dict[str, int] = {}
    places: dict[str, dict[tuple[str, int, int], None]] = {}
    for i, call in enumerate(recording.calls):
        step = i
        if call.module in leaves and call.module not in computing:
            kind, step = leaves[call.module], 0
        elif i in of_calls or call.module in leaves or _moves(call):
            continue
        else:
            kind = call.operation.strip("_")
        reasons[kind] = max(reasons.get(kind, 0), _reason(call))
        places.setdefault(kind, {})[call.module, call.module_call, step] = None
    found = {kind: f"{_REASONS[reasons[kind]]} ({_places([n for n, *_ in where])})" for kind, where in places.items()}
    for of, sums in (
        ("activations", sums_of_activations(recording)),
        ("parameters", [*sums_of_values(recording), *sums_one_by_one(recording)]),
    ):
        if sums:
            total, where = sum(n for _, n in sums), _places([place for place, _ in sums])
            found[f"sum of products of {of}"] = f"adds up {total:,} products, which no layer has ({where})"
    idle: dict[str, list[str]] = {}
    for name, m in module.named_modules():
        if name not in recording.ran and not list(m.children()) and list(m.parameters()) and not _used(recording, name):
            idle.setdefault(type(m).__name__, []).append(name)
    for kind, names in idle.items():
        found[unused(kind, found)] = f"does not run at inference ({_places(names)})"
    return found


_MOVES = (
    "clone", "copy_", "_to_copy", "_unsafe_view", "lift_fresh_copy", "_local_scalar_dense", "detach", "empty_like",
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_empty", "empty_strided",
)  # fmt: skip


def _moves(call: Call) -> bool:
    """Whether a call computes no values."""
    return call.output is None or call.view or not call.operands or call.operation in _MOVES


def _used(recording: Recording, module: str) -> bool:
    """Whether parameters of a module are read although it does not run, as in a scripted module."""
    return any(
        _owner(name)[0] == module
        for call in recording.calls
        for operand in call.operands
        for first in operand.parameters
        for name in recording.names.get(first, ())
    )


_REASONS = ("has no weights", "prepares parameters", "no multiply-accumulate over its parameters")


def _reason(call: Call) -> int:
    if not any(operand.parameters for operand in call.operands):
        return 0
    return 1 if all(operand.constant for operand in call.operands) else 2


def _places(modules: list[str]) -> str:
    return listed([name or "the network itself" for name in modules])
