"""The weight gradient of a convolution: a product over pixels, split over programs and added in one order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.conv import window_arguments
from fastnets.kernels.tile import positions, source
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.layout import channels_last


@dataclass(frozen=True)
class Config:
    """A program's tile: `block_m` taps x inputs by `block_n` outputs, over `pixels`, `block_k` at a time."""

    block_m: int
    block_n: int
    block_k: int
    pixels: int
    warps: int
    stages: int


@tuned
def choose(rows: int, outputs: int, groups: int, pixels: int, dtype: torch.dtype) -> Config:
    """Enough programs for 132 multiprocessors. Float32 runs without tensor cores. By reasoning, not measured yet."""
    whole = dtype == torch.float32
    block_m = run.block(rows, 64, 16) if whole else 64
    block_n, block_k = run.block(outputs, 64 if whole else 128, 16), 16 if whole else 32
    tiles = triton.cdiv(rows, block_m) * triton.cdiv(outputs, block_n) * groups
    splits = max(1, min(264 // tiles, pixels // 1024))
    share = triton.cdiv(triton.cdiv(pixels, splits), block_k) * block_k
    return Config(block_m, block_n, block_k, share, 4, 2 if whole else 3)


def weight_gradient(call: ConvCall, grad: Tensor) -> Tensor:
    """Of the weight, from the gradient before the activation."""
    x, grad = channels_last(call.x), channels_last(grad)
    outputs, inputs, *kernel = call.weight.shape
    outputs //= call.groups
    rows, pixels = math.prod(kernel) * inputs, len(grad) * math.prod(grad.shape[2:])
    config = choose(rows, outputs, call.groups, pixels, x.dtype)
    splits = triton.cdiv(pixels, config.pixels)
    partial = torch.empty((splits, call.groups, rows, outputs), dtype=torch.float32, device=x.device)
    run.launch(
        _weights,
        (triton.cdiv(rows, config.block_m) * triton.cdiv(outputs, config.block_n), splits, call.groups),
        warps=config.warps,
        stages=config.stages,
        x=x,
        grad=grad,
        partial=partial,
        pixels=pixels,
        **run.sizes("size", x.shape[2:]),
        **run.sizes("out", grad.shape[2:]),
        **run.geometry("xs", x),
        **run.geometry("gs", grad),
        **window_arguments(call),
        SHARE=config.pixels,
        INPUTS=inputs,
        OUTPUTS=outputs,
        PRECISION=run.precision(x),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        UNIT=run.unit(outputs, grad),
        INDEX=run.index_type(x, grad),
    )
    total = partial.sum(0).unflatten(1, (-1, inputs))
    return total.permute(0, 3, 2, 1).reshape(call.weight.shape).to(call.weight.dtype)


@triton.jit
def _weights(x, grad, partial, pixels, size_z, size_y, size_x, out_z, out_y, out_x,
             xs_n, xs_z, xs_y, xs_x, gs_n, gs_z, gs_y, gs_x, before_z, before_y, before_x,
             KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
             STRIDE_Z: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
             STEP_Z: tl.constexpr, STEP_Y: tl.constexpr, STEP_X: tl.constexpr, SHARE: tl.constexpr,
             INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
             BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """partial[split, group, tap * INPUTS + ci, co]: the sum over this split's pixels."""
    ROWS: tl.constexpr = KERNEL_Z * KERNEL_Y * KERNEL_X * INPUTS
    blocks = tl.cdiv(OUTPUTS, BLOCK_N)
    row = tl.program_id(0) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    co = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    split, group = tl.program_id(1), tl.program_id(2)
    tap = row // INPUTS
    kz, ky, kx = tap // (KERNEL_Y * KERNEL_X), tap // KERNEL_X % KERNEL_Y, tap % KERNEL_X
    x += group * INPUTS
    grad += group * OUTPUTS
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(split * SHARE, tl.minimum((split + 1) * SHARE, pixels), BLOCK_K):
        pixel = first + tl.arange(0, BLOCK_K)
        n, z, y, xo = positions(pixel, out_z, out_y, out_x, INDEX)
        at = tl.multiple_of(n * gs_n + z * gs_z + y * gs_y + xo * gs_x, UNIT)
        mask = (pixel < pixels)[:, None] & (co < OUTPUTS)[None, :]
        b = tl.load(grad + at[:, None] + co[None, :], mask=mask, other=0.0)
        zi, in_z = source(z[:, None], kz[None, :], STRIDE_Z, STEP_Z, before_z, size_z, False)
        yi, in_y = source(y[:, None], ky[None, :], STRIDE_Y, STEP_Y, before_y, size_y, False)
        xi, in_x = source(xo[:, None], kx[None, :], STRIDE_X, STEP_X, before_x, size_x, False)
        at = n[:, None] * xs_n + zi * xs_z + yi * xs_y + xi * xs_x + (row % INPUTS)[None, :]
        mask = in_z & in_y & in_x & (pixel < pixels)[:, None] & (row < ROWS)[None, :]
        a = tl.load(x + at, mask=mask, other=0.0)
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)
    at = ((split * tl.num_programs(2) + group) * ROWS + row)[:, None] * OUTPUTS + co[None, :]
    tl.store(partial + at, acc, mask=(row < ROWS)[:, None] & (co < OUTPUTS)[None, :])
