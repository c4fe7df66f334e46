"""depthwise: the convolution of each channel by kernels of its own. It is `conv` with one channel a group."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.conv import OP as CONV
from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import Padding
from fastnets.ops.registry import Op

__all__ = ["OP", "depthwise"]


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(depthwise(x, weight) + bias + residual), channels-last; differentiable.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        weight: (C * multiplier, 1, *kernel): output channel o is made of input channel o // multiplier. It is
            packed at every call: use PackedConv with groups=C to run it more than once.
        bias: (C * multiplier,).
        stride, dilation: one number, or one a spatial axis.
        padding: zeros on both sides of each axis: one number, one an axis, or pairs (before, after).
        residual: added before the activation; the shape of the result.
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "depthwise" (CPU, float32 or bfloat16) or "torch"; None takes the fastest.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    if weight.dim() != x.dim() or weight.shape[1] != 1 or weight.shape[0] % max(1, x.shape[1]):
        raise InputError(
            f"depthwise: weight has shape {tuple(weight.shape)} and x {tuple(x.shape)}: pass (C * multiplier, 1, "
            "*kernel) for x (N, C, *spatial)"
        )
    return conv(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=x.shape[1],
        residual=residual,
        activation=activation,
        parameters=parameters,
        implementation=implementation,
    )


# What the harness runs over the cases of depthwise convolutions.
OP = Op(
    "depthwise",
    CONV.reference,
    tuple(i for i in CONV.implementations if i.name in ("depthwise", "triton_depthwise", "torch")),
)
