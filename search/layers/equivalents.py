"""Modules that multiply by weights in a form of their own, as the same function with layers that can be searched.

`torch.nn.MultiheadAttention` reads the weights of its projections without a call, and ``Conv1D`` of the package
transformers is a linear layer with its weights transposed. Both get another class, in place: what they are called, what
was stored in them, their hooks and their places in the network stay. Everything else that reads weights without a call
is refused by name, see `search.layers.foreign`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError

State = MutableMapping[str, Any]
"""A state dict."""

_OF_TORCH = nn.MultiheadAttention
_OWN_DIMENSIONS = ("q_proj", "k_proj", "v_proj")


class SearchableAttention(nn.Module):
    """What `torch.nn.MultiheadAttention` computes, with projections that are modules.

    The projections are ``in_proj`` for a self-attention; ``in_proj`` for queries and ``in_proj#2`` for keys and values,
    or ``in_proj``, ``in_proj#2`` and ``in_proj#3``, for a cross-attention; ``q_proj``, ``k_proj`` and ``v_proj`` where
    keys or values have a width of their own. They are the rows that `enos export` gives. Inputs that are the same
    tensor are projected together where the projections are one module; the form does not change the result.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dropout: float
    batch_first: bool
    add_zero_attn: bool
    bias_k: Tensor | None
    bias_v: Tensor | None
    projections: tuple[str, ...]

    @property
    def in_proj_weight(self) -> Tensor | None:
        """As in torch's class: shape (3 embed_dim, embed_dim); None where keys or values have a width of their own."""
        if self.projections == _OWN_DIMENSIONS:
            return None
        return _joined([_held(self._layer(name)).weight for name in self.projections])

    @property
    def in_proj_bias(self) -> Tensor | None:
        """As in torch's class: shape (3 embed_dim,), or None."""
        parts = [_held(self._layer(name)).bias for name in self.projections]
        return None if parts[0] is None else _joined(parts)

    def _layer(self, name: str) -> Any:
        return self._modules[name]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The attended values, and the weights of the attention if they are asked for; arguments as torch's."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = _each_once(lambda x: x.unsqueeze(1), query, key, value)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif self.batch_first:
            query, key, value = _each_once(lambda x: x.transpose(0, 1), query, key, value)
        length, batch, _ = query.shape
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs attn_mask, as for torch.nn.MultiheadAttention")
        hint = is_causal and key_padding_mask is None and not need_weights  # the mask is known to be the causal one
        mask = None if hint else _additive(attn_mask, query.dtype)
        padding = _additive(key_padding_mask, query.dtype)
        if mask is not None and mask.dim() == 2:
            mask = mask.unsqueeze(0)

        q, k, v = self._project(query, key, value)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.repeat(1, batch, 1)])
            v = torch.cat([v, self.bias_v.repeat(1, batch, 1)])
            mask, padding = _one_more(mask), _one_more(padding)
        # Sizes are those of `shape`, never of `len`, which makes a constant of them where the network is traced.
        q, k, v = (x.reshape(x.shape[0], batch * self.num_heads, self.head_dim).transpose(0, 1) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (torch.cat([x, x.new_zeros(x.shape[0], 1, self.head_dim)], 1) for x in (k, v))
            mask, padding = _one_more(mask), _one_more(padding)
        positions = k.shape[1]
        if padding is not None:
            padding = padding.view(batch, 1, 1, positions).expand(-1, self.num_heads, -1, -1)
            padding = padding.reshape(batch * self.num_heads, 1, positions)
            mask = padding if mask is None else mask + padding

        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            q = q * math.sqrt(1.0 / self.head_dim)
            kt = k.transpose(-2, -1)
            weights = (torch.bmm(q, kt) if mask is None else torch.baddbmm(mask, q, kt)).softmax(-1)
            if dropout > 0:
                weights = functional.dropout(weights, dropout)
            y = torch.bmm(weights, v)
        else:
            if mask is not None:
                mask = mask.unsqueeze(0) if mask.shape[0] == 1 else mask.view(batch, self.num_heads, -1, positions)
            q, k, v = (x.view(batch, self.num_heads, -1, self.head_dim) for x in (q, k, v))
            y = functional.scaled_dot_product_attention(q, k, v, mask, dropout, hint).flatten(0, 1)
        y = self._layer("out_proj")(y.transpose(0, 1).reshape(length * batch, self.embed_dim))
        y = y.view(length, batch, -1)
        if weights is not None:
            weights = weights.view(batch, self.num_heads, length, positions)
            weights = weights.mean(1) if average_attn_weights else weights
        if not batched:
            return y.squeeze(1), None if weights is None else weights.squeeze(0)
        return (y.transpose(0, 1) if self.batch_first else y), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        names, parts = self.projections, [query, key, value]
        if len(names) == 3:
            return tuple(self._layer(name)(x) for name, x in zip(names, parts, strict=True))
        if len(names) == 2:
            k, v = _each_once(self._layer(names[1]), key, value)
            return self._layer(names[0])(query), k.chunk(2, -1)[0], v.chunk(2, -1)[1]
        projected = _each_once(self._layer(names[0]), query, key, value)
        return tuple(y.chunk(3, -1)[i] for i, y in enumerate(projected))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        """Also reads a state dict of torch's module."""
        separate = self.projections == _OWN_DIMENSIONS
        for kind in ("weight", "bias"):
            if separate and kind == "weight":
                for name in self.projections:
                    if f"{prefix}{name}_weight" in state_dict:
                        state_dict[f"{prefix}{name}.weight"] = state_dict.pop(f"{prefix}{name}_weight")
            elif f"{prefix}in_proj_{kind}" in state_dict:
                parts = _parts(state_dict.pop(f"{prefix}in_proj_{kind}"), len(self.projections))
                for name, part in zip(self.projections, parts, strict=True):
                    state_dict[f"{prefix}{name}.{kind}"] = part
        super()._load_from_state_dict(state_dict, prefix, *args)

    def to_plain(self, state: State, prefix: str) -> None:
        """Gives the projections' weights in a state dict the names and the form that torch's module has."""
        for kind in ("weight", "bias"):
            names = [f"{prefix}{name}.{kind}" for name in self.projections]
            if any(name not in state for name in names):
                continue
            parts = [state.pop(name) for name in names]
            if kind == "weight" and self.projections == _OWN_DIMENSIONS:
                state.update({f"{prefix}{n}_weight": part for n, part in zip(_OWN_DIMENSIONS, parts, strict=True)})
            else:
                state[f"{prefix}in_proj_{kind}"] = _joined(parts)


class TransposedLinear(nn.Linear):
    """A linear layer that was a ``Conv1D`` of transformers: there its weights had the shape (inputs, outputs)."""

    def to_plain(self, state: State, prefix: str) -> None:
        """Gives the weights in a state dict the form that they had."""
        state[f"{prefix}weight"] = state[f"{prefix}weight"].t().contiguous()


def prepare(network: nn.Module, rows: Mapping[str, Mapping[str, int] | None], plain: Collection[str]) -> dict[str, str]:
    """Gives attention and transposed linear layers of a network a form whose layers can be searched, in place.

    Args:
        rows: layers of the table and their shapes, None where it has none.
        plain: names of layers that are left out of the search; a module of which all are left out stays as it is.

    Returns:
        row of an attention's projection -> the module that computes it, which may also compute further rows.

    Raises:
        InputError: a module that has no such form.

    Example:
        >>> network = nn.Sequential(nn.MultiheadAttention(8, 2))
        >>> prepare(network, {"0.in_proj": {"C": 8, "M": 24}, "0.out_proj": {"C": 8, "M": 8}}, [])
        {'0.in_proj': '0.in_proj'}
        >>> [name for name, _ in network[0].named_children()]
        ['in_proj', 'out_proj']
    """
    further: dict[str, str] = {}
    shared = _shared(network)
    for name, module in list(network.named_modules()):
        place = f"{name}." if name else ""
        if is_conv1d(module) and name in rows and name not in plain:
            if id(module.weight) in shared:
                raise _refused(name, "is a Conv1D of transformers that shares its weights")
            _to_linear(cast(Any, module))
        elif isinstance(module, _OF_TORCH):
            own = [row for row in rows if _call(row).startswith(place) and "." not in _call(row)[len(place) :]]
            if all(_call(row) in plain for row in own):
                continue
            if (problem := attention_refusal(module)) is not None:
                raise _refused(f"{place}out_proj", problem)
            further.update(_to_searchable(cast(Any, module), place, own, rows, shared))
    return further


def attention_refusal(module: nn.Module) -> str | None:
    """Why a `torch.nn.MultiheadAttention` cannot be prepared; None if it can."""
    given = [n for n in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias")
             if getattr(module, n) is not None]  # fmt: skip
    if not all(n in module._parameters for n in given):
        return (
            "is read by torch.nn.MultiheadAttention without a call, and other weights of it are computed at each call"
        )
    kinds = type(module).__mro__[: type(module).__mro__.index(_OF_TORCH)]
    methods = {m for kind in kinds for m, what in vars(kind).items() if isinstance(what, FunctionType | property)}
    if methods - {"__init__"} or "forward" in vars(module):
        return f"is read without a call by a {type(module).__name__}, which has methods of its own"
    return None


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is the ``Conv1D`` of the package transformers, which need not be installed."""
    kind = type(module)
    return (
        kind.__name__ == "Conv1D"
        and kind.__module__.partition(".")[0] == "transformers"
        and "forward" not in vars(module)
        and hasattr(module, "nf")
        and isinstance(module._parameters.get("weight"), nn.Parameter)
        and isinstance(module._parameters.get("bias"), nn.Parameter)
    )


def _held(layer: Any) -> Any:
    """The linear layer of what is in its place."""
    return layer if isinstance(layer, nn.Linear) else layer.layer


def _refused(name: str, problem: str) -> InputError:
    return InputError(f"layer {name!r}", problem, hint="leave it out with exclude")


def _call(row: str) -> str:
    """The layer of a row: ``name`` of its further call ``name#2`` as well."""
    return row.rpartition("#")[0] or row


def _shared(network: nn.Module) -> set[int]:
    """Ids of the parameters that several modules have."""
    owners: dict[int, set[int]] = {}
    for module in network.modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), set()).add(id(module))
    return {parameter for parameter, modules in owners.items() if len(modules) > 1}


