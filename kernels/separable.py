"""A depthwise convolution and a 1x1 convolution of its results in one kernel: what lies between stays in registers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.epilogue import activate
from fastnets.kernels.tile import positions, source, store
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.layout import channels_last, empty_channels_last
from fastnets.ops.separable_packed import SeparableCall


@dataclass(frozen=True)
class Config:
    """A program's tile: `block_m` pixels x `block_n` outputs; `block_k` depthwise results at a time."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


@tuned
def choose(call: SeparableCall) -> Config:
    """Many outputs of a pixel in a program: each computes the depthwise results anew. 256, or 4 warps, spill."""
    outputs = call.out_shape[1]
    if call.x.dtype == torch.float32:
        return Config(64, run.block(outputs, 64, 16), 16, 4, 2)
    return Config(64, run.block(outputs, 128, 16), run.block(call.x.shape[1], 64, 16), 8, 2)


def can_run(call: SeparableCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    channels = call.x.shape[1]
    if call.depthwise.shape[0] != channels:
        return f"{call.depthwise.shape[0]} depthwise results of {channels} channels; it needs one a channel"
    if 0 in call.pointwise.shape or 0 in call.depthwise.shape:
        return "a weight is empty"
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: SeparableCall) -> Tensor:
    """activation(pointwise(middle(depthwise(x) * scale + shift)) + bias + residual)."""
    x, window = channels_last(call.x), call.window
    out = empty_channels_last(x, call.out_shape) if call.out is None else call.out
    residual = None if call.residual is None else channels_last(call.residual)
    channels, outputs = x.shape[1], out.shape[1]
    pixels, config = len(out) * math.prod(out.shape[2:]), choose(call)
    named = {
        "KERNEL": run.axes3(call.depthwise.shape[2:], 1),
        "STRIDE": run.axes3(window.stride, 1),
        "STEP": run.axes3(window.dilation, 1),
    }
    before = run.axes3([p for p, _ in window.padding], 0)
    run.launch(
        _fused,
        (triton.cdiv(pixels, config.block_m), triton.cdiv(outputs, config.block_n)),
        warps=config.warps,
        stages=config.stages,
        x=x,
        depthwise=call.depthwise.reshape(channels, -1).t().contiguous(),
        pointwise=call.pointwise.reshape(outputs, channels).t().contiguous(),
        scale=call.middle_scale,
        shift=call.middle_bias,
        bias=call.bias,
        residual=residual,
        out=out,
        pixels=pixels,
        **run.sizes("size", x.shape[2:]),
        **run.sizes("out", out.shape[2:]),
        **run.geometry("xs", x),
        **run.geometry("rs", residual),
        **run.geometry("os", out),
        **{f"before_{axis}": value for axis, value in zip("zyx", before, strict=True)},
        middle_alpha=call.middle_activation.alpha,
        middle_beta=call.middle_activation.beta,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        **{f"{name}_{axis}": v for name, values in named.items() for axis, v in zip("ZYX", values, strict=True)},
        CHANNELS=channels,
        OUTPUTS=outputs,
        MIDDLE=call.middle_activation.name,
        KIND=call.activation.name,
        PRECISION=run.precision(x),
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        UNIT=run.unit(channels, x),
        UNIT_OUT=run.unit(outputs, out, residual),
        INDEX=run.index_type(x, out, residual),
    )
    return out


@triton.jit
def _fused(x, depthwise, pointwise, scale, shift, bias, residual, out, pixels,
           size_z, size_y, size_x, out_z, out_y, out_x,
           xs_n, xs_z, xs_y, xs_x, rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x,
           before_z, before_y, before_x, middle_alpha, middle_beta, alpha, beta,
           KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
           STRIDE_Z: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
           STEP_Z: tl.constexpr, STEP_Y: tl.constexpr, STEP_X: tl.constexpr,
           CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIDDLE: tl.constexpr, KIND: tl.constexpr,
           PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
           UNIT: tl.constexpr, UNIT_OUT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """Depthwise results, `BLOCK_K` channels at a time, are the left operand of the product."""
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    co = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    n, z, y, xo = positions(pixel, out_z, out_y, out_x, INDEX)
    n = tl.where(pixel < pixels, n, 0)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, CHANNELS, BLOCK_K):
        c = first + tl.arange(0, BLOCK_K)
        in_c = c < CHANNELS
        middle = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for line in range(KERNEL_Z * KERNEL_Y):
            zi, in_z = source(z, line // KERNEL_Y, STRIDE_Z, STEP_Z, before_z, size_z, False)
            yi, in_y = source(y, line % KERNEL_Y, STRIDE_Y, STEP_Y, before_y, size_y, False)
            for kx in tl.static_range(KERNEL_X):
                xi, in_x = source(xo, kx, STRIDE_X, STEP_X, before_x, size_x, False)
                at = tl.multiple_of(n * xs_n + zi * xs_z + yi * xs_y + xi * xs_x, UNIT)
                mask = (in_z & in_y & in_x)[:, None] & in_c[None, :]
                value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
                w = tl.load(depthwise + (line * KERNEL_X + kx) * CHANNELS + c, mask=in_c, other=0.0)
                middle += value * w.to(tl.float32)[None, :]
        if scale is not None:
            middle *= tl.load(scale + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
        if shift is not None:
            middle += tl.load(shift + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
        a = activate(middle, MIDDLE, middle_alpha, middle_beta).to(x.dtype.element_ty)
        inside = in_c[:, None] & (co < OUTPUTS)[None, :]
        b = tl.load(pointwise + c[:, None] * OUTPUTS + co[None, :], mask=inside, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    mask = (pixel < pixels)[:, None] & (co < OUTPUTS)[None, :]
    r_at = tl.multiple_of(n * rs_n + z * rs_z + y * rs_y + xo * rs_x, UNIT_OUT)
    o_at = tl.multiple_of(n * os_n + z * os_z + y * os_y + xo * os_x, UNIT_OUT)
    store(acc, bias, residual, out, r_at, o_at, co, mask, alpha, beta, KIND, OUTPUTS)
