"""nms: exact greedy non-maximum suppression, of all boxes or within groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import float32_refusal
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.layout import threads
from fastnets.ops.library import define
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class NmsCall:
    """The checked arguments. groups: one number a box, in the dtype of the boxes."""

    boxes: Tensor
    scores: Tensor
    threshold: float
    groups: Tensor | None = None


def nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    *,
    groups: Tensor | None = None,
    implementation: str | None = None,
) -> Tensor:
    """Indices (int64) of the boxes that no better kept box of their group overlaps, best first.

    Args:
        boxes: (K, 4) x1, y1, x2, y2, floating point.
        scores: (K,); of equal ones the first box is better.
        threshold: the largest intersection over union that two kept boxes have.
        groups: (K,) the class or image of each box; None takes all boxes together.
        implementation: "native" (CPU, float32), "triton" (GPU) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    count = len(boxes)
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise InputError(f"nms: boxes is {boxes.dtype} of shape {tuple(boxes.shape)}: pass floating point (K, 4)")
    if scores.shape != (count,) or (groups is not None and groups.shape != (count,)):
        given = None if groups is None else tuple(groups.shape)
        raise InputError(f"nms: scores has shape {tuple(scores.shape)} and groups {given}: pass ({count},)")
    # Groups are only compared: their ranks are exact in any dtype.
    ranks = None if groups is None else groups.unique(return_inverse=True)[1].to(boxes.dtype)  # type: ignore[no-untyped-call]
    result: Tensor = _operator(boxes, scores, threshold, ranks, implementation)
    return result


def _refusal(call: NmsCall) -> str | None:
    return float32_refusal(call.boxes, call.scores, call.groups)


def _run(call: NmsCall) -> Tensor:
    best = call.scores.argsort(descending=True, stable=True)
    order = best if call.groups is None else best[call.groups[best].argsort(stable=True)]
    boxes = torch.empty(5, len(order))
    boxes[:4] = call.boxes[order].t()
    boxes[4] = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    if call.groups is None:
        starts = torch.tensor([0, len(order)])
    else:
        sizes = call.groups[order].unique_consecutive(return_counts=True)[1]  # type: ignore[no-untyped-call]
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    dropped = torch.zeros(len(order))
    _C.nms(
        boxes=boxes.numpy(),
        starts=starts.numpy(),
        dropped=dropped.numpy(),
        threshold=call.threshold,
        nthreads=threads(),
    )
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order] = dropped == 0
    return best[kept[best]]


def _reference(call: NmsCall) -> Tensor:
    boxes, kept = call.boxes, []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = call.scores.argsort(descending=True, stable=True)
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low = torch.maximum(boxes[first, :2], boxes[left, :2])
        high = torch.minimum(boxes[first, 2:], boxes[left, 2:])
        both = (high - low).clamp(min=0).prod(dim=1)
        overlaps = both / (area[first] + area[left] - both) > call.threshold
        if call.groups is not None:
            overlaps &= call.groups[left] == call.groups[first]
        left = left[~overlaps]
    return torch.stack(kept) if kept else left


OP = Op(
    "nms",
    _reference,
    (
        Implementation("native", _refusal, _run),
        triton_implementation("nms"),
        Implementation("torch", lambda call: None, _reference),
    ),
)


def _dispatch(
    boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None, implementation: str | None
) -> Tensor:
    result: Tensor = OP(NmsCall(boxes, scores, threshold, groups), implementation)
    return result


def _fake(boxes: Tensor, *_: object) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


_operator = define(
    "nms",
    "(Tensor boxes, Tensor scores, float threshold, Tensor? groups, str? implementation) -> Tensor",
    run=_dispatch,
    fake=_fake,
)
