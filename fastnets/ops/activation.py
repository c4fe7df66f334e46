"""activation: one of the epilogues' activations as an op of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.ops import epilogue
from fastnets.ops.arguments import kernel_refusal, out_refusal, result_like
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.layout import array5, channels_are_dense, channels_last, floats_of, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class ActivationCall:
    """The checked arguments: activation(x * scale + shift + residual), with scale and shift a channel."""

    x: Tensor
    activation: epilogue.Activation
    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    out: Tensor | None = None


def activation(x: Tensor, name: str, *, parameters: Sequence[float] = (), implementation: str | None = None) -> Tensor:
    """`name` (one of fastnets.ops.epilogue.ACTIVATIONS) of every element of `x`; differentiable.

    Args:
        x: any shape, floating point.
        parameters: `leaky` the slope, `elu` alpha, `clamp` the lowest and highest value; () takes the defaults.
        implementation: "native" (CPU, float32 or bfloat16, dense), "triton" (GPU, (N, C, *spatial)) or "torch"; None
            takes the first that can run.

    Raises:
        InputError: no such activation, or `implementation` cannot run.
    """
    kind = epilogue.activation_of("activation", name, parameters)
    result: Tensor = _operator(x, kind.name, list(kind.parameters), implementation)
    return result


def _refusal(call: ActivationCall) -> str | None:
    x = call.x
    reason = _dtype_refusal(call) or out_refusal(call.out)
    if reason is not None or _by_pixels(call):
        return reason
    return None if _is_dense(x) else f"x has strides {x.stride()}; it needs dense memory"


def _dtype_refusal(call: ActivationCall) -> str | None:
    """`out` may have the other dtype: the kernel converts too."""
    if call.out is None:
        return kernel_refusal(call.x, call.residual)
    return kernel_refusal(call.x) or kernel_refusal(call.out, call.residual)


def _by_pixels(call: ActivationCall) -> bool:
    """Whether the kernel sees (N, C, *spatial), with a channel's terms and any distance of pixels; else a flat list."""
    more = any(t is not None for t in (call.scale, call.shift, call.residual, call.out))
    return 3 <= call.x.dim() <= 5 and (more or channels_are_dense(call.x))


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense.default(x)


def _run(call: ActivationCall) -> Tensor:
    x, kind = call.x, call.activation
    if _by_pixels(call):
        out = result_like(x, x.shape, call.out)
        arrays = array5(channels_last(x)), array5(out)
    else:
        out = torch.empty_like(x)  # keeps the strides of dense tensors
        flat = (1, 1, x.numel()), (x.numel(), x.numel(), 1)
        arrays = array5(x.detach().as_strided(*flat)), array5(out.as_strided(*flat))
    _C.pointwise(
        x=arrays[0],
        out=arrays[1],
        scale=floats_of(call.scale),
        shift=floats_of(call.shift),
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        activation=kind.number,
        alpha=kind.alpha,
        beta=kind.beta,
        nthreads=threads(),
    )
    return out


def _reference(call: ActivationCall) -> Tensor:
    y, channels = call.x, (-1, *(1,) * (call.x.dim() - 2))
    y = y if call.scale is None else y * call.scale.to(y.dtype).view(channels)
    y = y if call.shift is None else y + call.shift.to(y.dtype).view(channels)
    return call.activation(y if call.residual is None else y + call.residual)


def _run_torch(call: ActivationCall) -> Tensor:
    y = _reference(call)
    if call.out is not None:
        return call.out.copy_(y)
    return y.clone() if y is call.x else y


OP = Op(
    "activation",
    _reference,
    (
        Implementation("native", _refusal, _run),
        triton_implementation("activation"),
        Implementation("torch", lambda call: None, _run_torch),
    ),
)


_operator = register(
    OP,
    "Tensor x, str name, float[] parameters",
    lambda x, name, parameters: ActivationCall(x, epilogue.Activation(name, parameters)),
    result=lambda call: torch.empty_like(call.x),
)
