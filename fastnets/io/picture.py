"""PNG and JPEG, through Pillow."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastnets.errors import InputError
from fastnets.io.base import BaseReader, check_file, pyramid
from fastnets.io.protocol import Region
from fastnets.io.spacing import Override, from_density, plausible, resolve

_TAG = "dpi (PNG pHYs, JPEG JFIF or EXIF)"
_GREY = {"1", "L", "I;16", "I;16B", "I;16L", "I", "F"}


class PictureReader(BaseReader):
    """Grey (YX) or RGB (YXC) of a picture, as stored: EXIF rotation is not applied.

    These formats have no regions, so the first read decodes the whole picture and keeps it. Transparent
    parts are laid on white; palettes become RGB. A print density is no spacing: see `spacing.plausible`.
    """

    format = "picture"

    def __init__(self, path: Path, *, spacing: Override = None) -> None:
        check_file(path)
        self.path = path
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None
        try:
            with _trusted(path) as image:
                self._mode, (width, height), dpi = image.mode, image.size, image.info.get("dpi")
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: is not a picture or is damaged: {reason}: check the file") from error
        grey = self._mode in _GREY
        self.axes = "YX" if grey else "YXC"
        self.levels = pyramid([(height, width)])
        self.shape = (height, width) if grey else (height, width, 3)
        wide = {"I": np.int32, "F": np.float32}.get(self._mode, np.uint16 if "16" in self._mode else np.uint8)
        self.dtype = np.dtype(wide)
        self.unit = "µm"
        self.spacing_tags = (_TAG,)
        known = None if dpi is None else [from_density(float(v), "inch") for v in reversed(dpi)]
        if known is not None and not plausible(known):
            known = None
        self.spacing = resolve(path, known, spacing, axes="YX", tags=_TAG, option="--mpp")

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """Pixels of a region: (rows, columns) or (rows, columns, 3)."""
        (y0, y1), (x0, x1) = self._bounds(region, level)
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
        return self._pixels[y0:y1, x0:x1].copy()

    def _decode(self) -> NDArray[Any]:
        try:
            with _trusted(self.path) as image:
                if self._mode in _GREY:
                    return np.asarray(image.convert("L") if self._mode == "1" else image).astype(self.dtype)
                if image.has_transparency_data:
                    white = Image.new("RGBA", image.size, "white")
                    image = Image.alpha_composite(white, image.convert("RGBA"))
                return np.asarray(image.convert("RGB"))
        except Exception as error:
            raise self._damaged("decode it", error) from error

    def close(self) -> None:
        self._pixels = None


def _trusted(path: Path) -> Image.Image:
    """Opens with Pillow's warning about large pictures off: the user named the file; its error stays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)
