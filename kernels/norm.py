"""Instance, group and batch normalization with their epilogue, channels-last: two reads of x and one write."""

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

from fastnets.ops.layout import channels_last, empty_channels_last
from fastnets.ops.norm import NormCall


@dataclass(frozen=True)
class Config:
    """Tiles of `block_p` pixels x `block_c` channels; a program of the statistics takes `pixels` of an image."""

    block_p: int
    block_c: int
    pixels: int
    warps: int = 4


@tuned
def choose(batch: int, channels: int, pixels: int) -> Config:
    """Enough programs for four waves of 132 multiprocessors. By reasoning, not measured yet."""
    block_c = run.block(channels, 64)
    block_p = run.block(pixels, 2048 // block_c)
    others = max(1, batch * triton.cdiv(channels, block_c))
    splits = max(1, min(triton.cdiv(pixels, 8 * block_p), 528 // others))
    return Config(block_p, block_c, triton.cdiv(triton.cdiv(pixels, splits), block_p) * block_p)


def can_run(call: NormCall) -> str | None:
    """None, or why these kernels cannot run `call`."""
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    if call.x.numel() == 0:
        return "x is empty"
    return None


def launch(call: NormCall) -> Tensor:
    """activation((x - mean) / sqrt(variance + eps) * weight + bias + residual)."""
    x = channels_last(call.x)
    out = empty_channels_last(x, tuple(x.shape)) if call.out is None else call.out
    residual = None if call.residual is None else channels_last(call.residual)
    size, channels = run.axes3(x.shape[2:], 1), x.shape[1]
    pixels, config = math.prod(size), choose(len(x), channels, math.prod(size))
    run.launch(
        _apply,
        (triton.cdiv(pixels, config.block_p) * len(x), triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        x=x,
        table=statistics(call, x, config),
        weight=call.weight,
        bias=call.bias,
        residual=residual,
        out=out,
        **run.sizes("size", size),
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


def statistics(call: NormCall, x: Tensor, config: Config) -> Tensor:
    """(N, 3, C) float32: mean, what float32 lost of it, and 1 / sqrt(variance + eps), of the group of each channel."""
    size, channels = run.axes3(x.shape[2:], 1), x.shape[1]
    if call.moments is None:
        pixels = math.prod(size)
        splits = triton.cdiv(pixels, config.pixels)
        partial = torch.empty((len(x), splits, 4, channels), dtype=torch.float32, device=x.device)
        run.launch(
            _moments,
            (splits, len(x), triton.cdiv(channels, config.block_c)),
            warps=config.warps,
            x=x,
            partial=partial,
            pixels=pixels,
            **run.sizes("size", size),
            **run.geometry("xs", x),
            CHANNELS=channels,
            SHARE=config.pixels,
            BLOCK_P=config.block_p,
            BLOCK_C=config.block_c,
            UNIT=run.unit(channels, x),
            INDEX=run.index_type(x),
        )
    else:  # those of the caller are partial ones of a single split
        mean, variance = call.moments.detach().double().expand(len(x), channels, 2).unbind(-1)
        high = mean.float()
        partial = torch.stack([high, mean - high, variance, torch.ones_like(mean)], dim=1)[:, None].float()
    table = torch.empty((len(x), 3, channels), dtype=torch.float32, device=x.device)
    width = channels // call.groups
    run.launch(
        _finish,
        (len(x), call.groups),
        warps=1,
        partial=partial,
        table=table,
        splits=partial.shape[1],
        eps=call.eps,
        CHANNELS=channels,
        WIDTH=width,
        BLOCK=run.block(width, 1024),
    )
    return table


@triton.jit
def _moments(x, partial, pixels, size_z, size_y, size_x, xs_n, xs_z, xs_y, xs_x, CHANNELS: tl.constexpr,
             SHARE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, UNIT: tl.constexpr,
             INDEX: tl.constexpr):  # fmt: skip
    """partial[n, split] = a first value, mean - first, sum of squared deviations, count: no digits lost to the mean."""
    split, n = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    x += n.to(tl.int64) * xs_n
    first = tl.load(x + c, mask=in_c, other=0.0).to(tl.float32)
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    end = tl.minimum((split + 1) * SHARE, pixels)
    for start in range(split * SHARE, end, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        _, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
        at = tl.multiple_of(z * xs_z + y * xs_y + xo * xs_x, UNIT)
        mask = (pixel < end)[:, None] & in_c[None, :]
        value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - first[None, :], 0.0)
        before = (start - split * SHARE) * 1.0
        count = tl.minimum(end - start, BLOCK_P) * 1.0
        own = tl.sum(value, axis=0) / count
        off = tl.where(mask, value - own[None, :], 0.0)
        # Two sets of deviations as one (Chan, Golub and LeVeque, 1979).
        delta = own - mean
        mean += delta * (count / (before + count))
        squares += tl.sum(off * off, axis=0) + delta * delta * (before * count / (before + count))
    partial += (n * tl.num_programs(0) + split) * 4 * CHANNELS
    tl.store(partial + c, first, mask=in_c)
    tl.store(partial + CHANNELS + c, mean, mask=in_c)
    tl.store(partial + 2 * CHANNELS + c, squares, mask=in_c)
    tl.store(partial + 3 * CHANNELS + c, mean * 0 + (end - split * SHARE), mask=in_c)


@triton.jit
def _finish(partial, table, splits, eps, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The moments of a group from those of its channels and splits, in float64."""
    n, group = tl.program_id(0), tl.program_id(1)
    partial += n * splits * 4 * CHANNELS + group * WIDTH
    table += n * 3 * CHANNELS + group * WIDTH
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    count = tl.zeros((BLOCK,), tl.float64)
    for part in range(splits):
        for start in range(0, WIDTH, BLOCK):
            at = part * 4 * CHANNELS + start + lane
            inside = start + lane < WIDTH
            own = tl.load(partial + 3 * CHANNELS + at, mask=inside, other=0.0).to(tl.float64)
            mean = tl.load(partial + at, mask=inside, other=0.0).to(tl.float64)
            mean += tl.load(partial + CHANNELS + at, mask=inside, other=0.0).to(tl.float64)
            count += own
            total += mean * own
    size = tl.sum(count, axis=0)
    middle = tl.sum(total, axis=0) / size
    squares = tl.zeros((BLOCK,), tl.float64)
    for part in range(splits):
        for start in range(0, WIDTH, BLOCK):
            at = part * 4 * CHANNELS + start + lane
            inside = start + lane < WIDTH
            own = tl.load(partial + 3 * CHANNELS + at, mask=inside, other=0.0).to(tl.float64)
            mean = tl.load(partial + at, mask=inside, other=0.0).to(tl.float64)
            mean += tl.load(partial + CHANNELS + at, mask=inside, other=0.0).to(tl.float64)
            spread = tl.load(partial + 2 * CHANNELS + at, mask=inside, other=0.0).to(tl.float64)
            squares += spread + own * (mean - middle) * (mean - middle)
    scale = (1.0 / tl.sqrt(tl.sum(squares, axis=0) / size + eps)).to(tl.float32)
    high = middle.to(tl.float32)
    low = (middle - high.to(tl.float64)).to(tl.float32)
    for start in range(0, WIDTH, BLOCK):
        inside = start + lane < WIDTH
        zero = tl.zeros((BLOCK,), tl.float32)
        tl.store(table + start + lane, zero + high, mask=inside)
        tl.store(table + CHANNELS + start + lane, zero + low, mask=inside)
        tl.store(table + 2 * CHANNELS + start + lane, zero + scale, mask=inside)


@triton.jit
def _apply(x, table, weight, bias, residual, out, size_z, size_y, size_x, xs_n, xs_z, xs_y, xs_x,
           rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x, alpha, beta, CHANNELS: tl.constexpr, KIND: tl.constexpr,
           BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """One tile of one image."""
    pixels = size_z * size_y * size_x
    blocks = tl.cdiv(pixels, BLOCK_P)
    n = tl.program_id(0) // blocks
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    _, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
    mask = (pixel < pixels)[:, None] & in_c[None, :]
    at = tl.multiple_of(n.to(INDEX) * xs_n + z * xs_z + y * xs_y + xo * xs_x, UNIT)
    value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    table += n * 3 * CHANNELS
    high = tl.load(table + c, mask=in_c, other=0.0)
    low = tl.load(table + CHANNELS + c, mask=in_c, other=0.0)
    scale = tl.load(table + 2 * CHANNELS + c, mask=in_c, other=0.0)
    if weight is not None:
        scale *= tl.load(weight + c, mask=in_c, other=0.0).to(tl.float32)
    normal = (value - high[None, :] - low[None, :]) * scale[None, :]
    r_at = tl.multiple_of(n.to(INDEX) * rs_n + z * rs_z + y * rs_y + xo * rs_x, UNIT)
    o_at = tl.multiple_of(n.to(INDEX) * os_n + z * os_z + y * os_y + xo * os_x, UNIT)
    store(normal, bias, residual, out, r_at, o_at, c, mask, alpha, beta, KIND, CHANNELS)
