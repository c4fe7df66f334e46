"""The weight gradient of a depthwise convolution: sums over pixels, split over programs and added in one order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.layout import channels_last


@dataclass(frozen=True)
class Config:
    """A program sums `rows` output rows, `block_x` x `block_c` at a time, for one row of the kernel."""

    rows: int
    block_x: int
    block_c: int
    warps: int = 4


@tuned
def choose(call: ConvCall) -> Config:
    """Enough programs for two waves of 132 multiprocessors. By reasoning, not measured yet."""
    batch, channels, *out = call.out_shape
    lines = batch * math.prod(out[:-1])
    block_c = run.block(channels, 64)
    wide = run.block(call.weight.shape[-1], 32)
    block_x = run.block(out[-1], max(4096 // (block_c * wide), 1))
    others = triton.cdiv(channels, block_c) * max(1, math.prod(call.weight.shape[2:-1]))
    splits = max(1, min(lines, 264 * 4 // others))
    return Config(max(1, triton.cdiv(lines, splits)), block_x, block_c)


def weight_gradient(call: ConvCall, grad: Tensor) -> Tensor:
    """Of the weight, from the gradient before the activation."""
    x, grad, config = channels_last(call.x), channels_last(grad), choose(call)
    channels, kernel, out = x.shape[1], run.axes3(call.weight.shape[2:], 1), run.axes3(grad.shape[2:], 1)
    lines = len(grad) * out[0] * out[1]
    splits = triton.cdiv(lines, config.rows)
    partial = torch.empty((splits, math.prod(kernel), channels), dtype=torch.float32, device=x.device)
    before = run.axes3([p for p, _ in call.window.padding], 0)
    named = {"STRIDE": run.axes3(call.window.stride, 1), "STEP": run.axes3(call.window.dilation, 1)}
    run.launch(
        _sums,
        (splits, triton.cdiv(channels, config.block_c), kernel[0] * kernel[1]),
        warps=config.warps,
        x=x,
        grad=grad,
        partial=partial,
        lines=lines,
        **run.sizes("size", x.shape[2:]),
        **run.sizes("out", out),
        **run.geometry("xs", x),
        **run.geometry("gs", grad),
        **{f"before_{axis}": value for axis, value in zip("zyx", before, strict=True)},
        CHANNELS=channels,
        KERNEL_Z=kernel[0],
        KERNEL_Y=kernel[1],
        KERNEL_X=kernel[2],
        **{f"{name}_{axis}": v for name, values in named.items() for axis, v in zip("ZYX", values, strict=True)},
        ROWS=config.rows,
        WIDE=run.block(kernel[2], 1 << 20),
        BLOCK_X=config.block_x,
        BLOCK_C=config.block_c,
        UNIT=run.unit(channels, x, grad),
        INDEX=run.index_type(x, grad),
    )
    return partial.sum(0).t().reshape(call.weight.shape).to(call.weight.dtype)


@triton.jit
def _sums(x, grad, partial, lines, size_z, size_y, size_x, out_z, out_y, out_x,
          xs_n, xs_z, xs_y, xs_x, gs_n, gs_z, gs_y, gs_x, before_z, before_y, before_x,
          CHANNELS: tl.constexpr, KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
          STRIDE_Z: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
          STEP_Z: tl.constexpr, STEP_Y: tl.constexpr, STEP_X: tl.constexpr,
          ROWS: tl.constexpr, WIDE: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
          UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """partial[split, taps of one kernel row, c]: the gradient is loaded once for all taps of the row."""
    split = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    kz, ky = tl.program_id(2) // KERNEL_Y, tl.program_id(2) % KERNEL_Y
    kx = tl.arange(0, WIDE)
    acc = tl.zeros((WIDE, BLOCK_X, BLOCK_C), tl.float32)
    for line in range(split * ROWS, tl.minimum((split + 1) * ROWS, lines)):
        n = (line // (out_z * out_y)).to(INDEX)
        z = (line // out_y % out_z).to(INDEX)
        y = (line % out_y).to(INDEX)
        zi = z * STRIDE_Z - before_z + kz * STEP_Z
        yi = y * STRIDE_Y - before_y + ky * STEP_Y
        end_x = tl.where((zi >= 0) & (zi < size_z) & (yi >= 0) & (yi < size_y), size_x, 0)
        for first in range(0, out_x, BLOCK_X):
            xo = (first + tl.arange(0, BLOCK_X)).to(INDEX)
            at = tl.multiple_of(n * gs_n + z * gs_z + y * gs_y + xo * gs_x, UNIT)
            mask = (xo < out_x)[:, None] & in_c[None, :]
            g = tl.load(grad + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
            xi = xo[None, :] * STRIDE_X - before_x + kx[:, None] * STEP_X
            at = n * xs_n + zi * xs_z + yi * xs_y + xi * xs_x
            read = (xi >= 0) & (xi < end_x) & (kx < KERNEL_X)[:, None] & (xo < out_x)[None, :]
            at = tl.multiple_of(at, (UNIT, UNIT))
            value = tl.load(
                x + at[:, :, None] + c[None, None, :], mask=read[:, :, None] & in_c[None, None, :], other=0.0
            )
            acc += value.to(tl.float32) * g[None, :, :]
    total = tl.sum(acc, axis=1)
    tap = (split * KERNEL_Z * KERNEL_Y + tl.program_id(2)) * KERNEL_X + kx
    tl.store(partial + tap[:, None] * CHANNELS + c[None, :], total, mask=(kx < KERNEL_X)[:, None] & in_c[None, :])
