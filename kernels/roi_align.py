"""RoIAlign, channels-last: a program owns one bin of one box and a block of channels."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.layout import channels_last, empty_channels_last
from fastnets.ops.roi_align import RoiAlignCall


@dataclass(frozen=True)
class Config:
    """Channels of a program."""

    block_c: int
    warps: int


@tuned
def choose(channels: int) -> Config:
    """16 bytes a thread. By reasoning, not measured yet."""
    block_c = run.block(channels, 256)
    return Config(block_c, 1)


def can_run(call: RoiAlignCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: RoiAlignCall) -> Tensor:
    """(K, C, *size)."""
    x = channels_last(call.x)
    out = empty_channels_last(x, call.shape) if call.out is None else call.out
    channels, config = x.shape[1], choose(x.shape[1])
    run.launch(
        _bins,
        (len(call.boxes) * call.size[0] * call.size[1], triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        x=x,
        boxes=call.boxes.detach().contiguous(),
        out=out,
        height=x.shape[2],
        width=x.shape[3],
        xs_n=x.stride(0),
        xs_y=x.stride(2),
        xs_x=x.stride(3),
        os_n=out.stride(0),
        os_y=out.stride(2),
        os_x=out.stride(3),
        scale=float(call.scale),
        CHANNELS=channels,
        BINS_Y=call.size[0],
        BINS_X=call.size[1],
        SAMPLES=call.samples,
        ALIGNED=call.aligned,
        BLOCK_C=config.block_c,
        UNIT=run.unit(channels, x, out),
    )
    return out


@triton.jit
def _extent(low, high, scale, BINS: tl.constexpr, SAMPLES: tl.constexpr, ALIGNED: tl.constexpr):
    """Where a box begins along an axis, the size of a bin, and the samples in it."""
    if ALIGNED:
        first = low * scale - 0.5
        length = high * scale - 0.5 - first
    else:
        first = low * scale
        length = tl.maximum(high * scale - first, 1.0)
    step = tl.div_rn(length, tl.full((), BINS, tl.float32))
    if SAMPLES > 0:
        count = tl.full((), SAMPLES, tl.int32)
    else:
        count = tl.maximum(tl.ceil(step).to(tl.int32), 0)
    return first, step, count


@triton.jit
def _neighbours(position, size):
    """Two pixels and their weights; 0 farther than one pixel outside."""
    inside = tl.where(position >= -1, 1.0, 0.0) * tl.where(position <= size, 1.0, 0.0)
    at = tl.minimum(tl.maximum(position, 0.0), (size - 1).to(tl.float32))
    low = at.to(tl.int32)
    share = at - low.to(tl.float32)
    return low, tl.minimum(low + 1, size - 1), (1 - share) * inside, share * inside


@triton.jit
def _bins(x, boxes, out, height, width, xs_n, xs_y, xs_x, os_n, os_y, os_x, scale, CHANNELS: tl.constexpr,
          BINS_Y: tl.constexpr, BINS_X: tl.constexpr, SAMPLES: tl.constexpr, ALIGNED: tl.constexpr,
          BLOCK_C: tl.constexpr, UNIT: tl.constexpr):  # fmt: skip
    """The average over the samples of one bin."""
    box = tl.program_id(0) // (BINS_Y * BINS_X)
    by, bx = tl.program_id(0) // BINS_X % BINS_Y, tl.program_id(0) % BINS_X
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    boxes += box * 5
    x += tl.load(boxes).to(tl.int64) * xs_n
    left, top = tl.load(boxes + 1).to(tl.float32), tl.load(boxes + 2).to(tl.float32)
    right, bottom = tl.load(boxes + 3).to(tl.float32), tl.load(boxes + 4).to(tl.float32)
    first_y, step_y, count_y = _extent(top, bottom, scale, BINS_Y, SAMPLES, ALIGNED)
    first_x, step_x, count_x = _extent(left, right, scale, BINS_X, SAMPLES, ALIGNED)
    total = tl.zeros((BLOCK_C,), tl.float32)
    for iy in range(count_y):
        y0, y1, wy0, wy1 = _neighbours(first_y + (by + (iy + 0.5) / count_y) * step_y, height)
        for ix in range(count_x):
            x0, x1, wx0, wx1 = _neighbours(first_x + (bx + (ix + 0.5) / count_x) * step_x, width)
            a = tl.load(x + tl.multiple_of(y0 * xs_y + x0 * xs_x, UNIT) + c, mask=in_c, other=0.0).to(tl.float32)
            b = tl.load(x + tl.multiple_of(y0 * xs_y + x1 * xs_x, UNIT) + c, mask=in_c, other=0.0).to(tl.float32)
            d = tl.load(x + tl.multiple_of(y1 * xs_y + x0 * xs_x, UNIT) + c, mask=in_c, other=0.0).to(tl.float32)
            e = tl.load(x + tl.multiple_of(y1 * xs_y + x1 * xs_x, UNIT) + c, mask=in_c, other=0.0).to(tl.float32)
            total += wy0 * (wx0 * a + wx1 * b) + wy1 * (wx0 * d + wx1 * e)
    total = total / tl.maximum(count_y * count_x, 1)
    at = tl.multiple_of(box.to(tl.int64) * os_n + by * os_y + bx * os_x, UNIT)
    tl.store(out + at + c, total.to(out.dtype.element_ty), mask=in_c)
