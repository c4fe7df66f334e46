"""activation(x * scale + shift + residual) in one pass, channels-last: what follows a product of cuDNN or cuBLAS."""

from __future__ import annotations

import math
from dataclasses import dataclass

import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tile import positions, store
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.activation import ActivationCall
from fastnets.ops.layout import channels_last, empty_channels_last


@dataclass(frozen=True)
class Config:
    """A program's tile: `block_p` pixels x `block_c` channels."""

    block_p: int
    block_c: int
    warps: int = 4


@tuned
def choose(channels: int, pixels: int) -> Config:
    """16 bytes a thread and load. By reasoning, not measured yet."""
    block_c = run.block(channels, 128)
    return Config(run.block(pixels, 2048 // block_c), block_c)


def can_run(call: ActivationCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    if not 3 <= call.x.dim() <= 5:
        return f"x has {call.x.dim()} axes; it needs (N, C, *spatial) with 1 to 3 spatial axes"
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: ActivationCall) -> Tensor:
    """activation(x * scale + shift + residual); `out` may be x."""
    x = channels_last(call.x)
    out = empty_channels_last(x, tuple(x.shape)) if call.out is None else call.out
    residual = None if call.residual is None else channels_last(call.residual)
    channels, pixels = x.shape[1], len(x) * math.prod(x.shape[2:])
    config = choose(channels, pixels)
    run.launch(
        _pointwise,
        (triton.cdiv(pixels, config.block_p), triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        x=x,
        scale=call.scale,
        shift=call.shift,
        residual=residual,
        out=out,
        pixels=pixels,
        **run.sizes("size", x.shape[2:]),
        **run.geometry("xs", x),
        **run.geometry("rs", residual),
        **run.geometry("os", out),
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        CHANNELS=channels,
        KIND=call.activation.name,
        BLOCK_P=config.block_p,
        BLOCK_C=config.block_c,
        UNIT=run.unit(channels, x, out, residual),
        INDEX=run.index_type(x, out, residual),
    )
    return out


@triton.jit
def _pointwise(x, scale, shift, residual, out, pixels, size_z, size_y, size_x, xs_n, xs_z, xs_y, xs_x,
               rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x, alpha, beta, CHANNELS: tl.constexpr,
               KIND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, UNIT: tl.constexpr,
               INDEX: tl.constexpr):  # fmt: skip
    """One tile; each program reads what it writes before it does."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    n, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
    mask = (pixel < pixels)[:, None] & (c < CHANNELS)[None, :]
    at = tl.multiple_of(n * xs_n + z * xs_z + y * xs_y + xo * xs_x, UNIT)
    value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    if scale is not None:
        value *= tl.load(scale + c, mask=c < CHANNELS, other=0.0).to(tl.float32)[None, :]
    r_at = tl.multiple_of(n * rs_n + z * rs_z + y * rs_y + xo * rs_x, UNIT)
    o_at = tl.multiple_of(n * os_n + z * os_z + y * os_y + xo * os_x, UNIT)
    store(value, shift, residual, out, r_at, o_at, c, mask, alpha, beta, KIND, CHANNELS)
