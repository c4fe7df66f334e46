"""The outputs of sliding-window inference: sums of weighted windows, divided by the sums of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.window_accumulate import channels_are_last, window_accumulate
from fastnets.tiling.importance import Importance
from fastnets.tiling.window_grid import Band, Batch, WindowGrid


class Stitch:
    """One output of the predictor, stitched on `device` in `dtype`.

    The first batch tells its channels, its resolution, its layout, so that later ones are added without a
    copy, and its weights. With `staged`, batches are summed where they are computed, and a band crosses to
    `device` once it is complete.
    """

    def __init__(
        self,
        windows: Tensor,
        importance: Importance,
        grid: WindowGrid,
        images: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        staged: bool,
    ) -> None:
        self._grid = grid
        self._scaled = grid.scaled(windows.shape[2:])
        self._staged = staged
        if staged and self._scaled is not grid:
            raise InputError(
                f"sliding_window_inference: the predictor turns {grid.window} into {tuple(windows.shape[2:])}, "
                "and buffers hold outputs at the resolution of the input only: pass buffer_steps=None"
            )
        self._band: Band | None = None
        self._buffer = windows.new_empty(0, dtype=dtype)
        self._total = _zeros(windows, images, self._scaled.size, dtype, device)
        self._weight = importance.coverage(self._scaled).to(self._total)

    def add(self, windows: Tensor, importance: Importance, batch: Batch) -> None:
        """Add the output (B, C, *window) of a batch."""
        if self._staged and batch.band is not None:
            self._add_to_band(windows, importance, batch.band, batch.places)
            return
        places = self._grid.scale_places(batch.places, windows.shape[2:])
        windows = windows.to(self._total.device)
        window_accumulate(self._total, windows, places, importance.weights, floor=importance.floor)

    def result(self) -> Tensor:
        """(images, C, *size): the weighted mean. Call it once, after the last batch."""
        self._flush()
        return self._total.div_(self._weight)

    def _add_to_band(self, windows: Tensor, importance: Importance, band: Band, places: Tensor) -> None:
        if band != self._band:
            self._flush()
            size = list(self._grid.size)
            size[band.axis] = band.stop - band.start
            self._buffer = _zeros(windows, 1, size, self._total.dtype, windows.device)
            self._band = band
        origin = torch.zeros_like(places[0])
        origin[0], origin[1 + band.axis] = band.image, band.start
        window_accumulate(self._buffer, windows, places - origin, importance.weights, floor=importance.floor)

    def _flush(self) -> None:
        if self._band is None:
            return
        band, self._band = self._band, None
        target = self._total[band.image].narrow(1 + band.axis, band.start, band.stop - band.start)
        target += self._buffer[0].to(self._total.device)


def _zeros(windows: Tensor, images: int, size: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(images, C, *size) in the layout of (B, C, *window)."""
    channels = windows.shape[1]
    if channels_are_last(windows):
        return torch.zeros(images, *size, channels, dtype=dtype, device=device).movedim(-1, 1)
    return torch.zeros(images, channels, *size, dtype=dtype, device=device)
