"""Products of two activations where a network computes them: each runs as its `MixedProduct`.

A product such as ``q @ k.mT`` has no module that could be replaced. So the module whose ``forward`` computes it, its
owner, gets its mixed products as children (``attn.matmul_1``), and runs with a `torch.overrides.TorchFunctionMode` that
sees the calls of torch's functions. Other modules run as they did. What is saved, copied and computed again for
checkpoints is the owner with its children, as it is with any module.

Products are counted as `enos export` does: in the order of execution, those that run directly in the owner, not in a
module that it calls, and of which both operands were computed from the network's input. A product with parameters, or
with what was computed from them alone, is a layer of another kind.

Some modules read the weights of their linear layers and call `torch.nn.functional.linear` themselves, as the attention
of torchvision's Swin does. They run in the same way: such a call is one of the layer.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from search.layers.choice import Choice
from search.layers.function_mode import FunctionMode
from search.layers.mixed_layer import PlainLayer
from search.layers.mixed_product import Bilinear, MixedProduct
from search.layers.stand_in import StandIn
from search.layers.tracing import eager

_NAME = re.compile(r"(?:(.+)\.)?matmul_([1-9][0-9]*)")


def owner_of(name: str) -> tuple[str, int] | None:
    """Owner and number of a product from its name in the table; None for names of another form.

    Example:
        >>> owner_of("blocks.0.attn.matmul_2"), owner_of("matmul_1"), owner_of("fc")
        (('blocks.0.attn', 2), ('', 1), None)
    """
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1] or "", int(found[2]))


def refusal(network: nn.Module, name: str) -> str | None:
    """Why the product of this name cannot be searched in a network; None if it can."""
    known = owner_of(name)
    if known is None:
        return "its name is not one of a product"
    try:
        owner = network.get_submodule(known[0])
    except AttributeError:
        return f"the network has no module {known[0]!r}"
    if isinstance(owner, torch.jit.ScriptModule):
        return "it runs in a scripted module"
    if isinstance(owner, nn.MultiheadAttention):
        return "it runs in a torch.nn.MultiheadAttention, which computes it as a whole"
    if isinstance(owner, nn.Sequential):
        return "its module runs all of its children"
    if hasattr(owner, f"matmul_{known[1]}"):
        return f"its module has an attribute matmul_{known[1]}"
    return None


def insert_products(network: nn.Module, products: Mapping[str, MixedProduct], names: Iterable[str] = ()) -> None:
    """Makes the modules of a network compute these products, in place.

    Args:
        products: by name in the table (``attn.matmul_1``); they become modules of the network under these names.
        names: of all products that the table has, those among them that stay as they are included.

    Raises:
        InputError: a product that cannot be searched, see `refusal`.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> class Scores(nn.Module):
        ...     def forward(self, q, k):
        ...         return q @ k.mT
        >>> network = Scores()
        >>> typical = [c for c in load_candidates() if c.operator == "typical"]
        >>> insert_products(network, {"matmul_1": MixedProduct(typical)})
        >>> [name for name, _ in network.named_parameters()]
        ['matmul_1.alpha']
        >>> network(torch.randn(2, 4, 8), torch.randn(2, 4, 8)).requires_grad
        True
    """
    for name in products:
        if (reason := refusal(network, name)) is not None:
            raise InputError(f"layer {name!r}", f"cannot be searched: {reason}", hint="exclude it")
    counts = _counts((*names, *products))
    for name, product in products.items():
        place, _, child = name.rpartition(".")
        owner = network.get_submodule(place)
        owner.add_module(child, product)
        owner.forward = _Forward(owner, place, counts[place])


def insert_readers(network: nn.Module, names: Iterable[str] = ()) -> None:
    """Makes modules that read the weights of their searched layers without a call compute these layers, in place.

    Args:
        names: of all products that the table has.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> class Scores(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.key = nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return torch.nn.functional.linear(x, self.key.weight)
        >>> from search.layers.mixed_layer import MixedLayer
        >>> network = Scores()
        >>> network.key = MixedLayer(network.key, load_candidates())
        >>> insert_readers(network)
        >>> network(torch.randn(3, 4)).sum().backward()
        >>> network.key.alpha.grad is None
        False
    """
    counts = _counts(names)
    for name, module in network.named_modules():
        if isinstance(module, Choice | nn.Sequential) or isinstance(module.__dict__.get("forward"), _Forward):
            continue
        if _reads_weights(module) and any(map(_searched, module.modules())):
            module.forward = _Forward(module, name, counts.get(name, 0))


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Owner -> how many products the table has for a call of it."""
    counts: dict[str, int] = {}
    for place, number in filter(None, map(owner_of, names)):
        counts[place] = max(counts.get(place, 0), number)
    return counts


def _searched(module: nn.Module) -> bool:
    return isinstance(module, StandIn) and not isinstance(module, PlainLayer)


_FUSED = (nn.TransformerEncoder.forward, nn.TransformerEncoderLayer.forward)
"""They read weights for a fused form alone, which `search.layers.foreign.without_fast_path` switches off."""


def _by_weight(owner: nn.Module) -> dict[int, nn.Module]:
    """Id of a layer's weights -> what is in its place, of the searched layers in a module."""
    found: list[Any] = [module for module in owner.modules() if _searched(module)]
    return {id(module.layer.weight): module for module in found}


def _reads_weights(module: nn.Module) -> bool:
    """Whether the forward pass, or a method that it names, reads an attribute called ``weight``."""
    if type(module).forward in _FUSED:
        return False
    seen: set[str] = set()
    names = ["forward"]
    while names:
        name = names.pop()
        code = getattr(inspect.unwrap(getattr(type(module), name, len)), "__code__", None)
        if name in seen or code is None or (name != "forward" and hasattr(nn.Module, name)):
            continue
        seen.add(name)
        if "weight" in code.co_names:
            return True
        names.extend(code.co_names)
    return False


class _Forward:
    """The `forward` of an owner: its own, with its products replaced; an attribute of the instance.

    Args:
        owner: of which it is an attribute.
        name: of the owner.
        count: how many products the table has for a call of it.
    """

    def __init__(self, owner: nn.Module, name: str, count: int) -> None:
        before = owner.__dict__.get("forward")  # where a tool has replaced the method
        self.owner, self.name, self.count = owner, name, count
        self.own: Callable[..., Any] | None = before.own if isinstance(before, _Forward) else before
        self.said = False

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._method())

    def _method(self) -> Callable[..., Any]:
        return MethodType(type(self.owner).forward, self.owner) if self.own is None else self.own

    @eager
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Products(self.owner) as seen:
            result = self._method()(*args, **kwargs)
        if seen.count != self.count and not self.said:
            self.said = True
            place = f"module {self.name!r}" if self.name else "the network itself"
            what = "those without a row are not quantised" if seen.count > self.count else "the others do not run"
            problem = f"computes {seen.count} products of activations, but the table has {self.count} for a call of it"
            warnings.warn(f"{place} {problem}: {what}", stacklevel=2)
        return result


