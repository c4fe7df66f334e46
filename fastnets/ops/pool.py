"""pool: maximum and average over windows or over whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import (
    at_least_float32,
    delivered,
    kernel_refusal,
    out_refusal,
    per_axis,
    result_like,
    spatial_axes,
    three,
)
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op

Sizes = int | Sequence[int]


@dataclass(frozen=True)
class PoolCall:
    """The checked arguments; one number a spatial axis. divisor 0: what the window counts.

    adaptive: the size of the result, among whose elements the windows share the image; no other numbers count then.
    """

    x: Tensor
    average: bool
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int = 0
    adaptive: tuple[int, ...] = ()
    out: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        if self.adaptive:
            return (*self.x.shape[:2], *self.adaptive)
        geometry = zip(self.x.shape[2:], self.window, self.stride, self.padding, self.dilation, strict=True)
        return (*self.x.shape[:2], *(_size(*g, self.ceil_mode) for g in geometry))


def max_pool(
    x: Tensor,
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """The largest value of each window, NaN where it holds one; differentiable. Arguments as torch's max_pool.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        window, stride, padding, dilation: one number, or one an axis; the stride is the window by default.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    call = _call(x, False, window, stride, padding, dilation, ceil_mode, True, 0)
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def avg_pool(
    x: Tensor,
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    implementation: str | None = None,
) -> Tensor:
    """The mean of each window; differentiable. Arguments as torch's avg_pool; see max_pool."""
    if divisor_override == 0:
        raise InputError("pool: divisor_override is 0: pass another number, or None")
    call = _call(x, True, window, stride, padding, 1, ceil_mode, count_include_pad, divisor_override or 0)
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def adaptive_max_pool(x: Tensor, size: Sizes, *, implementation: str | None = None) -> Tensor:
    """The largest value of each window of adaptive_avg_pool; differentiable."""
    result: Tensor = _operator(*_flat(adaptive_call(x, False, size)), implementation)
    return result


def adaptive_avg_pool(x: Tensor, size: Sizes, *, implementation: str | None = None) -> Tensor:
    """The mean of each of `size` windows, which share the image as torch's do: (N, C, *size); differentiable.

    Window i of n over L pixels goes from floor(i L / n) to ceil((i + 1) L / n): they may differ in size, and overlap.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes with pixels, floating point.
        size: one number, or one an axis.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    result: Tensor = _operator(*_flat(adaptive_call(x, True, size)), implementation)
    return result


def adaptive_call(x: Tensor, average: bool, size: Sizes) -> PoolCall:
    """The call of an adaptive pool."""
    axes = spatial_axes("pool", x)
    if 0 in x.shape[2:]:
        raise InputError(f"pool: x has shape {tuple(x.shape)}: pass an image with pixels")
    ones, zeros = (1,) * axes, (0,) * axes
    return PoolCall(x, average, ones, ones, zeros, ones, adaptive=per_axis("pool", "size", size, axes, 1))


def global_max_pool(x: Tensor, *, implementation: str | None = None) -> Tensor:
    """The largest value of each channel of each image: (N, C, 1, ..)."""
    return max_pool(x, tuple(x.shape[2:]), implementation=implementation)


def global_avg_pool(x: Tensor, *, implementation: str | None = None) -> Tensor:
    """The mean of each channel of each image: (N, C, 1, ..)."""
    return avg_pool(x, tuple(x.shape[2:]), implementation=implementation)


def _call(
    x: Tensor,
    average: bool,
    window: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int,
) -> PoolCall:
    axes = spatial_axes("pool", x)
    sizes = per_axis("pool", "window", window, axes, 1)
    steps = sizes if stride is None else per_axis("pool", "stride", stride, axes, 1)
    pads = per_axis("pool", "padding", padding, axes, 0)
    gaps = per_axis("pool", "dilation", dilation, axes, 1)
    call = PoolCall(x, average, sizes, steps, pads, gaps, ceil_mode, count_include_pad, divisor)
    if any(2 * p > w for p, w in zip(pads, sizes, strict=True)):
        raise InputError(f"pool: padding is {pads} with window {sizes}: pass at most half of the window")
    too_small = average and axes == 3 and any(size < w for size, w in zip(x.shape[2:], sizes, strict=True))  # as torch
    if min(call.shape[2:]) < 1 or too_small:
        raise InputError(
            f"pool: window {sizes} with dilation {gaps} does not fit into x {tuple(x.shape)} with padding {pads}: "
            "pass a larger x or a smaller window"
        )
    return call


def _size(size: int, window: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    room = size + 2 * padding - dilation * (window - 1) - 1
    out = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    # A window that would start in the padding at the end is left out, as in torch.
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def _refusal(call: PoolCall) -> str | None:
    return kernel_refusal(call.x, call.out) or out_refusal(call.out)


def _run(call: PoolCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    _C.pool(
        x=array5(channels_last(call.x)),
        out=array5(out),
        window=three(call.window, 1),
        stride=three(call.stride, 1),
        pad=three(call.padding, 0),
        dilation=three(call.dilation, 1),
        average=call.average,
        count_pad=call.count_include_pad,
        divisor=float(call.divisor),
        adaptive=bool(call.adaptive),
        nthreads=threads(),
    )
    return out


def _reference(call: PoolCall) -> Tensor:
    x, lead = at_least_float32(call.x), 1 if call.x.dim() == 3 else 0  # torch has no divisor_override in 1D
    x = x.unsqueeze(2) if lead else x
    window, stride = (1,) * lead + call.window, (1,) * lead + call.stride
    padding, dilation = (0,) * lead + call.padding, (1,) * lead + call.dilation
    if call.adaptive:
        y = _adaptive(x, (1,) * lead + call.adaptive, call.average)
    elif not call.average:
        largest = functional.max_pool3d if x.dim() == 5 else functional.max_pool2d
        y = largest(x, window, stride, padding, dilation, call.ceil_mode)
    else:
        mean = functional.avg_pool3d if x.dim() == 5 else functional.avg_pool2d
        y = mean(x, window, stride, padding, call.ceil_mode, call.count_include_pad, call.divisor or None)
    return (y.squeeze(2) if lead else y).to(call.x.dtype)


def _adaptive(x: Tensor, size: tuple[int, ...], average: bool) -> Tensor:
    kind = "avg" if average else "max"
    y: Tensor = getattr(functional, f"adaptive_{kind}_pool{len(size)}d")(x, size)
    return y


OP = Op(
    "pool",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


def _flat(call: PoolCall) -> tuple[Any, ...]:
    geometry = list(call.window), list(call.stride), list(call.padding), list(call.dilation)
    return (call.x, call.average, *geometry, call.ceil_mode, call.count_include_pad, call.divisor, list(call.adaptive))


_operator = register(
    OP,
    "Tensor x, bool average, int[] window, int[] stride, int[] padding, int[] dilation, bool ceil_mode, "
    "bool count_include_pad, int divisor, int[] adaptive",
    PoolCall,
    result=lambda call: result_like(call.x, call.shape, None),
)
