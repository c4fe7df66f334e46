"""Where the results of a run wait until an image is finished, and how a network's outputs become labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io import LabelMap
from fastnets.models.recipe import Recipe
from fastnets.tiling.infer import best_channel

from .grid import ResizedGrid, StreamedGrid, spatial_axes

STORE_CHUNK = 512  # the writers read bands of 512 rows


class Store:
    """Where finished regions go: labels on disk for a streamed image, probabilities in memory for a resized one."""

    def __init__(
        self,
        folder: Path,
        grid: StreamedGrid | ResizedGrid,
        recipe: Recipe,
        shape: tuple[int, ...],
        counts: NDArray[np.int64],
    ) -> None:
        self.grid, self.recipe, self.counts = grid, recipe, counts
        self.probabilities: NDArray[np.float32] | None = None
        self.shape = shape
        if isinstance(grid, StreamedGrid):
            if shape != grid.shape[1:]:
                raise InputError(
                    f"the model turns {grid.shape[1:]} pixels into {shape}: predict needs one label a pixel"
                )
            chunk = STORE_CHUNK if len(shape) == 2 else 64
            self.labels: Any = zarr.create_array(
                store=folder / "labels.zarr", shape=shape, chunks=(chunk,) * len(shape), dtype="uint8"
            )

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        values = activated(values, self.recipe)
        return values if isinstance(self.grid, ResizedGrid) else labelled(values, self.recipe)

    def save(self, region: tuple[slice, ...], values: torch.Tensor) -> None:
        array = values[0].numpy()
        if isinstance(self.grid, StreamedGrid):
            self.labels[region] = array
            self._count(array)
            return
        if self.probabilities is None:
            self.probabilities = np.empty((array.shape[0], *self.shape), np.float32)
        self.probabilities[(slice(None), *region)] = array

    def _count(self, labels: NDArray[Any]) -> None:
        self.counts += np.bincount(labels.ravel(), minlength=self.counts.size)

    def label_map(self, model: str) -> LabelMap:
        """The finished result, on the file's own grid for a resized volume, on the working grid else."""
        reader, grid = self.grid.reader, self.grid
        axes = spatial_axes(reader)
        scale = (1.0,) * len(axes)
        if isinstance(grid, ResizedGrid):
            assert self.probabilities is not None
            planes = [torch.from_numpy(grid.restore(plane)) for plane in self.probabilities]
            labels: Any = labelled(torch.stack(planes)[None], self.recipe)[0].numpy()
            self._count(labels)
        else:
            labels, scale = self.labels, grid.level0_scale
        spacing = reader.spacing and tuple(s * f for s, f in zip(reader.spacing, scale, strict=True))
        return LabelMap(
            labels=labels,
            axes=axes,
            spacing=spacing,
            unit=reader.unit,
            classes=self.recipe.classes,
            affine=reader.affine,
            level0_scale=scale,
        )


def activated(values: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Probabilities (1, C, *region) from what the network returns."""
    if recipe.activation == "sigmoid":
        return values.sigmoid()
    return values.softmax(1) if recipe.activation == "softmax" else values


def labelled(probabilities: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Labels (1, *region) uint8 from probabilities (1, C, *region)."""
    if recipe.threshold is not None:
        return (probabilities[:, 0] > recipe.threshold).to(torch.uint8)
    return best_channel(probabilities)
