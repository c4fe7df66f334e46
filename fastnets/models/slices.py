"""2D networks on volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastnets.errors import InputError


class SliceBySlice(nn.Module):
    """A 2D network over every slice of a volume: (N, C, D, H, W) → (N, K, D, H, W), or (N, K) for a classifier.

    model: takes (slices, C, rows, columns); returns values for every pixel, or for every slice.
    axes: along which to slice: 0 is D, 1 is H, 2 is W. With several, the results are averaged.
    batch: slices at a time.

    A classifier's result is the mean over slices. Raises InputError for other axes and inputs, and where a network
    for pixels changes the size of its image.
    """

    def __init__(self, model: nn.Module, axes: Sequence[int] = (0,), *, batch: int = 8) -> None:
        super().__init__()
        if not axes or not set(axes) <= {0, 1, 2} or len(set(axes)) < len(axes):
            raise InputError(f"SliceBySlice: axes={tuple(axes)}: pass one or more of 0 (D), 1 (H) and 2 (W), each once")
        if batch < 1:
            raise InputError(f"SliceBySlice: batch={batch}: pass 1 or more")
        self.model, self.axes, self.batch = model, tuple(axes), batch

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise InputError(f"SliceBySlice: the input has shape {tuple(x.shape)}: pass (N, C, D, H, W)")
        results = [self._along(x, axis) for axis in self.axes]
        return torch.stack(results).mean(0) if len(results) > 1 else results[0]

    def _along(self, x: Tensor, axis: int) -> Tensor:
        slices = x.movedim(2 + axis, 1).flatten(0, 1)
        parts = torch.cat([self.model(part) for part in torch.split(slices, self.batch)])
        out = parts.reshape(len(x), -1, *parts.shape[1:])
        if out.ndim == 3:
            return out.mean(1)
        if out.shape[3:] != slices.shape[2:]:
            raise InputError(
                f"SliceBySlice: the network makes {tuple(out.shape[3:])} of slices of {tuple(slices.shape[2:])}: "
                "it must keep their size, or give one result a slice"
            )
        return out.movedim(1, 2 + axis)
