"""Maps over the pictures that they explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastnets.errors import InputError

# From no evidence to most: dark blue, blue, green, yellow, red.
_STOPS = np.linspace(0, 1, 5)
_COLORS = np.array([(20, 20, 90), (0, 120, 230), (40, 190, 110), (250, 220, 40), (220, 30, 30)], np.float64)


def overlay(
    image: NDArray[np.uint8] | Image.Image, heat: Tensor | NDArray[np.floating], *, opacity: float = 0.5
) -> Image.Image:
    """The image (H, W, 3) or (H, W) tinted by a map (h, w) of any size: blue is nothing, red the strongest.

    Negative evidence counts as none. For a slice of a volume pass the slices of both.

    Raises InputError for a map with other than two axes.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture = picture.convert("RGB")
    values = np.asarray(heat, np.float64)
    if values.ndim != 2:
        raise InputError(f"overlay: the map has shape {values.shape}: pass (h, w), a single image's or slice's")
    values = values.clip(0)
    values /= max(float(values.max()), 1e-30)
    smooth = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    strength = np.asarray(smooth, np.float64)
    tint = np.stack([np.interp(strength, _STOPS, _COLORS[:, channel]) for channel in range(3)], -1)
    mixed = (1 - opacity) * np.asarray(picture, np.float64) + opacity * tint
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def beside(*pictures: Image.Image, gap: int = 8) -> Image.Image:
    """Pictures of one height in a row."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        row.paste(picture.convert("RGB"), (x, 0))
        x += picture.width + gap
    return row
