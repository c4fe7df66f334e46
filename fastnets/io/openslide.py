"""Whole slides through OpenSlide: Hamamatsu, MIRAX, Leica, Ventana, Aperio and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io.base import BaseReader, check_file, pyramid
from fastnets.io.protocol import Region
from fastnets.io.spacing import Override, resolve

_TAGS = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)


class OpenSlideReader(BaseReader):
    """The levels of a slide as RGB (YXC, uint8). Safe to read from threads.

    Where the scanner has no pixels, the slide's background colour, or white, is given. OpenSlide places a
    region by level-0 coordinates: above level 0, where the downsampling is not a whole number, it resamples
    by the remaining fraction of a pixel, so the same pixel read in two regions may differ a little.
    """

    format = "openslide"

    def __init__(self, path: Path, *, spacing: Override = None) -> None:
        check_file(path)
        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: OpenSlide cannot open it: {reason}: check the file") from error
        properties = self._slide.properties
        self.axes = "YXC"
        self.levels = pyramid([(h, w) for w, h in self._slide.level_dimensions])
        self.shape = (*self.levels[0].shape, 3)
        self.dtype = np.dtype(np.uint8)
        self.unit = "µm"
        self.spacing_tags = _TAGS
        background = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        self._background = np.array(list(bytes.fromhex(background)), np.uint16)
        x, y = (properties.get(tag) for tag in _TAGS)
        known = None if x is None or y is None else (float(y), float(x))
        try:
            self.spacing = resolve(path, known, spacing, axes="YX", tags="/".join(_TAGS), option="--mpp")
        except InputError:
            self.close()
            raise

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """RGB of a region of a level, shape (rows, columns, 3)."""
        (y0, y1), (x0, x1) = self._bounds(region, level)
        if y0 == y1 or x0 == x1:
            return np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        factor = self._slide.level_downsamples[level]
        try:
            location = (round(x0 * factor), round(y0 * factor))
            rgba = np.asarray(self._slide.read_region(location, level, (x1 - x0, y1 - y0)))
        except Exception as error:
            raise self._damaged(f"decode rows {(y0, y1)} of level {level}", error) from error
        rgb = rgba[..., :3]
        alpha = rgba[..., 3:].astype(np.uint16)
        if alpha.min() == 255:
            return np.ascontiguousarray(rgb)
        return ((rgb * alpha + self._background * (255 - alpha) + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        self._slide.close()
