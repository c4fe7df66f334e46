"""combine: sum, difference, product, quotient and PReLU of a tensor with another that may repeat along any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, kernel_refusal, out_refusal, result_like, spatial_axes
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register, with_activation
from fastnets.ops.registry import Implementation, Op

# In the order of `enum class Combine` in csrc/cpu/combine.h.
KINDS = ("add", "multiply", "prelu", "subtract", "divide")
_NONE = Activation()


@dataclass(frozen=True)
class CombineCall:
    """The checked arguments: other has, along each axis, the size of x or 1."""

    x: Tensor
    other: Tensor
    kind: str
    activation: Activation = _NONE
    out: Tensor | None = None


def add(
    x: Tensor,
    other: Tensor,
    *,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(x + other); differentiable.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        other: of the same number of axes, each of the size of `x` or 1: (N, C, 1, 1) scales the channels.
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can
            run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    return _combine(x, other, "add", activation, parameters, implementation)


def multiply(
    x: Tensor,
    other: Tensor,
    *,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(x * other), as in a squeeze-and-excitation block; see add."""
    return _combine(x, other, "multiply", activation, parameters, implementation)


def prelu(x: Tensor, weight: Tensor, *, implementation: str | None = None) -> Tensor:
    """x where it is not negative, else weight * x; weight is (C,) or (1,); see add (https://arxiv.org/abs/1502.01852)."""
    if weight.dim() != 1:
        raise InputError(f"combine: weight of prelu has shape {tuple(weight.shape)}: pass ({x.shape[1]},) or (1,)")
    return _combine(x, weight.view(1, -1, *(1,) * (x.dim() - 2)), "prelu", "none", (), implementation)


def _combine(
    x: Tensor, other: Tensor, kind: str, activation: str, parameters: Sequence[float], implementation: str | None
) -> Tensor:
    spatial_axes("combine", x)
    fits = other.dim() == x.dim() and all(o in (1, s) for o, s in zip(other.shape, x.shape, strict=True))
    if not fits or other.dtype != x.dtype:
        raise InputError(
            f"combine: other is {other.dtype} of shape {tuple(other.shape)}: pass {x.dtype} with, along each axis, the "
            f"size of x, {tuple(x.shape)}, or 1"
        )
    after = activation_of("combine", activation, parameters)
    result: Tensor = _operator(x, other, kind, after.name, list(after.parameters), implementation)
    return result


def _refusal(call: CombineCall) -> str | None:
    return kernel_refusal(call.x, call.other, call.out) or out_refusal(call.out)


def _run(call: CombineCall) -> Tensor:
    out = result_like(call.x, call.x.shape, call.out)
    _C.combine(
        x=array5(channels_last(call.x)),
        other=array5(channels_last(call.other)),
        out=array5(out),
        kind=KINDS.index(call.kind),
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        nthreads=threads(),
    )
    return out


def _reference(call: CombineCall) -> Tensor:
    x, other = call.x, call.other
    if call.kind == "add":
        return call.activation(x + other)
    if call.kind == "multiply":
        return call.activation(x * other)
    if call.kind == "subtract":
        return call.activation(x - other)
    if call.kind == "divide":
        return call.activation(x / other)
    return call.activation(torch.where(x < 0, x * other, x))


OP = Op(
    "combine",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, Tensor other, str kind, str activation, float[] parameters",
    with_activation(CombineCall),
    result=lambda call: result_like(call.x, call.x.shape, None),
)
