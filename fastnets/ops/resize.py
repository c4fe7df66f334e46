"""resize: nearest and linear interpolation along every spatial axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, kernel_refusal, out_refusal, per_axis, result_like, spatial_axes
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op

MODES = ("nearest", "nearest-exact", "linear")
_LINEAR = ("linear", "bilinear", "trilinear")  # of 1, 2 and 3 axes, in torch


@dataclass(frozen=True)
class ResizeCall:
    """The checked arguments. `scale` is what torch calls scale_factor: it decides the positions where it is given."""

    x: Tensor
    size: tuple[int, ...]
    scale: tuple[float, ...] | None
    mode: str
    align_corners: bool = False
    out: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return (*self.x.shape[:2], *self.size)


def resize(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """`x` at another resolution; differentiable. The values of torch's interpolate.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        size: of the result: one number, or one an axis.
        scale: instead of `size`: the result has floor(size * scale) positions along an axis.
        mode: "nearest", "nearest-exact" or "linear" (also by torch's names bilinear and trilinear).
        align_corners: `linear` only: the first and last positions of both grids coincide.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    axes = spatial_axes("resize", x)
    kind = "linear" if mode == _LINEAR[axes - 1] else mode
    if kind not in MODES:
        raise InputError(f"resize: mode is {mode!r}: pass one of {', '.join(MODES)}")
    if align_corners and kind != "linear":
        raise InputError(f"resize: align_corners came with mode {mode!r}: pass mode='linear'")
    if (size is None) == (scale is None):
        raise InputError(f"resize: size is {size} and scale {scale}: pass one of them")
    if min(x.shape[2:]) < 1:
        raise InputError(f"resize: x has shape {tuple(x.shape)}: pass at least one pixel")
    scales = None
    if scale is not None:
        scales = (float(scale),) * axes if isinstance(scale, int | float) else tuple(float(s) for s in scale)
        if len(scales) != axes or min(scales) <= 0:
            raise InputError(f"resize: scale is {scale}: pass one number above 0, or {axes}")
        size = tuple(math.floor(old * s) for old, s in zip(x.shape[2:], scales, strict=True))
    assert size is not None
    sizes = per_axis("resize", "size", size, axes, 1)
    result: Tensor = _operator(x, list(sizes), scales and list(scales), kind, align_corners, implementation)
    return result


def _refusal(call: ResizeCall) -> str | None:
    return kernel_refusal(call.x, call.out) or out_refusal(call.out)


def _run(call: ResizeCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    missing, linear = 3 - len(call.size), call.mode == "linear"
    scales = call.scale or (None,) * len(call.size)
    axes: list[tuple[int, int, float | None]] = [(1, 1, None)] * missing
    axes += zip(call.x.shape[2:], call.size, scales, strict=True)
    if linear:
        low, high, weight = zip(*(linear_taps(*axis, call.align_corners) for axis in axes), strict=True)
    else:
        low = high = tuple(_nearest(*axis, call.mode == "nearest-exact") for axis in axes)
    _C.resize(
        x=array5(channels_last(call.x)),
        out=array5(out),
        low=[i.numpy() for i in low],
        high=[i.numpy() for i in high],
        weight=[w.numpy() for w in weight] if linear else None,
        nthreads=threads(),
    )
    return out


def _nearest(size: int, out: int, scale: float | None, exact: bool) -> Tensor:
    """The position in x of each output, rounded as torch does: the step has the precision of float32.

    With a scale that is no integer, torch rounds otherwise on channels-last tensors; this is its contiguous form.
    """
    i = torch.arange(out)
    step = torch.tensor(size / out if scale is None else 1 / scale, dtype=torch.float32)
    if exact:
        source = ((i + 0.5).double() * step.double() - 0.5).float().clamp(min=0)  # rounded once: a fused multiply-add
        return (source + 0.5).floor().long().clamp(max=size - 1)
    return (i * step).floor().long().clamp(max=size - 1)


def linear_taps(size: int, out: int, scale: float | None, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """For each output the two positions in x, and the weight of the second."""
    i = torch.arange(out, dtype=torch.float64)
    if size == out:  # a copy, whatever the scale
        source = i
    elif align_corners:
        source = i * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        source = ((i + 0.5) * (size / out if scale is None else 1 / scale) - 0.5).clamp(min=0)
    low = source.long().clamp(max=size - 1)
    weight = (source - low).clamp(max=1)
    weight[low == size - 1] = 0
    return low, (low + 1).clamp(max=size - 1), weight.float()


def _reference(call: ResizeCall) -> Tensor:
    linear = call.mode == "linear"
    return functional.interpolate(
        call.x,
        size=list(call.size) if call.scale is None else None,
        scale_factor=None if call.scale is None else list(call.scale),
        mode=_LINEAR[call.x.dim() - 3] if linear else call.mode,
        align_corners=call.align_corners if linear else None,
    )


OP = Op(
    "resize",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, SymInt[] size, float[]? scale, str mode, bool align_corners",
    ResizeCall,
    result=lambda call: result_like(call.x, call.shape, None),
)
