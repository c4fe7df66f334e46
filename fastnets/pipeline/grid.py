"""The working grid: the pixels that a network sees of an image file, as its recipe wants them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastnets.errors import InputError, MissingDependencyError
from fastnets.io import Reader
from fastnets.models.recipe import DivideByMax, Recipe

# Spacings closer than this are one: scanners' own figures differ by more between two calibrations.
SAME_SPACING = 0.05
# An image this many times coarser than the network's spacing is refused: enlarging it invents what is not there.
COARSEST = 4.0
Crop = tuple[slice, ...]


def spatial_axes(reader: Reader) -> str:
    """The spatial letters of the reader's axes, in memory order."""
    return reader.axes.replace("C", "")


def check_fits(reader: Reader, recipe: Recipe, model: str) -> None:
    """InputError unless the image has the dimensions and channels that the network was made for."""
    axes = spatial_axes(reader)
    if sorted(axes) != sorted(recipe.axes):
        kind = {2: "planes (YX)", 3: "volumes (XYZ)"}
        raise InputError(
            f"{reader.path}: has axes {reader.axes} of shape {reader.shape}, and {model} takes "
            f"{kind[len(recipe.axes)]}: choose another model (`fastnets models` lists them)"
        )
    if recipe.spacing is not None and recipe.size is None:
        spacing = _in_order(reader, recipe, known_spacing(reader))
        if any(s > COARSEST * t for s, t in zip(spacing, recipe.spacing, strict=True)):
            raise InputError(
                f"{reader.path}: a pixel is {max(spacing):g} {reader.unit}, and {model} works at "
                f"{max(recipe.spacing):g}: too coarse to show what it looks for: check the spacing, or scan finer"
            )
    channels = reader.shape[-1] if reader.axes.endswith("C") else 1
    if channels != recipe.channels and (channels, recipe.channels) != (4, 3):
        raise InputError(
            f"{reader.path}: has {channels} channels, and {model} takes {recipe.channels}: "
            f"convert it to {'RGB' if recipe.channels == 3 else 'one channel'}"
        )


def read_channels_first(reader: Reader, region: Crop, level: int, recipe: Recipe) -> NDArray[Any]:
    """(C, *region) with the spatial axes in the recipe's order and alpha left out."""
    order = _order(recipe.axes, spatial_axes(reader))
    values = reader.read(tuple(region[order.index(d)] for d in range(len(order))), level)
    values = np.moveaxis(values, -1, 0)[: recipe.channels] if reader.axes.endswith("C") else values[None]
    return values.transpose(0, *(d + 1 for d in order))


@dataclass(frozen=True)
class StreamedGrid:
    """An image of any size at one of its levels, resampled region by region where no level has the spacing.

    `factor` is the size of a working pixel in pixels of `level`, per axis; 1 where the level is used as it is.
    """

    reader: Reader
    recipe: Recipe
    level: int
    factor: tuple[float, ...]
    shape: tuple[int, ...]
    restore_bytes: int = 0

    @property
    def resampled(self) -> bool:
        return any(f != 1.0 for f in self.factor)

    @property
    def level0_scale(self) -> tuple[float, ...]:
        """Level-0 pixels per working pixel, per axis."""
        down = self.reader.levels[self.level].downsample
        return tuple(d * f for d, f in zip(down, self.factor, strict=True))

    def read(self, crop: Crop) -> torch.Tensor:
        """The network's input for a region of the grid: (C, *crop), normalised float32."""
        values = self._pixels(crop)
        return normalized(values, self.recipe, lambda: self._maximum)

    def _pixels(self, crop: Crop) -> NDArray[Any]:
        if not self.resampled:
            return read_channels_first(self.reader, crop, self.level, self.recipe)
        size = self.reader.levels[self.level].shape
        # Every working pixel sees the same source pixels whatever region it is read with: seams stay away.
        margin = [2 * ceil(f) + 2 for f in self.factor]
        source = tuple(
            slice(max(0, floor(c.start * f) - m), min(n, ceil(c.stop * f) + m))
            for c, f, m, n in zip(crop, self.factor, margin, size, strict=True)
        )
        values = read_channels_first(self.reader, source, self.level, self.recipe)
        return np.stack([self._resized(plane, crop, source) for plane in values])

    def _resized(self, plane: NDArray[Any], crop: Crop, source: Crop) -> NDArray[Any]:
        from PIL import Image

        (y, x), (sy, sx), (fy, fx) = crop, source, self.factor
        box = (x.start * fx - sx.start, y.start * fy - sy.start, x.stop * fx - sx.start, y.stop * fy - sy.start)
        # The last working pixel may reach half a pixel beyond the image: repeat the border, keep the scale.
        beyond = (max(0, ceil(box[3] - plane.shape[0])), max(0, ceil(box[2] - plane.shape[1])))
        plane = np.pad(plane.astype(np.float32), [(0, n) for n in beyond], mode="edge")
        image = Image.fromarray(plane)
        size = (x.stop - x.start, y.stop - y.start)
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))

    @cached_property
    def _maximum(self) -> float:
        """The largest value of the level, block by block."""
        from fastnets.io.labels import regions

        step = (2048,) * 2 if len(self.shape) == 3 else (128,) * 3
        blocks = regions(self.reader.levels[self.level].shape, step)
        return max(float(self.reader.read(block, self.level).max()) for block in blocks)