def _to_linear(module: Any) -> None:
    weight = module.weight
    module.in_features, module.out_features = weight.shape
    module.__class__ = TransposedLinear
    module.weight = nn.Parameter(weight.detach().t().contiguous(), weight.requires_grad)


def _to_searchable(
    module: Any, place: str, own: list[str], rows: Mapping[str, Mapping[str, int] | None], shared: set[int]
) -> dict[str, str]:
    width, bias = module.embed_dim, module.in_proj_bias
    further: dict[str, str] = {}
    if module._qkv_same_embed_dim:
        names, further = _form(place, [row for row in own if _call(row) == f"{place}in_proj"], rows, width)
        weights = [module.in_proj_weight] if len(names) == 1 else _parameters(module.in_proj_weight, len(names))
    else:
        names = _OWN_DIMENSIONS
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    copied = [p for p in (module.in_proj_weight, bias) if p is not None] if len(names) > 1 else []
    if any(id(p) in shared for p in copied):
        raise _refused(f"{place}in_proj", "is a cross-attention of torch that shares its weights")
    biases = [bias] if len(names) == 1 else _parameters(bias, len(names))
    for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
        module._parameters.pop(name, None)
    output = module._modules.pop("out_proj")
    module.__class__ = SearchableAttention
    module.projections = names
    for name, weight, own_bias in zip(names, weights, biases, strict=True):
        module.add_module(name, _linear(weight, own_bias).train(module.training))
    module.add_module("out_proj", output)  # in the order of execution
    return further


