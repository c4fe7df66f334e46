"""resize_argmax: the best channel of logits at another resolution, without the logits at that resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.arguments import per_axis, spatial_axes
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.registry import Implementation, Op
from fastnets.ops.resize import resize


@dataclass(frozen=True)
class ResizeArgmaxCall:
    """The checked arguments."""

    x: Tensor
    size: tuple[int, ...]
    align_corners: bool = False


def resize_argmax(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    align_corners: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """resize(x, size, mode="linear").argmax(dim=1) as (N, *size) uint8; of equal channels the first.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point without NaN, at most 256 channels.
        size: of the result: one number, or one an axis; None: that of `x`.
        align_corners: the first and last positions of both grids coincide.
        implementation: "triton" (GPU) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    axes = spatial_axes("resize_argmax", x)
    if not 1 <= x.shape[1] <= 256 or min(x.shape[2:]) < 1:
        raise InputError(f"resize_argmax: x has shape {tuple(x.shape)}: pass 1 to 256 channels, and pixels")
    sizes = tuple(x.shape[2:]) if size is None else per_axis("resize_argmax", "size", size, axes, 1)
    result: Tensor = OP(ResizeArgmaxCall(x.detach(), sizes, align_corners), implementation)
    return result


def _reference(call: ResizeArgmaxCall) -> Tensor:
    large = resize(call.x, call.size, mode="linear", align_corners=call.align_corners)
    return large.argmax(dim=1).to(torch.uint8)


OP = Op(
    "resize_argmax",
    _reference,
    (triton_implementation("resize_argmax"), Implementation("torch", lambda call: None, _reference)),
)
