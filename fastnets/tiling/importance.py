"""How much each position of a window counts where windows overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.window_accumulate import Weights, outer_product
from fastnets.tiling.window_grid import WindowGrid

LEAST_WEIGHT = 1e-3  # no position may count for nothing: MONAI's floor


@dataclass(frozen=True, eq=False)
class Importance:
    """The weights of a window: one float32 vector an axis, whose product is at least `floor`, or dense."""

    weights: Weights
    floor: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial size of the window."""
        return tuple(self.weights.shape if isinstance(self.weights, Tensor) else map(len, self.weights))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """(*window): the weight of every position."""
        if isinstance(self.weights, Tensor):
            return self.weights.to(dtype)
        return outer_product(self.weights).clamp(min=self.floor).to(dtype)

    def resized(self, shape: Sequence[int]) -> Importance:
        """The weights of a window of `shape`: for outputs at another resolution, by nearest neighbour."""
        if self.shape == tuple(shape):
            return self
        if isinstance(self.weights, Tensor):
            return Importance(_nearest(self.weights, shape), self.floor)
        vectors = [_nearest(w, (size,)) for w, size in zip(self.weights, shape, strict=True)]
        return Importance(vectors, self.floor)

    def coverage(self, grid: WindowGrid) -> Tensor:
        """(*size): the sum of the weights over all windows of an image.

        float32, or the dtype of dense weights if that is wider. Windows lie on a grid, so the axes are taken one
        after the other: the last addition is the only one of the size of the image.
        """
        axes = list(zip(grid.size, grid.axis_starts, strict=True))
        if not isinstance(self.weights, Tensor) and _least_product(self.weights) >= self.floor:  # nothing is raised
            vectors = zip(self.weights, axes, strict=True)
            return outer_product([_spread(vector, 0, *axis) for vector, axis in vectors])
        one = self.weights if isinstance(self.weights, Tensor) else self.weights[0]
        total = self.dense(torch.promote_types(one.dtype, torch.float32))
        for axis in reversed(range(len(axes))):
            total = _spread(total, axis, *axes[axis])
        return total


def make_importance(
    window: Sequence[int], mode: str, sigma_scale: float | Sequence[float], device: torch.device
) -> Importance:
    """The weights of MONAI's `compute_importance_map`, as vectors.

    Args:
        window: spatial size.
        mode: "constant", or "gaussian" with its centre in the middle of the window.
        sigma_scale: standard deviation over size, for all axes or one an axis.
        device: of the vectors.

    Raises:
        InputError: an unknown mode, or a sequence `sigma_scale` of another length.
    """
    if mode == "constant":
        vectors = [torch.ones(size, device=device) for size in window]
    elif mode == "gaussian":
        scales = per_axis("sigma_scale", sigma_scale, len(window))
        vectors = [_gaussian(size, size * s, device) for size, s in zip(window, scales, strict=True)]
    else:
        raise InputError(f"sliding_window_inference: mode is {mode!r}: pass 'constant' or 'gaussian'")
    return Importance(vectors, max(_least_product(vectors), LEAST_WEIGHT))


def per_axis(name: str, value: float | Sequence[float], axes: int) -> tuple[float, ...]:
    """`value` for each axis: repeated where it is one number."""
    values = (value,) * axes if isinstance(value, int | float) else tuple(value)
    if len(values) != axes:
        raise InputError(
            f"sliding_window_inference: {name} has {len(values)} entries, {values}: pass one number, or {axes}"
        )
    return values


def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    x = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2
    return torch.exp(x**2 / (-2 * sigma**2))


def _least_product(vectors: Sequence[Tensor]) -> float:
    return float(outer_product([vector.min().reshape(1) for vector in vectors]))


def _spread(weights: Tensor, axis: int, size: int, starts: Sequence[int]) -> Tensor:
    """The sum of `weights` at each of `starts` along `axis`, which becomes `size` long."""
    shape = [*weights.shape[:axis], size, *weights.shape[axis + 1 :]]
    total = weights.new_zeros(shape)
    for start in starts:
        total.narrow(axis, start, weights.shape[axis]).add_(weights)
    return total


def _nearest(weights: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(weights[None, None], tuple(shape), mode="nearest-exact")[0, 0]
