"""grid_sample: the values of an image or volume at the positions of a grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, float32_refusal, out_refusal, result_like, spatial_axes
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op

MODES = ("linear", "nearest")
# In the order of `enum class Outside` in csrc/cpu/grid_sample.h.
PADDINGS = ("zeros", "border", "reflection")


@dataclass(frozen=True)
class GridSampleCall:
    """The checked arguments. grid is channels-last as a view: (N, axes, *out)."""

    x: Tensor
    grid: Tensor
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False
    out: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return (*self.x.shape[:2], *self.grid.shape[2:])


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    mode: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """`x` at the positions `grid`: (N, C, *out); differentiable in both. The values of torch's grid_sample.

    The sampler of spatial transformers (https://arxiv.org/abs/1506.02025).

    Args:
        x: (N, C, *spatial), 2 or 3 spatial axes, floating point.
        grid: (N, *out, axes): positions x, y and z, of which [-1, 1] is the image, in the dtype of `x`.
        mode: "linear" or "nearest".
        padding: what lies outside: "zeros", "border" or "reflection".
        align_corners: whether -1 and 1 are the centers of the first and last pixels, instead of their far edges.
        implementation: "native" (CPU, float32) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    axes = spatial_axes("grid_sample", x)
    if axes < 2 or min(x.shape[2:]) < 1:
        raise InputError(f"grid_sample: x has shape {tuple(x.shape)}: pass 2 or 3 spatial axes with pixels")
    if grid.dim() != x.dim() or len(grid) != len(x) or grid.shape[-1] != axes or grid.dtype != x.dtype:
        raise InputError(
            f"grid_sample: grid is {grid.dtype} of shape {tuple(grid.shape)}: pass {x.dtype} ({len(x)}, *out, {axes})"
        )
    if mode not in MODES or padding not in PADDINGS:
        raise InputError(
            f"grid_sample: mode is {mode!r} and padding {padding!r}: pass one of {', '.join(MODES)}, and one of "
            f"{', '.join(PADDINGS)}"
        )
    result: Tensor = _operator(x, grid.movedim(-1, 1), mode, padding, align_corners, implementation)
    return result


def _refusal(call: GridSampleCall) -> str | None:
    return float32_refusal(call.x, call.grid, call.out) or out_refusal(call.out)


def _run(call: GridSampleCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    _C.grid_sample(
        x=array5(channels_last(call.x)),
        grid=array5(channels_last(call.grid)),
        out=array5(out),
        nearest=call.mode == "nearest",
        align_corners=call.align_corners,
        outside=PADDINGS.index(call.padding),
        nthreads=threads(),
    )
    return out


def _reference(call: GridSampleCall) -> Tensor:
    mode = "bilinear" if call.mode == "linear" else call.mode
    return functional.grid_sample(call.x, call.grid.movedim(1, -1), mode, call.padding, call.align_corners)


OP = Op(
    "grid_sample",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, Tensor grid, str mode, str padding, bool align_corners",
    GridSampleCall,
    result=lambda call: result_like(call.x, call.shape, None),
)
