"""Label maps as pyramidal OME-TIFF that QuPath, Bio-Formats, tifffile and OpenSlide all open as a pyramid."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffWriter

from fastnets.io.atomic import atomic_path
from fastnets.io.labels import block, check_axes, regions, storage_dtype
from fastnets.io.protocol import LabelMap, Reader
from fastnets.io.spacing import MICROMETRES

TILE = 512
_BIG_TIFF_FROM = 2 << 30  # uncompressed bytes; classic TIFF ends at 4 GiB, and the pyramid adds a third
_REDUCED = 1  # NewSubfileType

Fetch = Callable[[int, int], NDArray[Any]]


def write_ome_tiff(label_map: LabelMap, path: Path | str, reader: Reader | None = None) -> None:
    """Writes 2D labels (YX) as tiles of 512, deflated, each level half of the one above by nearest neighbour.

    Values are stored as they are, in one grey channel: every reader, OpenSlide included (as R = G = B), gives
    back the labels, at the price that a plain viewer shows them nearly black. Classes are listed in the
    OME-XML. Memory: two bands of 512 rows; the smaller levels wait in an unnamed file beside the output.
    Labels on disk are read in bands of 512 rows, so chunks of 512 rows are read once.
    """
    del reader  # everything needed is in the label map
    check_axes(label_map, ("YX",), "ome-tiff", "write nifti or ome-zarr for volumes")
    dtype = storage_dtype(label_map)
    shapes = level_shapes(label_map.labels.shape)
    big = int(np.prod(shapes[0])) * dtype.itemsize > _BIG_TIFF_FROM
    with atomic_path(path) as partial, ExitStack() as stack:
        levels = [
            _Scratch(stack.enter_context(tempfile.TemporaryFile(dir=partial.parent)), shape[1], dtype)
            for shape in shapes[1:]
        ]
        with TiffWriter(partial, bigtiff=big, ome=True) as writer:
            for i, shape in enumerate(shapes):
                smaller = levels[i] if i < len(levels) else None
                fetch = _from_labels(label_map, dtype) if i == 0 else levels[i - 1].read
                writer.write(
                    _tiles(fetch, shape, smaller),
                    shape=shape,
                    dtype=dtype,
                    tile=(TILE, TILE),
                    compression="zlib",
                    photometric="minisblack",
                    subifds=len(levels) if i == 0 else None,
                    subfiletype=_REDUCED if i else 0,
                    metadata=_ome(label_map) if i == 0 else None,
                    **_resolution(label_map, shapes[0], shape),
                )
        _chain_levels(partial)


def level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shape and its halves (rounded up), down to one tile."""
    shapes = [tuple(shape)]
    while max(shapes[-1]) > TILE:
        shapes.append(tuple((n + 1) // 2 for n in shapes[-1]))
    return shapes


def _from_labels(label_map: LabelMap, dtype: np.dtype[Any]) -> Fetch:
    width = label_map.labels.shape[1]
    return lambda start, stop: block(label_map, (slice(start, stop), slice(0, width)), dtype)


class _Scratch:
    """Rows of a smaller level on disk until their turn comes. Not a memory map: its pages would count as ours."""

    def __init__(self, file: IO[bytes], width: int, dtype: np.dtype[Any]) -> None:
        self._file, self._width, self._dtype = file, width, dtype
        self._line = width * dtype.itemsize

    def write(self, start: int, rows: NDArray[Any]) -> None:
        self._file.seek(start * self._line)
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        self._file.seek(start * self._line)
        data = self._file.read((stop - start) * self._line)
        return np.frombuffer(data, self._dtype).reshape(stop - start, self._width)


def _tiles(fetch: Fetch, shape: tuple[int, ...], smaller: _Scratch | None) -> Iterator[NDArray[Any]]:
    """The tiles of a level in file order, filling the next level on the way; tifffile pads those at the edge."""
    for rows, _ in regions((shape[0], 1), (TILE, 1)):
        band = fetch(rows.start, rows.stop)
        if smaller is not None:  # TILE is even, so every second row and column stays so across bands
            smaller.write(rows.start // 2, band[::2, ::2])
        for column in range(0, shape[1], TILE):
            yield band[:, column : column + TILE]


def _micrometres(label_map: LabelMap) -> tuple[float, float] | None:
    if label_map.spacing is None:
        return None
    y, x = (v * MICROMETRES[label_map.unit] for v in label_map.spacing)
    return y, x


def _resolution(label_map: LabelMap, full: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    """Pixels a centimetre: OpenSlide takes openslide.mpp-x and -y from these tags, not from the OME-XML."""
    spacing = _micrometres(label_map)
    if spacing is None:
        return {}
    y, x = (MICROMETRES["cm"] / v * n / m for v, n, m in zip(spacing, shape, full, strict=True))
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _ome(label_map: LabelMap) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "YX", "Channel": {"Name": ["labels"]}}
    if label_map.classes:
        names = {str(c.value): f"{c.name} rgb{c.color}" for c in label_map.classes}
        metadata["MapAnnotation"] = {"Namespace": "fastnets/classes", **names}
    spacing = _micrometres(label_map)
    if spacing is not None:
        for axis, value in zip("YX", spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": value, f"PhysicalSize{axis}Unit": "µm"}
    return metadata


def _chain_levels(path: Path) -> None:
    """Links the reduced images, which are SubIFDs of the first page, into the chain of pages as well.

    OME readers find levels in SubIFDs; OpenSlide's generic TIFF only in the chain. Pointing at the same
    directories from both serves all of them without a second copy: OME readers skip reduced pages there.
    """
    with TiffFile(path) as file:
        first = file.pages.first
        order, big = file.byteorder, file.is_bigtiff
        offsets = [first.offset, *(first.subifds or ())]
    count_format, tag_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    with path.open("r+b") as file:
        for here, following in pairwise(offsets):
            file.seek(here)
            size = struct.calcsize(count_format)
            (count,) = struct.unpack(order + count_format, file.read(size))
            file.seek(here + size + count * tag_bytes)
            file.write(struct.pack(order + offset_format, following))