class _Products(FunctionMode):
    """While it is active, products that run directly in `owner` are computed by its mixed products, by number."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner, self.count = owner, 0
        # What does not depend on the input, by id: the parameters, and what is computed from nothing else. The tensors
        # are kept, so that no other gets the id of one that is gone.
        held = (t for t in vars(owner).values() if isinstance(t, Tensor))
        self.constant: dict[int, Tensor] = {id(t): t for t in (*owner.parameters(), *owner.buffers(), *held)}
        self.layers = _by_weight(owner)

    def called(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        handler = _HANDLERS.get(name)
        if handler is not None and self._runs():
            return handler(self, func, args, kwargs)
        result = func(*args, **kwargs)
        self._note(name, args, kwargs, result)
        return result

    def _runs(self) -> bool:
        """Whether the owner itself is running; torch.export may call it by a stand-in that has its attributes."""
        running = _running()
        return running is self.owner or (running is not None and vars(running) is vars(self.owner))

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Keeps account of what does not depend on the input."""
        if isinstance(_running(), Choice):  # its compiled loops write data where torch does not see it
            return
        data = any(map(self.is_data, args)) or (bool(kwargs) and any(map(self.is_data, kwargs.values())))
        if not data:
            if name in _MEMORY or _in_choice():
                return  # it may be filled by what is not seen here, as compiled loops
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, Tensor):
                    self.constant[id(tensor)] = tensor
        elif name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):  # writes into the first
            for tensor in (args[0], getattr(args[0], "_base", None)) if args else ():
                self.constant.pop(id(tensor), None)

    def is_data(self, value: Any) -> bool:
        """Whether a value depends on the input: a tensor, or a list with one, that is not known to be constant."""
        if isinstance(value, Tensor):
            return id(value) not in self.constant
        return isinstance(value, tuple | list) and any(map(self.is_data, value))

    def product(self, compute: Bilinear, first: Tensor, second: Tensor) -> Tensor:
        """A product that runs in the owner; counted if both operands depend on the input."""
        depends = [self.is_data(t) and not _of_parameter(t) for t in (first, second)]
        if not all(depends):
            result = compute(first, second)
            if not any(depends):
                self.constant[id(result)] = result
            return result
        self.count += 1
        mixed = self.owner._modules.get(f"matmul_{self.count}")
        if not isinstance(mixed, MixedProduct) or not (first.is_floating_point() and second.is_floating_point()):
            return compute(first, second)
        mixed_result: Tensor = mixed(compute, first, second)
        return mixed_result


