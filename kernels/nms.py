"""Greedy non-maximum suppression: all pairs of boxes at once as bits, then one pass over the boxes in order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.nms import NmsCall

WORD = 64
"""Boxes in one integer of bits."""


@dataclass(frozen=True)
class Config:
    """Warps that compare a block of boxes with another, and that follow the bits of all."""

    compare: int = 4
    follow: int = 1


@tuned
def choose(count: int) -> Config:
    """By reasoning, not measured yet."""
    return Config(follow=1 if count <= 32 * WORD else 4)


def can_run(call: NmsCall) -> str | None:
    """None, or why these kernels cannot run `call`."""
    if call.boxes.dtype != torch.float32 or call.scores.dtype != torch.float32:
        return f"boxes are {call.boxes.dtype} and scores {call.scores.dtype}; it needs torch.float32"
    return None


def launch(call: NmsCall) -> Tensor:
    """Indices of the boxes that are kept, best first."""
    order, kept = flags(call)
    return order[kept.bool()]


def flags(call: NmsCall) -> tuple[Tensor, Tensor]:
    """The boxes from the best on, and whether each is kept."""
    order = call.scores.argsort(descending=True, stable=True)
    count = len(order)
    words = triton.cdiv(count, WORD)
    config = choose(count)
    boxes = call.boxes[order].contiguous()
    groups = None if call.groups is None else call.groups[order].contiguous()
    bits = torch.empty((count, words), dtype=torch.int64, device=boxes.device)
    kept = torch.empty(count, dtype=torch.uint8, device=boxes.device)
    run.launch(
        _compare,
        (words, words),
        warps=config.compare,
        boxes=boxes,
        groups=groups,
        bits=bits,
        count=count,
        threshold=float(call.threshold),
        WORD=WORD,
    )
    lanes = run.block(words, 1 << 20)
    run.launch(_follow, (min(count, 1),), warps=config.follow, bits=bits, kept=kept, count=count, words=words,
               LANES=lanes, WORD=WORD)  # fmt: skip
    return order, kept


@triton.jit
def _corners(boxes, i, count):
    inside = i < count
    return (
        tl.load(boxes + 4 * i, mask=inside, other=0.0),
        tl.load(boxes + 4 * i + 1, mask=inside, other=0.0),
        tl.load(boxes + 4 * i + 2, mask=inside, other=0.0),
        tl.load(boxes + 4 * i + 3, mask=inside, other=0.0),
    )


@triton.jit
def _compare(boxes, groups, bits, count, threshold, WORD: tl.constexpr):
    """bits[i, word]: which later boxes of that word box i suppresses."""
    i = tl.program_id(0) * WORD + tl.arange(0, WORD)
    bit = tl.arange(0, WORD)
    j = tl.program_id(1) * WORD + bit
    left, top, right, bottom = _corners(boxes, i, count)
    left2, top2, right2, bottom2 = _corners(boxes, j, count)
    wide = tl.minimum(right[:, None], right2[None, :]) - tl.maximum(left[:, None], left2[None, :])
    high = tl.minimum(bottom[:, None], bottom2[None, :]) - tl.maximum(top[:, None], top2[None, :])
    both = tl.maximum(wide, 0.0) * tl.maximum(high, 0.0)
    area = ((right - left) * (bottom - top))[:, None] + ((right2 - left2) * (bottom2 - top2))[None, :]
    union = area - both
    union = tl.where(union == 0, 1.0, union)
    over = (tl.div_rn(both, union) > threshold) & (j[None, :] > i[:, None]) & (j < count)[None, :]
    if groups is not None:
        own = tl.load(groups + i, mask=i < count, other=-1.0)
        over = over & (own[:, None] == tl.load(groups + j, mask=j < count, other=-2.0)[None, :])
    word = tl.sum(tl.where(over, tl.full((1, 1), 1, tl.int64) << bit[None, :].to(tl.int64), 0), axis=1)
    tl.store(bits + i.to(tl.int64) * tl.num_programs(1) + tl.program_id(1), word, mask=i < count)


@triton.jit
def _follow(bits, kept, count, words, LANES: tl.constexpr, WORD: tl.constexpr):
    """kept[i]: no kept box before suppresses box i."""
    lane = tl.arange(0, LANES)
    gone = tl.zeros((LANES,), tl.int64)
    for i in range(count):
        word = tl.sum(tl.where(lane == i // WORD, gone, 0), axis=0)
        keep = 1 - ((word >> (i % WORD)) & 1)
        row = tl.load(bits + tl.full((), 1, tl.int64) * i * words + lane, mask=lane < words, other=0)
        gone = gone | (row * keep)
        tl.store(kept + i, keep.to(tl.uint8))
