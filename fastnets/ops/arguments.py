"""What the ops share in checking arguments and in calling a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.layout import KERNEL_DTYPES, channels_are_dense, empty_channels_last


def spatial_axes(op: str, x: Tensor, most: int = 3) -> int:
    """How many spatial axes `x` (N, C, *spatial) has.

    Raises:
        InputError: not 1 to `most`, or `x` is not floating point.
    """
    axes = x.dim() - 2
    if not 1 <= axes <= most:
        raise InputError(f"{op}: x has shape {tuple(x.shape)}: pass (N, C, *spatial), 1 to {most} spatial axes")
    if not x.is_floating_point():
        raise InputError(f"{op}: x has dtype {x.dtype}: pass a floating-point tensor")
    return axes


def per_axis(op: str, name: str, value: int | Sequence[int], axes: int, least: int) -> tuple[int, ...]:
    """One number an axis.

    Raises:
        InputError: another number of them, or one below `least`.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != axes or min(values) < least:
        raise InputError(f"{op}: {name} is {value}: pass one number, or {axes}, each {least} or more")
    return values


def three(values: Sequence[int], missing: int) -> list[int]:
    """The values of the axes z, y, x; `missing` for those that a tensor with fewer does not have."""
    return [missing] * (3 - len(values)) + list(values)


def float32_refusal(*tensors: Tensor | None) -> str | None:
    """Why a kernel cannot take these tensors: it needs float32 on the CPU."""
    for x in tensors:
        if x is not None and (x.device.type != "cpu" or x.dtype != torch.float32):
            return f"an argument is {x.dtype} on {x.device}; it needs torch.float32 on cpu"
    return None


def kernel_refusal(x: Tensor, *others: Tensor | None) -> str | None:
    """Why a kernel cannot take these tensors: it needs float32 or bfloat16, one of them, on the CPU."""
    for tensor in (x, *others):
        if tensor is None:
            continue
        if tensor.device.type != "cpu" or tensor.dtype not in KERNEL_DTYPES:
            return f"an argument is {tensor.dtype} on {tensor.device}; it needs torch.float32 or torch.bfloat16 on cpu"
        if tensor.dtype != x.dtype:
            return f"an argument is {tensor.dtype}; it needs {x.dtype}, as x"
    return None


def out_refusal(out: Tensor | None) -> str | None:
    """Why a kernel cannot write to `out`, whose dtype another check sees."""
    if out is not None and not channels_are_dense(out):
        return f"out has strides {out.stride()}; it needs the channels of each pixel together"
    return None


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, in float32 where torch would compute less exactly, or not at all, in its dtype."""
    return x.float() if x.dtype.itemsize < 4 else x


def result_like(x: Tensor, shape: Sequence[int], out: Tensor | None) -> Tensor:
    """`out`, or a new channels-last tensor with the dtype and device of `x`."""
    return empty_channels_last(x, tuple(shape)) if out is None else out


def delivered(y: Tensor, out: Tensor | None) -> Tensor:
    """`y` in channels-last memory, or in `out`: what an implementation in torch returns."""
    return result_like(y, y.shape, out).copy_(y)


def check_out(op: str, out: Tensor | None, shape: Sequence[int]) -> None:
    """Raises InputError where `out` does not have `shape`."""
    if out is not None and tuple(out.shape) != tuple(shape):
        raise InputError(f"{op}: out has shape {tuple(out.shape)}: pass {tuple(shape)}")
