"""How a network is fed and read, as data: what `predict` does around a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastnets.io.protocol import ClassInfo, Unit


@dataclass(frozen=True)
class DivideByMax:
    """x / max(x), the maximum taken over the whole image on the working grid; an all-zero image stays zero."""


@dataclass(frozen=True)
class MeanStd:
    """(x − mean) / std for every channel, x on the 0..255 scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The steps between an image file and the input of a network, and between its output and a label map.

    axes: the order in which the network wants the spatial axes. Volumes of NIfTI files are "XYZ" in memory.
    channels: 1, or 3 for RGB.
    spacing: working resolution along `axes` in `unit`; None keeps the resolution of the file.
    size: working grid along `axes`: the image is resized to it, linearly after an anti-aliasing Gaussian
        (scikit-image `resize(anti_aliasing=True)`), and the output is resized back. None for a network
        that runs at `spacing` over an image of any size. One of `spacing` and `size` is None.
    normalize: applied on the working grid, after the resize.
    activation: applied to the output of the network, which may already end in one ("none").
    classes: what the values of the label map mean, 0 included.
    threshold: of a one-channel probability, above which a pixel is class 1; None takes the argmax over channels.
    description, caution: shown to users, the caution before every use.
    """

    axes: Literal["YX", "ZYX", "XYZ"]
    channels: Literal[1, 3]
    normalize: DivideByMax | MeanStd
    classes: tuple[ClassInfo, ...]
    description: str
    caution: str
    unit: Unit
    spacing: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    threshold: float | None = None
