"""The small pictures behind an overlay: a reduced slide, or three slices of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastnets.io.labels import block, storage_dtype
from fastnets.io.protocol import LabelMap, Reader

_BAND = 512  # rows of the image that are in memory at once
_SLAB = 16  # planes of the labels that are in memory at once
_WORLD = "XYZ"  # to the patient's right to left, back to front, foot to head: see `_orientation`


@dataclass(frozen=True)
class View:
    """A picture (uint8 RGB, or None without an image) and its labels, on one grid, and the text at its edges."""

    image: NDArray[np.uint8] | None
    labels: NDArray[Any]
    title: str = ""
    left: str = ""
    top: str = ""


def slide_view(label_map: LabelMap, reader: Reader | None, side: int) -> View:
    """The whole plane with at most `side` pixels a side: image by area mean, labels by nearest neighbour."""
    factor = max(1, ceil(max(label_map.labels.shape) / side))
    dtype = storage_dtype(label_map)
    labels = block(label_map, (slice(None, None, factor),) * 2, dtype)
    if reader is None:
        return View(None, labels)
    size = labels.shape
    level = max(i for i, entry in enumerate(reader.levels) if i == 0 or max(entry.shape) >= max(size))
    image = to_rgb([_reduced(reader, level, max(1, max(reader.levels[level].shape) // max(size)))])[0]
    return View(_resized(image, size, Image.Resampling.BILINEAR), labels)


def _reduced(reader: Reader, level: int, factor: int) -> NDArray[Any]:
    """A level averaged over squares of `factor`, band by band."""
    height, width = reader.levels[level].shape
    step = factor * max(1, _BAND // factor)
    bands = []
    for top in range(0, height, step):
        band = reader.read((slice(top, min(top + step, height)), slice(0, width)), level)
        if factor > 1:
            for axis in (0, 1):
                starts = np.arange(0, band.shape[axis], factor)
                counts = np.diff([*starts, band.shape[axis]])
                shape = [-1 if i == axis else 1 for i in range(band.ndim)]
                band = np.add.reduceat(band, starts, axis=axis, dtype=np.float32) / counts.reshape(shape)
            if reader.dtype == np.uint8:
                band = np.rint(band).astype(np.uint8)
        bands.append(band)
    return np.concatenate(bands)


def volume_views(label_map: LabelMap, reader: Reader | None, side: int) -> list[View]:
    """Axial, coronal and sagittal slices through the middle of the labelled region, in true proportions.

    As radiologists hang them: anterior or superior up, the patient's right on the left. Without an affine the
    memory axes are shown as they are, X to the right, the others down.
    """
    centre = _centre(label_map)
    order, signs = _orientation(label_map)
    spacing = label_map.spacing or (1.0, 1.0, 1.0)
    dtype = storage_dtype(label_map)
    scale = side / max(n * s for n, s in zip(label_map.labels.shape, spacing, strict=True))
    known = label_map.affine is not None
    planes = (("axial", 2, 1, 0, "R", "A"), ("coronal", 1, 2, 0, "R", "S"), ("sagittal", 0, 2, 1, "A", "S"))
    names = {"axial": "XY", "coronal": "XZ", "sagittal": "YZ"}
    images, views = [], []
    for title, through, down, across, left, top in planes:
        fixed, row, column = order[through], order[down], order[across]
        at = centre[fixed]
        region = tuple(slice(at, at + 1) if i == fixed else slice(0, n) for i, n in enumerate(label_map.labels.shape))
        size = tuple(max(1, round(label_map.labels.shape[i] * spacing[i] * scale)) for i in (row, column))

        def upright(plane: NDArray[Any], turn: tuple[int, ...] = (row, column, fixed)) -> NDArray[Any]:
            plane = plane.transpose(*turn, *range(3, plane.ndim))[:, :, 0]
            return plane[:: -1 if signs[turn[0]] > 0 else 1, :: -1 if signs[turn[1]] > 0 else 1]

        labels = _resized(upright(block(label_map, region, dtype)), size, Image.Resampling.NEAREST)
        if reader is not None:
            images.append(upright(reader.read(region)))
        views.append(View(None, labels, title, left, top) if known else View(None, labels, f"{names[title]} slice"))
    if reader is None:
        return views
    pictures = to_rgb(images)
    return [
        View(_resized(p, v.labels.shape, Image.Resampling.BILINEAR), v.labels, v.title, v.left, v.top)
        for p, v in zip(pictures, views, strict=True)
    ]


def _centre(label_map: LabelMap) -> list[int]:
    """For each axis the plane that halves the labelled voxels: it always holds some. The middle without any."""
    shape = label_map.labels.shape
    counts = [np.zeros(n, np.int64) for n in shape]
    for start in range(0, shape[0], _SLAB):
        found = np.asarray(label_map.labels[start : start + _SLAB]) > 0
        counts[0][start : start + _SLAB] = found.sum(axis=(1, 2))
        counts[1] += found.sum(axis=(0, 2))
        counts[2] += found.sum(axis=(0, 1))
    if not counts[0].any():
        return [n // 2 for n in shape]
    return [int(np.searchsorted(c.cumsum(), c.sum() / 2)) for c in counts]


def _orientation(label_map: LabelMap) -> tuple[list[int], list[int]]:
    """The memory axis nearest to each world axis (right, anterior, superior), and each memory axis's sign.

    Sign 1: its index grows towards the right, the front or the head, so the view, which starts there, flips it.
    """
    if label_map.affine is None:
        return [label_map.axes.index(a) for a in _WORLD], [-1, -1, -1]
    columns = label_map.affine[:3, :3] / np.linalg.norm(label_map.affine[:3, :3], axis=0)
    choices = list(permutations(range(3)))
    fit = [sum(abs(float(columns[world, axis])) for world, axis in enumerate(c)) for c in choices]
    order = list(choices[int(np.argmax(fit))])
    signs = [1, 1, 1]
    for world, axis in enumerate(order):
        signs[axis] = 1 if columns[world, axis] > 0 else -1
    return order, signs


def to_rgb(images: list[NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """Grey or coloured planes as uint8 RGB. Other types than uint8 share one window, 0.5th to 99.5th percentile."""
    if images[0].dtype != np.uint8:
        values = np.concatenate([i.reshape(-1).astype(np.float64) for i in images])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 1.0)
        width = max(high - low, np.finfo(np.float32).tiny)
        images = [
            np.rint(np.clip((np.nan_to_num(i.astype(np.float64)) - low) / width, 0, 1) * 255).astype(np.uint8)
            for i in images
        ]
    planes = [i[..., None] if i.ndim == 2 else i for i in images]
    # Two channels have no customary colours: show the first.
    return [np.ascontiguousarray(np.repeat(p[..., :1], 3, -1) if p.shape[-1] < 3 else p[..., :3]) for p in planes]


def _resized(plane: NDArray[Any], size: tuple[int, ...], how: Image.Resampling) -> NDArray[Any]:
    if plane.shape[:2] == tuple(size):
        return plane
    if plane.ndim == 2:  # labels: by index, so that any integer type goes
        rows, columns = (((np.arange(m) + 0.5) * n / m).astype(int) for m, n in zip(size, plane.shape, strict=True))
        return np.asarray(plane[np.ix_(rows, columns)])
    return np.asarray(Image.fromarray(plane).resize((size[1], size[0]), how))
