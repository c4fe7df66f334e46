"""norm: instance, group and batch normalization with their epilogue, and the moments that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import at_least_float32, delivered, kernel_refusal, out_refusal, result_like, spatial_axes
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.gpu import triton_implementation, triton_kernels
from fastnets.ops.gradient import through
from fastnets.ops.layout import array5, channels_last, floats_of, threads
from fastnets.ops.library import register, with_activation
from fastnets.ops.registry import Implementation, Op

_NONE = Activation()


@dataclass(frozen=True)
class NormCall:
    """The checked arguments. moments: (N or 1, C, 2) float64, mean and variance; None: those of x."""

    x: Tensor
    groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    moments: Tensor | None = None
    residual: Tensor | None = None
    eps: float = 1e-5
    activation: Activation = _NONE
    out: Tensor | None = None


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    moments: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation((x - mean) / sqrt(variance + eps) * weight + bias + residual); differentiable.

    Mean and variance are those of each group of channels of each image (https://arxiv.org/abs/1803.08494).

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        groups: a divisor of C.
        weight, bias: (C,).
        moments: (N, C, 2) or (1, C, 2) float64: mean and variance of each channel, which a producer of `x` may
            have at hand; None computes them.
        residual: added before the activation; the shape of `x`.
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "native" (CPU, float32 or bfloat16), "triton" (GPU) or "torch"; None takes the first that can
            run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    kind = activation_of("norm", activation, parameters)
    call = NormCall(x, groups, weight, bias, moments, residual, eps, kind)
    _check(call)
    result: Tensor = _operator(
        x, groups, weight, bias, moments, residual, eps, kind.name, list(kind.parameters), implementation
    )
    return result


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    moments: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """group_norm with groups of one channel (https://arxiv.org/abs/1607.08022)."""
    return group_norm(
        x,
        x.shape[1],
        weight,
        bias,
        eps=eps,
        moments=moments,
        residual=residual,
        activation=activation,
        parameters=parameters,
        implementation=implementation,
    )


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """Normalization by the running `mean` and `variance` (C,) of an evaluated batch norm; see group_norm."""
    if mean.shape != x.shape[1:2] or variance.shape != x.shape[1:2]:
        raise InputError(
            f"norm: mean has shape {tuple(mean.shape)} and variance {tuple(variance.shape)}: pass ({x.shape[1]},)"
        )
    return instance_norm(
        x,
        weight,
        bias,
        eps=eps,
        moments=torch.stack([mean, variance], dim=-1).double()[None],
        residual=residual,
        activation=activation,
        parameters=parameters,
        implementation=implementation,
    )


def moments(x: Tensor) -> Tensor:
    """Mean and variance of each channel of each image: (N, C, 2) float64, without gradients."""
    spatial_axes("norm", x)
    if kernel_refusal(x) is not None:
        flat = x.detach().double().flatten(2)
        return torch.stack([flat.mean(-1), flat.var(-1, correction=0)], dim=-1)
    out = torch.empty(*x.shape[:2], 2, dtype=torch.float64)
    _C.moments(x=array5(channels_last(x)), out=out.numpy(), nthreads=threads())
    return out


def _check(call: NormCall) -> None:
    x, channels = call.x, call.x.shape[1] if call.x.dim() > 1 else 0
    spatial_axes("norm", x)
    if call.groups < 1 or channels % call.groups:
        raise InputError(f"norm: groups is {call.groups}: pass a divisor of the channels, {channels}")
    for name, vector in (("weight", call.weight), ("bias", call.bias)):
        if vector is not None and vector.shape != (channels,):
            raise InputError(f"norm: {name} has shape {tuple(vector.shape)}: pass ({channels},)")
    if call.moments is not None and call.moments.shape not in ((len(x), channels, 2), (1, channels, 2)):
        raise InputError(f"norm: moments has shape {tuple(call.moments.shape)}: pass ({len(x)} or 1, {channels}, 2)")
    if call.residual is not None and call.residual.shape != x.shape:
        raise InputError(f"norm: residual has shape {tuple(call.residual.shape)}: pass that of x, {tuple(x.shape)}")


def _refusal(call: NormCall) -> str | None:
    return kernel_refusal(call.x, call.residual, call.out) or out_refusal(call.out)


def _run(call: NormCall) -> Tensor:
    out = result_like(call.x, call.x.shape, call.out)
    moments = None if call.moments is None else call.moments.detach().double().contiguous().numpy()
    _C.norm(
        x=array5(channels_last(call.x)),
        out=array5(out),
        groups=call.groups,
        epsilon=call.eps,
        moments=moments,
        scale=floats_of(call.weight),
        shift=floats_of(call.bias),
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        nthreads=threads(),
    )
    return out


def _reference(call: NormCall) -> Tensor:
    x, groups = at_least_float32(call.x), call.groups
    size = x.shape[1] // groups
    ones = (1,) * (x.dim() - 2)
    if call.moments is None:
        values = x.reshape(len(x), groups, size * x.shape[2:].numel())
        mean = values.mean(-1)
        variance = (values - mean[..., None]).square().mean(-1)
    else:
        own = call.moments.to(x.dtype).reshape(-1, groups, size, 2)
        mean = own[..., 0].mean(-1)
        variance = (own[..., 1] + (own[..., 0] - mean[..., None]).square()).mean(-1)
    mean, variance = (v.repeat_interleave(size, dim=1)[(..., *(None,) * len(ones))] for v in (mean, variance))
    y = (x - mean) * (variance + call.eps).rsqrt()
    y = y if call.weight is None else y * call.weight.view(-1, *ones)
    y = y if call.bias is None else y + call.bias.view(-1, *ones)
    return call.activation(y if call.residual is None else y + call.residual).to(call.x.dtype)


OP = Op(
    "norm",
    _reference,
    (
        Implementation("native", _refusal, _run),
        triton_implementation("norm"),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_call = with_activation(NormCall)
_setup_context, _backward_by_torch = through(
    lambda *flat: _reference(_call(*(tuple(a) if isinstance(a, list) else a for a in flat[:-1])))
)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """By Triton where it computed the result, unless gradients are recorded or traced; else by torch."""
    flat = list(ctx.others)
    for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
        flat[place] = tensor
    call = _call(*flat[:-1])
    kernels = type(grad) is Tensor and not torch.is_grad_enabled() and OP.choose(call, flat[-1]).name == "triton"
    if not kernels:
        return _backward_by_torch(ctx, grad)
    x, weight, bias, residual = triton_kernels("norm_gradient").gradients(call, grad)
    found = [x, None, weight, bias, None, residual, *(None,) * (len(flat) - 6)]
    return tuple(g if ctx.needs_input_grad[i] else None for i, g in enumerate(found))


_operator = register(
    OP,
    "Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? moments, Tensor? residual, float eps, "
    "str activation, float[] parameters",
    _call,
    result=lambda call: result_like(call.x, call.x.shape, None),
    gradients=(_setup_context, _backward),
)