@dataclass(frozen=True)
class ResizedGrid:
    """A volume that is held in memory on the recipe's own grid; results are resized back to the file's."""

    reader: Reader
    recipe: Recipe
    values: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def restore_bytes(self) -> int:
        """What resizing results back takes: scikit-image holds about four float32 volumes of the file's size."""
        return 16 * prod(self.reader.levels[0].shape)

    def read(self, crop: Crop) -> torch.Tensor:
        return self.values[(slice(None), *crop)]

    def restore(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """One output channel on the grid and in the axis order of the file."""
        axes = spatial_axes(self.reader)
        order = _order(self.recipe.axes, axes)
        back = _resize(plane, tuple(self.reader.levels[0].shape[d] for d in order))
        return back.transpose(np.argsort(order))


def _order(wanted: str, axes: str) -> list[int]:
    """Positions in `axes` of the letters of `wanted`."""
    return [axes.index(a) for a in wanted]


def make_grid(reader: Reader, recipe: Recipe, model: str) -> StreamedGrid | ResizedGrid:
    """The working grid of an image. InputError where its spacing is needed and unknown, or its shape does not fit."""
    check_fits(reader, recipe, model)
    size = recipe.size
    if size is None and recipe.spacing is not None and len(recipe.axes) == 3:
        size = _size_at(reader, recipe)
    if size is not None:
        full = tuple(slice(0, n) for n in _in_order(reader, recipe, reader.levels[0].shape))
        volume = read_channels_first(reader, full, 0, recipe)
        resized = np.stack([_resize(plane.astype(np.float32), size) for plane in volume])
        return ResizedGrid(reader, recipe, normalized(resized, recipe, lambda: float(resized.max())))
    level, factor = _level_for(reader, recipe)
    shape = tuple(max(1, round(n / f)) for n, f in zip(reader.levels[level].shape, factor, strict=True))
    return StreamedGrid(reader, recipe, level, factor, (recipe.channels, *_in_order(reader, recipe, shape)))


def _in_order(reader: Reader, recipe: Recipe, values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(values[d] for d in _order(recipe.axes, spatial_axes(reader)))


def known_spacing(reader: Reader) -> tuple[float, ...]:
    """The spacing of the file. InputError with the tags that were tried where it has none."""
    if reader.spacing is None:
        option = "--mpp" if reader.unit == "µm" else "--spacing"
        raise InputError(
            f"{reader.path}: does not say how large a pixel is (tried {', '.join(reader.spacing_tags)}): "
            f"give it with {option}, in {reader.unit}"
        )
    return reader.spacing


def _size_at(reader: Reader, recipe: Recipe) -> tuple[int, ...]:
    assert recipe.spacing is not None
    spacing = _in_order(reader, recipe, known_spacing(reader))
    shape = _in_order(reader, recipe, reader.levels[0].shape)
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, recipe.spacing, strict=True))


def _level_for(reader: Reader, recipe: Recipe) -> tuple[int, tuple[float, ...]]:
    """The coarsest level that is not coarser than the recipe's spacing, and what is left to resample."""
    axes = len(recipe.axes)
    if recipe.spacing is None:
        return 0, (1.0,) * axes
    spacing = known_spacing(reader)
    best = 0, tuple(t / s for t, s in zip(recipe.spacing, spacing, strict=True))
    for index, level in enumerate(reader.levels):
        factor = tuple(t / (s * d) for t, s, d in zip(recipe.spacing, spacing, level.downsample, strict=True))
        if min(factor) >= 1 - SAME_SPACING:
            best = index, factor
    if all(abs(f - 1) <= SAME_SPACING for f in best[1]):
        return best[0], (1.0,) * axes
    return best


def normalized(values: NDArray[Any], recipe: Recipe, maximum: Any) -> torch.Tensor:
    """Float32 on the scale that the network was trained on. `maximum()` is asked for only where needed."""
    result = values.astype(np.float32)
    if isinstance(recipe.normalize, DivideByMax):
        top = maximum()
        return torch.from_numpy(result / top if top else result)
    column = (-1,) + (1,) * (result.ndim - 1)
    mean, std = (np.asarray(v, np.float32).reshape(column) for v in (recipe.normalize.mean, recipe.normalize.std))
    return torch.from_numpy((result - mean) / std)


def _resize(volume: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        from skimage.transform import resize
    except ImportError as error:
        raise MissingDependencyError("resizing a volume needs scikit-image: pip install 'fastnets[volume]'") from error

    transform: Any = resize  # untyped
    result: NDArray[np.float32] = transform(volume, size, anti_aliasing=True, preserve_range=True)
    return result.astype(np.float32, copy=False)
