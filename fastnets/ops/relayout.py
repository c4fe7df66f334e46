"""relayout: a copy in other memory: from channels-first to channels-last and back, and to another dtype."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import check_out, kernel_refusal, spatial_axes
from fastnets.ops.layout import KERNEL_DTYPES, array5, empty_channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class RelayoutCall:
    """The checked arguments."""

    x: Tensor
    dtype: torch.dtype
    channels_last: bool
    out: Tensor | None = None


def relayout(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    implementation: str | None = None,
) -> Tensor:
    """`x` with its channels last in memory, or first, and of `dtype`; differentiable.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point, at any strides.
        dtype: of the result; None takes that of `x`.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    spatial_axes("relayout", x)
    result: Tensor = _operator(x, dtype or x.dtype, channels_last, implementation)
    return result


def relayout_into(x: Tensor, out: Tensor) -> Tensor:
    """Copies `x` into `out`, of the same shape, by the kernel; without gradients.

    Raises:
        InputError: the shapes differ, or the kernel cannot run.
    """
    check_out("relayout", out, x.shape)
    call = RelayoutCall(x, out.dtype, True, out)
    reason = _refusal(call)
    if reason is not None:
        raise InputError(f"relayout: {reason}")
    return _run(call)


def rearrange_into(x: Tensor, out: Tensor) -> None:
    """Copies `x` into `out`, of the same shape with any number of axes, by the kernel; without gradients.

    Raises:
        InputError: the shapes differ, or the kernel cannot run.
    """
    check_out("relayout", out, x.shape)
    sizes, of_x, of_out = _fewest_axes(x, out)
    x, out = x.as_strided(sizes, of_x), out.as_strided(sizes, of_out)
    for index in product(*map(range, sizes[:-5])):
        # The kernel is quick where the axis that out has together is the channels.
        relayout_into(x[index].movedim(-1, 1), out[index].movedim(-1, 1))


def _fewest_axes(x: Tensor, out: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Sizes, strides in `x` and strides in `out` of five axes or more, as they follow each other in `out`.

    Axes are one where their elements are evenly spaced in both.
    """
    axes: list[tuple[int, int, int]] = []
    for size, step, out_step in sorted(zip(x.shape, x.stride(), out.stride(), strict=True), key=lambda a: -a[2]):
        if axes and axes[-1][1:] == (size * step, size * out_step):
            axes[-1] = (size * axes[-1][0], step, out_step)
        elif size != 1:
            axes.append((size, step, out_step))
    axes = [(1, 0, 0)] * (5 - len(axes)) + axes
    sizes, steps, out_steps = zip(*axes, strict=True)
    return list(sizes), list(steps), list(out_steps)


def _refusal(call: RelayoutCall) -> str | None:
    reason = kernel_refusal(call.x) or (None if call.out is None else kernel_refusal(call.out))
    if reason is None and call.dtype not in KERNEL_DTYPES:
        return f"dtype is {call.dtype}; it needs torch.float32 or torch.bfloat16"
    return reason


def _result(call: RelayoutCall) -> Tensor:
    if call.out is not None:
        return call.out
    like = call.x.new_empty(0, dtype=call.dtype)
    shape = tuple(call.x.shape)
    return empty_channels_last(like, shape) if call.channels_last else like.new_empty(shape)


def _run(call: RelayoutCall) -> Tensor:
    out = _result(call)
    _C.relayout(x=array5(call.x), out=array5(out), nthreads=threads())
    return out


def _reference(call: RelayoutCall) -> Tensor:
    return call.x.to(torch.float64 if call.x.dtype == torch.float64 else call.dtype)


def _run_torch(call: RelayoutCall) -> Tensor:
    return _result(call).copy_(call.x)


OP = Op(
    "relayout",
    _reference,
    (Implementation("native", _refusal, _run), Implementation("torch", lambda call: None, _run_torch)),
)


_operator = register(OP, "Tensor x, ScalarType dtype, bool channels_last", RelayoutCall, result=_result)
