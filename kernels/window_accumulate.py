"""Add weighted windows to an image in place, one after the other: overlaps have one order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tuned import tuned
from torch import Tensor


@dataclass(frozen=True)
class Config:
    """A program adds `block_x` positions of a row x `block_c` channels; 1 channel where channels come first."""

    block_x: int
    block_c: int
    warps: int


@tuned
def choose(channels: int, width: int, *, channels_last: bool) -> Config:
    """By reasoning, not measured yet."""
    block_c = run.block(channels, 64) if channels_last else 1
    block_x = run.block(width, 1024 // block_c)
    return Config(block_x, block_c, max(1, min(4, block_x * block_c // 256)))


def launch(
    out: Tensor, windows: Tensor, starts: Tensor, weights: Sequence[Tensor] | Tensor, floor: float, *, last: bool
) -> None:
    """`weights`: vectors of float32, one a spatial axis, or a map of the size of a window. Starts were checked."""
    config = choose(out.shape[1], windows.shape[-1], channels_last=last)
    size = run.axes3(windows.shape[2:], 1)
    dense = isinstance(weights, Tensor)
    one = torch.ones(1, device=out.device)
    vectors = (one, one, one) if isinstance(weights, Tensor) else [one] * (3 - len(weights)) + list(weights)
    for window, (image, *start) in zip(windows, starts.tolist(), strict=True):
        region = tuple(slice(s, s + n) for s, n in zip(start, windows.shape[2:], strict=True))
        box = out[(slice(image, image + 1), slice(None), *region)]
        run.launch(
            _add,
            (size[0] * size[1] * triton.cdiv(size[2], config.block_x), triton.cdiv(out.shape[1], config.block_c)),
            warps=config.warps,
            out=box,
            window=window,
            weight=weights.contiguous() if isinstance(weights, Tensor) else None,
            weight_z=vectors[0],
            weight_y=vectors[1],
            weight_x=vectors[2],
            floor=float(floor),
            **run.sizes("size", size),
            **run.geometry("os", box),
            **run.geometry("ws", window[None]),
            os_c=box.stride(1),
            ws_c=window.stride(0),
            CHANNELS=out.shape[1],
            DENSE=dense,
            BLOCK_X=config.block_x,
            BLOCK_C=config.block_c,
            INDEX=tl.int64 if math.prod(out.shape) >= 1 << 30 else run.index_type(box, window),
        )


@triton.jit
def _add(out, window, weight, weight_z, weight_y, weight_x, floor, size_z, size_y, size_x,
         os_n, os_z, os_y, os_x, ws_n, ws_z, ws_y, ws_x, os_c, ws_c, CHANNELS: tl.constexpr, DENSE: tl.constexpr,
         BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """Part of one row of one window."""
    blocks = tl.cdiv(size_x, BLOCK_X)
    line = tl.program_id(0) // blocks
    x = tl.program_id(0) % blocks * BLOCK_X + tl.arange(0, BLOCK_X)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    z, y = line // size_y, line % size_y
    if DENSE:
        w = tl.load(weight + line * size_x + x, mask=x < size_x, other=0.0).to(tl.float32)
    else:
        w = tl.load(weight_z + z) * tl.load(weight_y + y) * tl.load(weight_x + x, mask=x < size_x, other=0.0)
        w = tl.maximum(w, floor)
    mask = (x < size_x)[:, None] & (c < CHANNELS)[None, :]
    z, y, x, c = z.to(INDEX), y.to(INDEX), x.to(INDEX), c.to(INDEX)
    at = (z * os_z + y * os_y + x * os_x)[:, None] + (c * os_c)[None, :]
    value = tl.load(out + at, mask=mask, other=0.0).to(tl.float32)
    from_ = (z * ws_z + y * ws_y + x * ws_x)[:, None] + (c * ws_c)[None, :]
    value += tl.load(window + from_, mask=mask, other=0.0).to(tl.float32) * w[:, None]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)
