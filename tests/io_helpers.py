"""What the io tests share: the real inputs, small label maps, and regions that touch every edge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from fastnets.io import ClassInfo, LabelMap, Region

nib: Any = nibabel  # most of its functions carry no types

DATA = Path(__file__).parent / "data"
SLIDE = DATA / "cmu_small_region.svs"
HEAD = DATA / "ch2.nii.gz"
BRAIN = DATA / "ch2bet.nii.gz"
PICTURE = DATA / "histo.jpg"

CLASSES = (
    ClassInfo(0, "background", (0, 0, 0)),
    ClassInfo(1, "tumour", (200, 30, 60)),
    ClassInfo(2, "stroma", (30, 200, 60)),
)


def whole(shape: tuple[int, ...]) -> Region:
    """All of an image."""
    return tuple(slice(0, n) for n in shape)


def sample_regions(shape: tuple[int, ...], count: int = 12) -> Iterator[Region]:
    """Random regions, the four corners' pixels, one empty region and one of a single row."""
    rng = np.random.default_rng(7)
    yield tuple(slice(0, 1) for _ in shape)
    yield tuple(slice(n - 1, n) for n in shape)
    yield tuple(slice(n // 2, n // 2) for n in shape)
    yield (slice(0, 1), *(slice(0, n) for n in shape[1:]))
    for _ in range(count):
        ends = [sorted(int(v) for v in rng.integers(0, n + 1, 2)) for n in shape]
        yield tuple(slice(a, b) for a, b in ends)


def blobs(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """Discs and balls of classes 1 and 2, some with a hole, some over the border."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    out = np.zeros(shape, np.uint8)
    for i in range(14):
        centre = [rng.integers(0, n) for n in shape]
        radius = float(rng.integers(4, max(6, min(shape) // 4)))
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        out[(distance < radius) & (distance > (radius / 2 if i % 3 == 0 else -1))] = 1 + i % 2
    return out


def plane(labels: Any, spacing: tuple[float, float] | None = (0.499, 0.5)) -> LabelMap:
    """A label map of a slide."""
    return LabelMap(labels, "YX", spacing, "µm", CLASSES)
