"""Layers that compute something else than their class: refused where they cannot be replaced; their hooks are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from dse.core.errors import InputError
from search.layers.equivalents import attention_refusal
from search.layers.function_mode import FunctionMode

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
_KINDS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


def refuse_foreign(network: nn.Module, layers: Mapping[str, nn.Module], plain: Collection[str]) -> None:
    """Raises an InputError for a layer whose output would be another one after it is replaced.

    These are subclasses with a forward pass of their own (standardised weights, own padding, low-rank updates), layers
    whose weight is computed at each call (`torch.nn.utils.parametrize`, spectral and weight norms, pruning), and the
    output layer of a form of `torch.nn.MultiheadAttention` that `search.layers.equivalents` does not know.

    Args:
        layers: those that would be replaced, by name.
        plain: names of those that are left out of the search.

    Example:
        >>> class Centred(nn.Linear):
        ...     def forward(self, x):
        ...         return super().forward(x - x.mean())
        >>> network = nn.Sequential(Centred(4, 2))
        >>> try:
        ...     refuse_foreign(network, {"0": network[0]}, [])
        ... except InputError as e:
        ...     print(e)
        layer '0': is a Centred with a forward pass of its own; leave it out with exclude
    """
    attention = {
        f"{n}.out_proj".lstrip("."): attention_refusal(m)
        for n, m in network.named_modules()
        if isinstance(m, nn.MultiheadAttention)
    }
    for name, layer in layers.items():
        if name in plain:
            continue
        reason = attention.get(name) or _reason(layer)
        if reason is not None:
            raise InputError(f"layer {name!r}", reason, hint="leave it out with exclude")


def _reason(layer: nn.Module) -> str | None:
    own = next(kind for kind in _KINDS if isinstance(layer, kind))
    name = type(layer).__name__
    methods = [m for m in ("forward", "_conv_forward") if hasattr(own, m)]
    if any(m in vars(layer) or getattr(type(layer), m) is not getattr(own, m) for m in methods):
        return f"is a {name} with a forward pass of its own"
    if not isinstance(layer.weight, nn.Parameter):
        return f"is a {name} whose weight is computed at each call (a parametrisation, a norm, pruning)"
    return None


def move_hooks(source: nn.Module, target: nn.Module) -> None:
    """Hooks of a layer are called where the layer was: on what has taken its place."""
    for attribute in _HOOKS:
        hooks = getattr(source, attribute)
        getattr(target, attribute).update(hooks)
        hooks.clear()
    if source._is_full_backward_hook is not None:
        target._is_full_backward_hook = source._is_full_backward_hook


class RefusesReads(FunctionMode):
    """While it is active, a function of torch that multiplies by the weights of one of these layers is an InputError.

    Such a layer would be counted and trained, but not quantised. Where a module calls `torch.nn.functional.linear` with
    them, `search.layers.products` has put the layer in its place.

    Args:
        weights: the weights of the searched layers, by name.

    Example:
        >>> layer = nn.Conv2d(1, 2, 3)
        >>> try:
        ...     with RefusesReads({"stem": layer.weight}):
        ...         nn.functional.conv2d(layer.bias.new_ones(1, 1, 8, 8), layer.weight, padding=1)
        ... except InputError as e:
        ...     print(e)
        layer 'stem': its weights are read by conv2d without a call of the layer; leave it out with exclude
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = {id(weight): (name, weight) for name, weight in weights.items()}

    def called(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if name in _MULTIPLIES:
            for value in (*args, *kwargs.values()):
                if id(value) in self.weights:
                    problem = f"its weights are read by {name} without a call of the layer"
                    raise InputError(f"layer {self.weights[id(value)][0]!r}", problem, hint="leave it out with exclude")
        return func(*args, **kwargs)


_MULTIPLIES = (
    "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "matmul", "__matmul__", "__rmatmul__", "mm",
    "addmm", "bmm", "baddbmm", "einsum", "multi_head_attention_forward",
)  # fmt: skip


def without_fast_path(network: nn.Module) -> None:
    """Makes torch's transformer layers call their linear layers in evaluation too, not read their weights.

    Nested tensors, which an encoder makes of padded sequences there, are a part of that way. Without them the outputs
    at padding are as in training, not zero.
    """
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
