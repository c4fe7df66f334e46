"""linear: a fully connected layer with its epilogue; PackedLinear runs it often.

The kernel is that of conv_transpose with one tap: rows are its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import kernel_refusal
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.layout import array_of, floats_of, threads
from fastnets.ops.library import register, with_activation
from fastnets.ops.registry import Implementation, Op

_NONE = Activation()


@dataclass(frozen=True)
class LinearCall:
    """The checked arguments. packed: the weight, ready for the kernel."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    activation: Activation = _NONE
    packed: _C.PackedProduct | None = None


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(x @ weight.T + bias); differentiable.

    Args:
        x: (.., inputs), floating point.
        weight: (outputs, inputs). It is packed at every call: use PackedLinear to run it more than once.
        bias: (outputs,).
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    kind = activation_of("linear", activation, parameters)
    _check(x, weight, bias)
    result: Tensor = _operator(x, weight, bias, kind.name, list(kind.parameters), implementation)
    return result


class PackedLinear:
    """A linear layer whose weight, float32 or bfloat16 on the CPU, is packed once; without gradients. See linear."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "none",
        parameters: Sequence[float] = (),
    ) -> None:
        reason = kernel_refusal(weight)
        if reason is not None:
            raise InputError(f"linear: weight and bias cannot be packed: {reason}")
        self._weight, self._bias = weight, bias
        self._activation = activation_of("linear", activation, parameters)
        self._packed = _pack(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """The result on `x` (.., inputs) of the dtype of the weight."""
        _check(x, self._weight, self._bias)
        result: Tensor = OP(LinearCall(x, self._weight, self._bias, self._activation, self._packed), "native")
        return result


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if not x.is_floating_point():
        raise InputError(f"linear: x has dtype {x.dtype}: pass a floating-point tensor")
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1] or min(weight.shape) < 1:
        raise InputError(
            f"linear: x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: pass (.., inputs) and "
            "(outputs, inputs), not empty"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(f"linear: bias has shape {tuple(bias.shape)}: pass ({len(weight)},)")


def _refusal(call: LinearCall) -> str | None:
    return kernel_refusal(call.x, call.weight)


def _pack(weight: Tensor) -> _C.PackedProduct:
    return _C.PackedProduct(array_of(weight.t()[None, :, :, None]))


def _run(call: LinearCall) -> Tensor:
    rows = call.x.detach().reshape(-1, call.x.shape[-1])
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    out = rows.new_empty(len(rows), len(call.weight))
    packed = call.packed or _pack(call.weight)
    packed.run(
        x=array_of(rows.t()[None, :, None, None, :]),
        out=array_of(out.t()[None, :, None, None, :]),
        kernel=[1, 1, 1],
        stride=[1, 1, 1],
        pad=[0, 0, 0],
        dilation=[1, 1, 1],
        scale=None,
        shift=floats_of(call.bias),
        residual=None,
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        stream=False,
        nthreads=threads(),
    )
    return out.view(*call.x.shape[:-1], len(call.weight))


def _reference(call: LinearCall) -> Tensor:
    bias = None if call.bias is None else call.bias.to(call.x.dtype)
    return call.activation(functional.linear(call.x, call.weight, bias))


OP = Op(
    "linear",
    _reference,
    (Implementation("native", _refusal, _run), Implementation("torch", lambda call: None, _reference)),
)


_operator = register(
    OP,
    "Tensor x, Tensor weight, Tensor? bias, str activation, float[] parameters",
    with_activation(LinearCall),
    result=lambda call: call.x.new_empty(*call.x.shape[:-1], len(call.weight)),
)
