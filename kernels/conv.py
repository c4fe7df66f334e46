"""Convolution as a product without a matrix of its inputs: any dilation, stride and groups; channels-last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tile import positions, source, store
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.layout import channels_last, empty_channels_last


@dataclass(frozen=True)
class Config:
    """A program's tile: `block_m` pixels x `block_n` channels, `block_k` products at a time.

    flat: taps and input channels are one axis, for channels too few to fill `block_k`.
    """

    block_m: int
    block_n: int
    block_k: int
    flat: bool
    warps: int
    stages: int


@tuned
def choose(inputs: int, outputs: int, pixels: int, dtype: torch.dtype) -> Config:
    """By the channels of a group. Float32 runs without tensor cores: small tiles. By reasoning, not measured yet."""
    flat = inputs < 16
    if dtype == torch.float32:
        return Config(64, run.block(outputs, 64, 16), 16, flat, 4, 2)
    block_m = 128 if pixels >= 128 * 132 else 64
    block_n = run.block(outputs, 128, 16)
    block_k = 32 if flat else run.block(inputs, 64, 16)
    return Config(block_m, block_n, block_k, flat, 8 if flat or block_m * block_n >= 128 * 128 else 4, 3)


def can_run(call: ConvCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    if 0 in call.weight.shape:
        return f"weight has shape {tuple(call.weight.shape)}; it needs elements"
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: ConvCall) -> Tensor:
    """activation(conv(x) + bias + residual)."""
    x = channels_last(call.x)
    out = empty_channels_last(x, call.out_shape) if call.out is None else call.out
    weight = call.weight.unflatten(0, (call.groups, -1)).flatten(3).permute(0, 3, 2, 1).contiguous()
    _launch(call, x, weight, out, transposed=False)
    return out


def data_gradient(call: ConvCall, grad: Tensor) -> Tensor:
    """Of x, from the gradient before the activation."""
    out = empty_channels_last(call.x, tuple(call.x.shape))
    weight = call.weight.unflatten(0, (call.groups, -1)).flatten(3).permute(0, 3, 1, 2).contiguous()
    plain = ConvCall(grad, call.weight, None, None, call.window, call.groups)
    _launch(plain, channels_last(grad), weight, out, transposed=True)
    return out


def window_arguments(call: ConvCall) -> dict[str, int]:
    """Kernel, stride and dilation as constants, and the padding before."""
    named = {
        "KERNEL": run.axes3(call.weight.shape[2:], 1),
        "STRIDE": run.axes3(call.window.stride, 1),
        "STEP": run.axes3(call.window.dilation, 1),
    }
    before = run.axes3([p for p, _ in call.window.padding], 0)
    return {
        **{f"before_{axis}": value for axis, value in zip("zyx", before, strict=True)},
        **{f"{name}_{axis}": v for name, values in named.items() for axis, v in zip("ZYX", values, strict=True)},
    }


def _launch(call: ConvCall, x: Tensor, weight: Tensor, out: Tensor, *, transposed: bool) -> None:
    """`weight`: (groups, taps, inputs of a group, outputs of a group)."""
    groups, _, inputs, outputs = weight.shape
    pixels = len(out) * math.prod(out.shape[2:])
    residual = None if call.residual is None else channels_last(call.residual)
    config = choose(inputs, outputs, pixels, x.dtype)
    run.launch(
        _product,
        (triton.cdiv(pixels, config.block_m), triton.cdiv(outputs, config.block_n), groups),
        warps=config.warps,
        stages=config.stages,
        x=x,
        weight=weight,
        bias=call.bias,
        residual=residual,
        out=out,
        pixels=pixels,
        **run.sizes("size", x.shape[2:]),
        **run.sizes("out", out.shape[2:]),
        **run.geometry("xs", x),
        **run.geometry("rs", residual),
        **run.geometry("os", out),
        **window_arguments(call),
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        INPUTS=inputs,
        OUTPUTS=outputs,
        KIND=call.activation.name,
        TRANSPOSED=transposed,
        FLAT=config.flat,
        PRECISION=run.precision(x),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        UNIT=run.unit(inputs, x) if groups > 1 else run.unit(x.shape[1], x),
        UNIT_OUT=run.unit(outputs, out, residual),
        INDEX=run.index_type(x, out, residual),
    )


@triton.jit
def _product(x, weight, bias, residual, out, pixels, size_z, size_y, size_x, out_z, out_y, out_x,
             xs_n, xs_z, xs_y, xs_x, rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x,
             before_z, before_y, before_x, alpha, beta,
             KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
             STRIDE_Z: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
             STEP_Z: tl.constexpr, STEP_Y: tl.constexpr, STEP_X: tl.constexpr,
             INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, KIND: tl.constexpr, TRANSPOSED: tl.constexpr,
             FLAT: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
             BLOCK_K: tl.constexpr, UNIT: tl.constexpr, UNIT_OUT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """A tile of one group's outputs. TRANSPOSED: x is the gradient of the output, `out` that of the input."""
    TAPS: tl.constexpr = KERNEL_Z * KERNEL_Y * KERNEL_X
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    co = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    group = tl.program_id(2)
    n, z, y, xo = positions(pixel, out_z, out_y, out_x, INDEX)
    n = tl.where(pixel < pixels, n, 0)
    x += group * INPUTS
    weight += group * TAPS * INPUTS * OUTPUTS
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if FLAT:
        for first in range(0, TAPS * INPUTS, BLOCK_K):
            k = first + tl.arange(0, BLOCK_K)
            tap = k // INPUTS
            zi, in_z = source(z[:, None], (tap // (KERNEL_Y * KERNEL_X))[None, :], STRIDE_Z, STEP_Z, before_z, size_z,
                              TRANSPOSED)  # fmt: skip
            yi, in_y = source(y[:, None], (tap // KERNEL_X % KERNEL_Y)[None, :], STRIDE_Y, STEP_Y, before_y, size_y,
                              TRANSPOSED)  # fmt: skip
            xi, in_x = source(xo[:, None], (tap % KERNEL_X)[None, :], STRIDE_X, STEP_X, before_x, size_x, TRANSPOSED)
            at = n[:, None] * xs_n + zi * xs_z + yi * xs_y + xi * xs_x + (k % INPUTS)[None, :]
            a = tl.load(x + at, mask=in_z & in_y & in_x & (tap < TAPS)[None, :], other=0.0)
            inside = (k < TAPS * INPUTS)[:, None] & (co < OUTPUTS)[None, :]
            b = tl.load(weight + k[:, None] * OUTPUTS + co[None, :], mask=inside, other=0.0)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
    else:
        BLOCKS: tl.constexpr = (INPUTS + BLOCK_K - 1) // BLOCK_K
        for step in range(TAPS * BLOCKS):
            tap = step // BLOCKS
            ci = step % BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
            zi, in_z = source(z, tap // (KERNEL_Y * KERNEL_X), STRIDE_Z, STEP_Z, before_z, size_z, TRANSPOSED)
            yi, in_y = source(y, tap // KERNEL_X % KERNEL_Y, STRIDE_Y, STEP_Y, before_y, size_y, TRANSPOSED)
            xi, in_x = source(xo, tap % KERNEL_X, STRIDE_X, STEP_X, before_x, size_x, TRANSPOSED)
            at = tl.multiple_of(n * xs_n + zi * xs_z + yi * xs_y + xi * xs_x, UNIT)
            inside = (in_z & in_y & in_x)[:, None] & (ci < INPUTS)[None, :]
            a = tl.load(x + at[:, None] + ci[None, :], mask=inside, other=0.0)
            inside = (ci < INPUTS)[:, None] & (co < OUTPUTS)[None, :]
            b = tl.load(weight + (tap * INPUTS + ci)[:, None] * OUTPUTS + co[None, :], mask=inside, other=0.0)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
    mask = (pixel < pixels)[:, None] & (co < OUTPUTS)[None, :]
    first = group * OUTPUTS
    r_at = tl.multiple_of(n * rs_n + z * rs_z + y * rs_y + xo * rs_x + first, UNIT_OUT)
    o_at = tl.multiple_of(n * os_n + z * os_z + y * os_y + xo * os_x + first, UNIT_OUT)
    own = None if bias is None else bias + first
    store(acc, own, residual, out, r_at, o_at, co, mask, alpha, beta, KIND, OUTPUTS)