def _form(
    place: str, calls: list[str], rows: Mapping[str, Mapping[str, int] | None], width: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The projections that have these rows, and the rows that are further calls of them."""
    # Learned queries are computed from parameters: keys times them are a row of its own, which is not searched.
    calls = [row for row in calls if _is_projection(rows[row], width)]
    sizes = [(rows[row] or {}).get("M", 3 * width) // width for row in calls]
    for form in ((3,), (1, 2), (1, 1, 1)):
        if sizes == list(form) * (len(sizes) // len(form)):
            names = ("in_proj", "in_proj#2", "in_proj#3")[: len(form)]
            return names, {row: place + names[i % len(form)] for i, row in enumerate(calls)}
    raise _refused(f"{place}in_proj", "is called both as a self-attention and as a cross-attention")


def _is_projection(shape: Mapping[str, int] | None, width: int) -> bool:
    of_row = shape or {}
    return of_row.get("G", 1) == 1 and of_row.get("C", width) == width and of_row.get("M", width) % width == 0


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    """A layer with these parameters, the objects themselves: what was shared is still shared."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight, layer.bias = weight, cast(nn.Parameter, bias)
    return layer


def _parts(packed: Tensor, count: int) -> Iterable[Tensor]:
    """The weights or biases of each of so many projections."""
    width = len(packed) // 3
    return torch.split(packed, {1: [3 * width], 2: [width, 2 * width], 3: [width] * 3}[count])


def _parameters(packed: nn.Parameter | None, count: int) -> list[nn.Parameter] | list[None]:
    if packed is None:
        return [None] * count
    return [nn.Parameter(part.clone(), packed.requires_grad) for part in _parts(packed.detach(), count)]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _each_once(function: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """A function of each of some tensors; of those that are one tensor it is computed once, and is one tensor."""
    known: dict[int, Tensor] = {}
    for x in tensors:
        if id(x) not in known:
            known[id(x)] = function(x)
    return tuple(known[id(x)] for x in tensors)


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as what is added to the scores: -inf where a mask of truth values is true."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise TypeError("masks of an attention are of truth values or floating-point numbers")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)


def _one_more(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else functional.pad(mask, (0, 1))
