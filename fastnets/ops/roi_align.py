"""roi_align: averages of bilinear samples over the bins of boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, float32_refusal, out_refusal, per_axis, result_like, spatial_axes
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class RoiAlignCall:
    """The checked arguments. samples 0: as many in each bin as it has pixels, rounded up."""

    x: Tensor
    boxes: Tensor
    size: tuple[int, ...]
    scale: float = 1.0
    samples: int = 0
    aligned: bool = False
    out: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return (len(self.boxes), self.x.shape[1], *self.size)


def roi_align(
    x: Tensor,
    boxes: Tensor,
    size: int | Sequence[int],
    *,
    scale: float = 1.0,
    samples: int = 0,
    aligned: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """The features of each box at the resolution `size`: (K, C, *size); differentiable in `x`.

    RoIAlign of Mask R-CNN (https://arxiv.org/abs/1703.06870), with the values of torchvision.ops.roi_align.

    Args:
        x: (N, C, y, x), floating point.
        boxes: (K, 5) the image and x1, y1, x2, y2, in the dtype of `x`.
        size: bins along y and x.
        scale: from the coordinates of the boxes to pixels of `x`.
        samples: along each axis of a bin; 0 or less takes one a pixel, rounded up.
        aligned: whether the centers of pixels lie at half-integers, as they should; False is the older way.
        implementation: "native" (CPU, float32), "triton" (GPU) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    if spatial_axes("roi_align", x) != 2 or min(x.shape[2:]) < 1:
        raise InputError(f"roi_align: x has shape {tuple(x.shape)}: pass (N, C, y, x) with pixels")
    if boxes.dim() != 2 or boxes.shape[1] != 5 or boxes.dtype != x.dtype:
        raise InputError(f"roi_align: boxes is {boxes.dtype} of shape {tuple(boxes.shape)}: pass {x.dtype} (K, 5)")
    sizes = per_axis("roi_align", "size", size, 2, 1)
    result: Tensor = _operator(x, boxes, list(sizes), scale, max(samples, 0), aligned, implementation)
    return result


def _refusal(call: RoiAlignCall) -> str | None:
    return float32_refusal(call.x, call.boxes, call.out) or out_refusal(call.out)


def _run(call: RoiAlignCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    _C.roi_align(
        x=array5(channels_last(call.x)),
        boxes=call.boxes.detach().contiguous().numpy(),
        out=array5(out),
        scale=call.scale,
        samples=call.samples,
        aligned=call.aligned,
        nthreads=threads(),
    )
    return out


def _reference(call: RoiAlignCall) -> Tensor:
    bins = [_one_box(call, call.x[int(image)], box) for image, *box in call.boxes.tolist()]
    return torch.stack(bins) if bins else call.x.new_empty(call.shape)


def _one_box(call: RoiAlignCall, image: Tensor, box: list[float]) -> Tensor:
    """(C, *size) of one box: samples along y, then along x, are products with matrices (positions, pixels)."""
    matrices = []
    for axis in (1, 0):  # y, x
        first, last = (v * call.scale - 0.5 * call.aligned for v in (box[axis], box[2 + axis]))
        length = last - first if call.aligned else max(last - first, 1.0)
        bins = call.size[1 - axis]
        count = call.samples or max(math.ceil(length / bins), 0)
        steps = torch.arange(bins * count, dtype=torch.float64)
        positions = first + (steps + 0.5) * length / max(bins * count, 1)
        weights = _weights(positions, image.shape[2 - axis]).to(image.dtype)
        matrices.append(weights.view(bins, count, -1).sum(1) / max(count, 1))
    rows, columns = matrices
    return rows @ image @ columns.t()


def _weights(positions: Tensor, size: int) -> Tensor:
    """(positions, size): linear interpolation; 0 farther than one pixel outside."""
    inside = (positions >= -1) & (positions <= size)
    at = positions.clamp(0, size - 1)
    low = at.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    matrix = torch.zeros(len(positions), size, dtype=torch.float64)
    numbers = torch.arange(len(positions))
    matrix[numbers, low] += 1 - (at - low)
    matrix[numbers, high] += at - low
    return matrix * inside[:, None]


OP = Op(
    "roi_align",
    _reference,
    (
        Implementation("native", _refusal, _run),
        triton_implementation("roi_align"),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


# Boxes are numbers to the reference: like torchvision's, it has no gradient for them.
_operator = register(
    OP,
    "Tensor x, Tensor boxes, int[] size, float scale, int samples, bool aligned",
    RoiAlignCall,
    result=lambda call: result_like(call.x, call.shape, None),
)
