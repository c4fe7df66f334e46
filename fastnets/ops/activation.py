"""activation: one of the epilogues' activations as an op of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.ops import epilogue
from fastnets.ops.layout import threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class ActivationCall:
    """The checked arguments."""

    x: Tensor
    activation: epilogue.Activation


def activation(x: Tensor, name: str, *, parameters: Sequence[float] = (), implementation: str | None = None) -> Tensor:
    """`name` (one of fastnets.ops.epilogue.ACTIVATIONS) of every element of `x`; differentiable.

    Args:
        x: any shape, floating point.
        parameters: `leaky` the slope, `elu` alpha, `clamp` the lowest and highest value; () takes the defaults.
        implementation: "native" (CPU, float32, dense) or "torch"; None takes the first that can run.

    Raises:
        InputError: no such activation, or `implementation` cannot run.
    """
    kind = epilogue.activation_of("activation", name, parameters)
    result: Tensor = _operator(x, kind.name, list(kind.parameters), implementation)
    return result


def _refusal(call: ActivationCall) -> str | None:
    x = call.x
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return f"x is {x.dtype} on {x.device}; it needs torch.float32 on cpu"
    return None if _is_dense(x) else f"x has strides {x.stride()}; it needs dense memory"


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense.default(x)


def _run(call: ActivationCall) -> Tensor:
    x, kind = call.x, call.activation
    out = torch.empty_like(x)  # keeps the strides of dense tensors
    flat = (x.numel(),), (1,)
    _C.pointwise(
        x=x.detach().as_strided(*flat).numpy(),
        out=out.as_strided(*flat).numpy(),
        activation=kind.number,
        alpha=kind.alpha,
        beta=kind.beta,
        nthreads=threads(),
    )
    return out


def _reference(call: ActivationCall) -> Tensor:
    return call.activation(call.x)


def _run_torch(call: ActivationCall) -> Tensor:
    return _reference(call) if call.activation.name != "none" else call.x.clone()


OP = Op(
    "activation",
    _reference,
    (Implementation("native", _refusal, _run), Implementation("torch", lambda call: None, _run_torch)),
)


_operator = register(
    OP,
    "Tensor x, str name, float[] parameters",
    lambda x, name, parameters: ActivationCall(x, epilogue.Activation(name, parameters)),
    result=lambda call: torch.empty_like(call.x),
)
