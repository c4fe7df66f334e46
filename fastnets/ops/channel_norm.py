"""channel_norm: layer norm, local response norm, softmax and vectors of length 1 of the channels of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, kernel_refusal, out_refusal, result_like, spatial_axes
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.layout import array5, channels_last, floats_of, threads
from fastnets.ops.library import register, with_activation
from fastnets.ops.registry import Implementation, Op

# In the order of `enum class ChannelNorm` in csrc/cpu/channel_norm.h.
KINDS = ("layer", "local_response", "softmax", "unit")
_NONE = Activation()


@dataclass(frozen=True)
class ChannelNormCall:
    """The checked arguments. numbers: (eps,) of layer norm and unit; (size, alpha, beta, k) of local response norm."""

    x: Tensor
    kind: str
    numbers: tuple[float, ...] = ()
    weight: Tensor | None = None
    bias: Tensor | None = None
    activation: Activation = _NONE
    out: Tensor | None = None


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation((x - mean) / sqrt(variance + eps) * weight + bias) over the channels of each pixel; differentiable.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        weight, bias: (C,).
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    spatial_axes("channel_norm", x)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != (x.shape[1],):
            raise InputError(f"channel_norm: {name} has shape {tuple(vector.shape)}: pass ({x.shape[1]},)")
    kind = activation_of("channel_norm", activation, parameters)
    result: Tensor = _operator(x, "layer", [eps], weight, bias, kind.name, list(kind.parameters), implementation)
    return result


def local_response_norm(
    x: Tensor,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    implementation: str | None = None,
) -> Tensor:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels) ^ beta; differentiable.

    That of AlexNet (Krizhevsky et al., 2012), with torch's alpha: the paper's is alpha / size. See layer_norm.
    """
    spatial_axes("channel_norm", x)
    if size < 1:
        raise InputError(f"channel_norm: size is {size}: pass 1 or more")
    numbers = [float(size), alpha, beta, k]
    result: Tensor = _operator(x, "local_response", numbers, None, None, "none", [], implementation)
    return result


def softmax(x: Tensor, *, implementation: str | None = None) -> Tensor:
    """exp(x) / sum of exp(x) over the channels of each pixel; differentiable. See layer_norm."""
    spatial_axes("channel_norm", x)
    result: Tensor = _operator(x, "softmax", [], None, None, "none", [], implementation)
    return result


def normalize(x: Tensor, *, eps: float = 1e-12, implementation: str | None = None) -> Tensor:
    """x / max(|x|, eps) with the 2-norm over the channels of each pixel; differentiable. See layer_norm."""
    spatial_axes("channel_norm", x)
    result: Tensor = _operator(x, "unit", [eps], None, None, "none", [], implementation)
    return result


def _refusal(call: ChannelNormCall) -> str | None:
    return kernel_refusal(call.x, call.out) or out_refusal(call.out)


def _run(call: ChannelNormCall) -> Tensor:
    out = result_like(call.x, call.x.shape, call.out)
    size, alpha, beta, k = call.numbers if call.kind == "local_response" else (1, 0, 0, 0)
    _C.channel_norm(
        x=array5(channels_last(call.x)),
        out=array5(out),
        kind=KINDS.index(call.kind),
        epsilon=call.numbers[0] if call.kind in ("layer", "unit") else 0,
        window=int(size),
        factor=alpha,
        power=beta,
        offset=k,
        scale=floats_of(call.weight),
        shift=floats_of(call.bias),
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        nthreads=threads(),
    )
    return out


def _reference(call: ChannelNormCall) -> Tensor:
    if call.kind == "softmax":
        return call.activation(call.x.softmax(dim=1))
    if call.kind == "unit":
        return call.activation(functional.normalize(call.x, dim=1, eps=call.numbers[0]))
    if call.kind == "layer":
        last = functional.layer_norm(call.x.movedim(1, -1), call.x.shape[1:2], call.weight, call.bias, call.numbers[0])
        return call.activation(last.movedim(-1, 1))
    size, alpha, beta, k = call.numbers
    before, after = int(size) // 2, (int(size) - 1) // 2
    squares = functional.pad(call.x.square().movedim(1, -1), (before, after)).unfold(-1, int(size), 1)
    return call.activation(call.x / (k + alpha * squares.mean(-1).movedim(-1, 1)) ** beta)


OP = Op(
    "channel_norm",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, str kind, float[] numbers, Tensor? weight, Tensor? bias, str activation, float[] parameters",
    with_activation(ChannelNormCall),
    result=lambda call: result_like(call.x, call.x.shape, None),
)
