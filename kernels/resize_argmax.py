"""The best channel of linearly resized logits: each output reads its neighbours and writes one byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tile import positions
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.layout import channels_last
from fastnets.ops.resize import linear_taps
from fastnets.ops.resize_argmax import ResizeArgmaxCall


@dataclass(frozen=True)
class Config:
    """`block_p` outputs x `block_c` channels at a time."""

    block_p: int
    block_c: int
    warps: int = 4


@tuned
def choose(channels: int) -> Config:
    """By reasoning, not measured yet."""
    block_c = run.block(channels, 32)
    return Config(1024 // block_c, block_c)


def can_run(call: ResizeArgmaxCall) -> str | None:
    """None: any call."""
    return None


def launch(call: ResizeArgmaxCall) -> Tensor:
    """(N, *size) uint8."""
    x = channels_last(call.x)
    out = torch.empty((len(x), *call.size), dtype=torch.uint8, device=x.device)
    old, new = run.axes3(x.shape[2:], 1), run.axes3(call.size, 1)
    taps = [linear_taps(*axis, None, call.align_corners) for axis in zip(old, new, strict=True)]
    config = choose(x.shape[1])
    run.launch(
        _best,
        (triton.cdiv(out.numel(), config.block_p),),
        warps=config.warps,
        x=x,
        low=torch.cat([low for low, _, _ in taps]).int().to(x.device),
        high=torch.cat([high for _, high, _ in taps]).int().to(x.device),
        weight=torch.cat([weight for *_, weight in taps]).to(x.device),
        out=out,
        count=out.numel(),
        **run.sizes("out", new),
        **run.geometry("xs", x),
        CHANNELS=x.shape[1],
        TAPS_Z=1 if old[0] == new[0] else 2,
        TAPS_Y=1 if old[1] == new[1] else 2,
        TAPS_X=1 if old[2] == new[2] else 2,
        BLOCK_P=config.block_p,
        BLOCK_C=config.block_c,
        UNIT=run.unit(x.shape[1], x),
        INDEX=tl.int64 if math.prod(out.shape) >= 1 << 30 else run.index_type(x),
    )
    return out


@triton.jit
def _neighbour(low, high, weight, at, second: tl.constexpr):
    """The position and the weight of the first or second neighbour along an axis."""
    share = tl.load(weight + at)
    if second:
        return tl.load(high + at), share
    else:
        return tl.load(low + at), 1 - share


@triton.jit
def _best(x, low, high, weight, out, count, out_z, out_y, out_x, xs_n, xs_z, xs_y, xs_x, CHANNELS: tl.constexpr,
          TAPS_Z: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, BLOCK_P: tl.constexpr,
          BLOCK_C: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """The taps of z, y and x lie one after the other in `low`, `high` and `weight`."""
    pixel = tl.program_id(0).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    pixel = tl.where(pixel < count, pixel, 0)
    n, z, y, xo = positions(pixel, out_z, out_y, out_x, INDEX)
    best = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    label = tl.zeros((BLOCK_P,), tl.int32)
    for first in range(0, CHANNELS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        value = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        for i in tl.static_range(TAPS_Z * TAPS_Y * TAPS_X):
            zi, wz = _neighbour(low, high, weight, z, i // (TAPS_Y * TAPS_X) == 1)
            yi, wy = _neighbour(low, high, weight, out_z + y, i // TAPS_X % TAPS_Y == 1)
            xi, wx = _neighbour(low, high, weight, out_z + out_y + xo, i % TAPS_X == 1)
            at = tl.multiple_of(n * xs_n + zi.to(INDEX) * xs_z + yi.to(INDEX) * xs_y + xi.to(INDEX) * xs_x, UNIT)
            inside = (pixel >= 0)[:, None] & (c < CHANNELS)[None, :]
            corner = tl.load(x + at[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
            value += corner * (wz * wy * wx)[:, None]
        value = tl.where((c < CHANNELS)[None, :], value, float("-inf"))
        most = tl.max(value, axis=1)
        at = tl.min(tl.where(value == most[:, None], c[None, :], CHANNELS), axis=1)
        label = tl.where(most > best, at, label)
        best = tl.where(most > best, most, best)
    pixel = tl.program_id(0).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    tl.store(out + pixel, label.to(tl.uint8), mask=pixel < count)
