"""Label maps as GeoJSON polygons that QuPath imports, built block by block."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from shapely.affinity import scale
from shapely.geometry import Polygon

from fastnets.io.atomic import atomic_path
from fastnets.io.labels import block, check_axes, class_of, storage_dtype
from fastnets.io.protocol import LabelMap, Reader

Span = tuple[int, int]
BACKGROUND = 0
# GEOS compares every hole with every other when it simplifies: minutes for the sieve that noise leaves.
_MANY_HOLES = 500


def write_geojson(
    label_map: LabelMap,
    path: Path | str,
    reader: Reader | None = None,
    *,
    object_type: Literal["annotation", "detection"] = "annotation",
    min_area: float = 16.0,
    tolerance: float = 0.5,
    block_size: int = 1024,
) -> None:
    """Writes one feature for every connected polygon of every class but 0, coordinates in level-0 pixels.

    Polygons under `min_area` (square pixels of the labels) are left out; holes are kept. Outlines run half-way between
    pixel centres and are simplified by at most `tolerance` pixels. Memory: a block of `block_size`², and the
    polygons that reach into rows of blocks still to come; finished ones are written at once.
    """
    del reader
    check_axes(label_map, ("YX",), "geojson", "write nifti or ome-zarr for volumes")
    y, x = label_map.level0_scale or (1.0, 1.0)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, polygon in polygons(label_map, block_size):
            if polygon.area < min_area:
                continue
            for part in _simplified(polygon, tolerance):
                placed = scale(part, x, y, origin=(0, 0)) if label_map.level0_scale else part
                file.write(separator + json.dumps(_feature(label_map, value, placed, object_type)))
                separator = ",\n"
        file.write("\n]}\n")


def polygons(label_map: LabelMap, block_size: int = 1024) -> Iterator[tuple[int, Polygon]]:
    """Every connected polygon with its label, whole across blocks, in the order in which they are complete.

    Neighbouring blocks share the pixel centres at their border, so their contours meet there in the same
    points (multiples of 0.5, exact in floating point), and the union leaves no cut.
    """
    height, width = label_map.labels.shape
    waiting: dict[int, list[Polygon]] = defaultdict(list)
    for rows in _spans(height, block_size):
        for columns in _spans(width, block_size):
            for value, shapes in _contours(_padded(label_map, rows, columns), rows[0], columns[0]):
                bounds = shapely.bounds(shapes)
                seam = _reach(bounds, (0, 2), columns, width) | _reach(bounds, (1, 3), rows, height)
                waiting[value].extend(shapes[seam])
                yield from ((value, p) for p in shapes[~seam])
        for value in sorted(waiting):
            merged = shapely.get_parts(shapely.union_all(waiting[value]))
            below = _reach(shapely.bounds(merged), (3,), rows[1:], height)
            waiting[value] = list(merged[below])
            yield from ((value, p) for p in merged[~below])


def _spans(length: int, step: int) -> Iterator[Span]:
    """First and last pixel centre of every block, last of one = first of the next, from -1 to `length`.

    The two centres outside are background, which closes the polygons at the border of the image.
    """
    return pairwise([*range(-1, length, step), length])


def _padded(label_map: LabelMap, rows: Span, columns: Span) -> NDArray[Any]:
    """The labels at the pixel centres of a block, both ends included."""
    spans = (rows, columns)
    shape = label_map.labels.shape
    inside = tuple(slice(max(a, 0), min(b + 1, n)) for (a, b), n in zip(spans, shape, strict=True))
    values = block(label_map, inside, storage_dtype(label_map))
    pads = [(s.start - a, b + 1 - s.stop) for s, (a, b) in zip(inside, spans, strict=True)]
    return np.pad(values, pads, constant_values=BACKGROUND)


def _contours(values: NDArray[Any], top: int, left: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Each label with its polygons, holes included, for a block whose first pixel centre is (top, left).

    They are valid by construction: an edge between two pixel centres is crossed once at most, half-way, so no
    two outlines touch, and ambiguous corners are always cut.
    """
    origin = np.array([left + 0.5, top + 0.5])
    for value in np.unique(values):
        if value == BACKGROUND:
            continue
        inside = (values == value).astype(np.float64)
        filled: Any = contour_generator(z=inside, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
        shapes = []
        for points, offsets in zip(*filled, strict=True):
            outer, *holes = (points[a:b] + origin for a, b in pairwise(offsets))
            shapes.append(Polygon(outer, holes))
        yield int(value), np.array(shapes, dtype=object)


def _reach(bounds: NDArray[Any], sides: Sequence[int], centres: Sequence[int], length: int) -> NDArray[np.bool_]:
    """Which of the (minx, miny, maxx, maxy) have a side on a line that a block shares with another."""
    seams = [c + 0.5 for c in centres if 0 <= c < length]
    reach: NDArray[np.bool_] = np.asarray(np.isin(bounds[:, sides], seams).any(axis=1))
    return reach


def _simplified(polygon: Polygon, tolerance: float) -> Iterator[Polygon]:
    """With fewer points, still valid. A sieve loses only the points on straight lines."""
    sieve = len(polygon.interiors) > _MANY_HOLES
    shape = polygon.simplify(0, preserve_topology=False) if sieve else polygon.simplify(tolerance)
    yield from (p for p in shapely.get_parts(shape) if p.area > 0)


def _feature(label_map: LabelMap, value: int, polygon: Polygon, object_type: str) -> dict[str, Any]:
    info = class_of(label_map, value)
    return {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(polygon),
        "properties": {
            "objectType": object_type,
            "classification": {"name": info.name, "color": list(info.color)},
        },
    }
