"""Transposed convolution whose windows do not overlap (kernel 2 with stride 2): one product a tap, stored apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tile import positions, store
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.conv_transpose import ConvTransposeCall
from fastnets.ops.layout import channels_last, empty_channels_last


@dataclass(frozen=True)
class Config:
    """A program's tile: `block_m` pixels of x by `block_n` outputs of one tap; `block_k` inputs at a time."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


@tuned
def choose(call: ConvTransposeCall) -> Config:
    """Float32 runs without tensor cores: small tiles. By reasoning, not measured yet."""
    inputs, outputs = call.weight.shape[:2]
    if call.x.dtype == torch.float32:
        return Config(64, run.block(outputs, 64, 16), 16, 4, 2)
    return Config(128, run.block(outputs, 128, 16), run.block(inputs, 64, 16), 8 if outputs > 64 else 4, 3)


def can_run(call: ConvTransposeCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    kernel = tuple(call.weight.shape[2:])
    if kernel != call.stride or any(call.padding) or any(call.output_padding) or call.groups > 1:
        return (
            f"kernel {kernel}, stride {call.stride}, padding {call.padding}, output_padding {call.output_padding} and "
            f"groups {call.groups}; it needs a kernel of the size of the stride, no padding and one group"
        )
    if max(call.dilation) > 1 and max(kernel) > 1:
        return f"dilation is {call.dilation}; it needs 1"
    if 0 in call.weight.shape:
        return f"weight has shape {tuple(call.weight.shape)}; it needs elements"
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: ConvTransposeCall) -> Tensor:
    """activation(conv_transpose(x) + bias + residual)."""
    x = channels_last(call.x)
    out = empty_channels_last(x, call.shape) if call.out is None else call.out
    residual = None if call.residual is None else channels_last(call.residual)
    inputs, outputs = call.weight.shape[:2]
    kernel = run.axes3(call.weight.shape[2:], 1)
    pixels, config = len(x) * math.prod(x.shape[2:]), choose(call)
    run.launch(
        _taps,
        (triton.cdiv(pixels, config.block_m), triton.cdiv(outputs, config.block_n), math.prod(kernel)),
        warps=config.warps,
        stages=config.stages,
        x=x,
        weight=call.weight.flatten(2).permute(2, 0, 1).contiguous(),
        bias=call.bias,
        residual=residual,
        out=out,
        pixels=pixels,
        **run.sizes("size", x.shape[2:]),
        **run.geometry("xs", x),
        **run.geometry("rs", residual),
        **run.geometry("os", out),
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        KERNEL_Z=kernel[0],
        KERNEL_Y=kernel[1],
        KERNEL_X=kernel[2],
        INPUTS=inputs,
        OUTPUTS=outputs,
        KIND=call.activation.name,
        PRECISION=run.precision(x),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        UNIT=run.unit(inputs, x),
        UNIT_OUT=run.unit(outputs, out, residual),
        INDEX=run.index_type(x, out, residual),
    )
    return out


@triton.jit
def _taps(x, weight, bias, residual, out, pixels, size_z, size_y, size_x, xs_n, xs_z, xs_y, xs_x,
          rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x, alpha, beta,
          KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, INPUTS: tl.constexpr,
          OUTPUTS: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
          BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, UNIT: tl.constexpr, UNIT_OUT: tl.constexpr,
          INDEX: tl.constexpr):  # fmt: skip
    """Pixels of x times the weights of one tap."""
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    co = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    tap = tl.program_id(2)
    n, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
    at = tl.multiple_of(n * xs_n + z * xs_z + y * xs_y + xo * xs_x, UNIT)
    weight += tap * INPUTS * OUTPUTS
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, INPUTS, BLOCK_K):
        ci = first + tl.arange(0, BLOCK_K)
        inside = (pixel < pixels)[:, None] & (ci < INPUTS)[None, :]
        a = tl.load(x + at[:, None] + ci[None, :], mask=inside, other=0.0)
        inside = (ci < INPUTS)[:, None] & (co < OUTPUTS)[None, :]
        b = tl.load(weight + ci[:, None] * OUTPUTS + co[None, :], mask=inside, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    z = z * KERNEL_Z + tap // (KERNEL_Y * KERNEL_X)
    y = y * KERNEL_Y + tap // KERNEL_X % KERNEL_Y
    xo = xo * KERNEL_X + tap % KERNEL_X
    mask = (pixel < pixels)[:, None] & (co < OUTPUTS)[None, :]
    r_at = tl.multiple_of(n * rs_n + z * rs_z + y * rs_y + xo * rs_x, UNIT_OUT)
    o_at = tl.multiple_of(n * os_n + z * os_z + y * os_y + xo * os_x, UNIT_OUT)
    store(acc, bias, residual, out, r_at, o_at, co, mask, alpha, beta, KIND, OUTPUTS)