def _of_parameter(x: Tensor) -> bool:
    """Whether a tensor is a parameter or a view of one, perhaps of another module."""
    return isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter)


def _running() -> nn.Module | None:
    """The innermost module that is being called in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            module: nn.Module = frame.f_locals["self"]
            return module
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _in_choice() -> bool:
    """Whether a searched layer or product is being called: what it computes in a way of its own is not followed."""
    frame = sys._getframe(3)
    while frame is not None:
        if frame.f_code is _CALL and isinstance(frame.f_locals["self"], Choice):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


_MEMORY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_CALL = nn.Module._call_impl.__code__


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    """The arguments of these names, by position or keyword; None where there is none."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


Handler = Callable[[_Products, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


def _written(result: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    out: Tensor | None = kwargs.get("out")
    return result if out is None else out.copy_(result)


def _two(second: str, compute: Bilinear) -> Handler:
    """Of a function of two factors."""

    def handle(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        a, b = _given(args, kwargs, ("self" if "self" in kwargs else "input", second))
        return _written(seen.product(compute, a, b), kwargs)

    return handle


def _reversed(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return seen.product(torch.matmul, args[1], args[0])


def _linear(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    x, weight, bias = _given(args, kwargs, ("input", "weight", "bias"))
    if (layer := seen.layers.get(id(weight))) is not None:
        return _of_layer(seen, layer, x, bias)
    if not (seen.is_data(x) and seen.is_data(weight)):
        return func(*args, **kwargs)
    y = seen.product(func, x, weight)
    return y if bias is None else y + bias


def _of_layer(seen: _Products, layer: Any, x: Tensor, bias: Tensor | None) -> Tensor:
    """A call of a layer by its weights, perhaps with another bias."""
    y: Tensor = layer(x)
    own = layer.layer.bias
    if bias is not own:
        y = y if own is None else y - own
        y = y if bias is None else y + bias
    if not seen.is_data(x):
        seen.constant[id(y)] = y
    return y


def _added(first: str, second: str, compute: Bilinear, *, in_place: bool = False) -> Handler:
    """Of beta * input + alpha * product."""

    def handle(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        x, a, b = _given(args, kwargs, ("input", first, second))
        beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
        y = seen.product(compute, a, b)
        y = y if alpha == 1 else y * alpha
        if beta != 0:  # else the input is not read, whatever it holds
            y = y + (x if beta == 1 else x * beta)
        return x.copy_(y) if in_place else _written(y, kwargs)

    return handle


def _summed_batch(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b).sum(0)


def _tensordot(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    a, b, dims = _given(args, kwargs, ("a", "b", "dims"))
    dims = 2 if dims is None else dims
    return _written(seen.product(lambda x, y: func(x, y, dims), a, b), kwargs)


def _einsum(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    equation, operands = _equation(args)
    sums = [i for i, letters in enumerate(_summed(equation, operands)) if letters]
    if len(operands) != 2 or not sums:
        if len(operands) > 2 and sum(map(seen.is_data, operands)) > 1:
            raise InputError(
                "einsum", f"of {len(operands)} operands ({equation}) has products that cannot be searched",
                hint="write it as several, or exclude the products of its module",
            )  # fmt: skip
        result = func(equation, *operands)
        seen._note("einsum", tuple(operands), {}, result)
        return result
    return seen.product(lambda a, b: func(equation, a, b), *operands)


def _equation(args: tuple[Any, ...]) -> tuple[str, list[Tensor]]:
    """The equation and the operands of any form of einsum."""
    if isinstance(args[0], str):
        operands = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        return args[0].replace(" ", ""), list(operands)

    def text(axes: Any) -> str:
        return "".join(
            "..." if a is Ellipsis else chr(ord("A") + a) if a < 26 else chr(ord("a") + a - 26) for a in axes
        )

    pairs = len(args) // 2
    equation = ",".join(text(args[2 * i + 1]) for i in range(pairs))
    return equation + (f"->{text(args[-1])}" if len(args) % 2 else ""), list(args[0 : 2 * pairs : 2])


def _summed(equation: str, operands: list[Tensor]) -> list[set[str]]:
    """For each operand but the first: the summed axes of more than one value that it shares with the first."""
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if not output and "->" not in equation:  # the letters that occur once
        output = "".join(c for c in inputs if c.isalpha() and inputs.count(c) == 1)
    return [
        {c for c in terms[0] if c.isalpha() and c in term and c not in output and _size(terms, operands, c) > 1}
        for term in terms[1:]
    ]


def _size(terms: list[str], operands: list[Tensor], letter: str) -> int:
    """The least size of an axis: one of size 1 is summed before the product."""
    sizes = []
    for term, operand in zip(terms, operands, strict=True):
        before, dots, after = term.partition("...")
        for part, offset in ((before, 0), (after, operand.dim() - len(after) if dots else 0)):
            if letter in part:
                sizes.append(operand.shape[offset + part.index(letter)])
    return min(sizes)


def _attention(seen: _Products, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Scaled dot-product attention as the two products that it consists of, as torch defines it."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    query, key, value, mask, dropout, causal = _given(args, kwargs, names)
    scale = kwargs.get("scale")
    if (causal and mask is not None) or query.is_nested:
        return func(*args, **kwargs)  # refused by torch; nested tensors have no common shape to sum over
    if kwargs.get("enable_gqa", False):
        key, value = (_heads_of(t, query.shape[-3], seen) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = seen.product(_with_transposed, query, key) * scale
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    shares = scores.softmax(-1)
    if mask is not None:  # as in torch, a query that sees nothing gets zeros
        shares = shares.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0)
    shares = torch.dropout(shares, dropout, True) if dropout else shares
    if not (seen.is_data(query) or seen.is_data(key)):
        seen.constant[id(shares)] = shares
    return seen.product(torch.matmul, shares.to(value.dtype), value)


def _heads_of(x: Tensor, heads: int, seen: _Products) -> Tensor:
    """Keys or values of fewer heads than queries, repeated."""
    repeated = x.repeat_interleave(heads // x.shape[-3], -3)
    if not seen.is_data(x):
        seen.constant[id(repeated)] = repeated
    return repeated


def _with_transposed(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.transpose(-2, -1)


_MATRICES = _two("other", torch.matmul)
_HANDLERS: dict[str, Handler] = {
    "matmul": _MATRICES, "__matmul__": _MATRICES, "linalg_matmul": _MATRICES, "__rmatmul__": _reversed,
    "bmm": _two("mat2", torch.bmm), "mm": _two("mat2", torch.mm), "mv": _two("vec", torch.mv),
    "dot": _two("tensor", torch.dot), "inner": _two("other", torch.inner), "linear": _linear,
    "baddbmm": _added("batch1", "batch2", torch.bmm), "baddbmm_": _added("batch1", "batch2", torch.bmm, in_place=True),
    "addbmm": _added("batch1", "batch2", _summed_batch),
    "addbmm_": _added("batch1", "batch2", _summed_batch, in_place=True),
    "addmm": _added("mat1", "mat2", torch.mm), "addmm_": _added("mat1", "mat2", torch.mm, in_place=True),
    "addmv": _added("mat", "vec", torch.mv), "addmv_": _added("mat", "vec", torch.mv, in_place=True),
    "einsum": _einsum, "tensordot": _tensordot, "scaled_dot_product_attention": _attention,
}  # fmt: skip
"""The functions of torch that compute products of two tensors, by name."""
