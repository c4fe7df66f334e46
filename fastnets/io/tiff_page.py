"""Regions of one TIFF page, decoding only the tiles or strips that they touch."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFrame, TiffPage

ReadBytes = Callable[[int, int], bytes]
Decoded = tuple[NDArray[Any] | None, tuple[int, int]]

_SEPARATE = 2  # PlanarConfiguration: one plane of segments a sample
_CACHE_BYTES = 64 << 20


class SegmentCache:
    """The decoded segments used last: neighbouring regions share those at their border, and whole strips.

    Bounded to 64 MiB, or to one segment where that is larger (a page stored as a single compressed strip).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, Decoded] = OrderedDict()
        self._bytes = 0
        self.decode_seconds = 0.0

    def get(self, key: Hashable, make: Callable[[], Decoded]) -> Decoded:
        """The item, made outside the lock, so that threads decode in parallel (a race costs a decode)."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        item = make()
        with self._lock:
            if key not in self._items:
                self._items[key] = item
                self._bytes += _size(item)
                while self._bytes > _CACHE_BYTES and len(self._items) > 1:
                    self._bytes -= _size(self._items.popitem(last=False)[1])
        return item


def _size(item: Decoded) -> int:
    return 0 if item[0] is None else item[0].nbytes


class PageRegions:
    """Random access to a page. `read_bytes(offset, count)` must be safe to call from several threads."""

    def __init__(self, page: TiffPage | TiffFrame, read_bytes: ReadBytes, cache: SegmentCache) -> None:
        key = page.keyframe
        if key is None or key.dtype is None:
            raise ValueError("a page without an image type")
        self._page, self._key, self._read_bytes, self._cache = page, key, read_bytes, cache
        self.dtype = key.dtype
        self.shape = (key.imagelength, key.imagewidth)
        self.samples = key.samplesperpixel
        self._size = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        self._grid = tuple(ceil(n / s) for n, s in zip(self.shape, self._size, strict=True))
        self._planes = self.samples if key.planarconfig == _SEPARATE else 1
        self._decode = key.decode  # built on first access: do it before threads come
        self._tables = {}
        if key.compression in (6, 7, 34892, 33007):  # JPEG flavours share tables between segments
            self._tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        plain = key.compression == 1 and key.predictor == 1 and key.fillorder == 1 and not key.is_tiled
        self._raw = plain and key.bitspersample in (8, 16, 32, 64)

    def segment_ends(self) -> int:
        """The last byte of the file that the page's data needs."""
        return max((o + n for o, n in zip(self._page.dataoffsets, self._page.databytecounts, strict=True)), default=0)

    def segment_count_missing(self) -> int:
        """How many tiles or strips the page lists too few."""
        return max(0, self._planes * self._grid[0] * self._grid[1] - len(self._page.dataoffsets))

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Pixels [rows, columns, samples] as stored: palettes and inverted greys are not applied."""
        (y0, y1), (x0, x1) = rows, columns
        out = np.empty((y1 - y0, x1 - x0, self.samples), self.dtype)
        if not out.size:
            return out
        height, width = self._size
        for plane in range(self._planes):
            for row in range(y0 // height, (y1 - 1) // height + 1):
                for column in range(x0 // width, (x1 - 1) // width + 1):
                    index = (plane * self._grid[0] + row) * self._grid[1] + column
                    top, left = row * height, column * width
                    a, b = max(y0, top), min(y1, top + height)
                    c, d = max(x0, left), min(x1, left + width)
                    target = out[a - y0 : b - y0, c - x0 : d - x0]
                    if self._planes > 1:
                        target = target[..., plane : plane + 1]
                    if self._raw:
                        target[:] = self._rows(index, a - top, b - top)[:, c:d]
                    else:
                        segment, _ = self._segment(index)
                        target[:] = (
                            self._key.nodata if segment is None else segment[a - top : b - top, c - left : d - left]
                        )
        return out

    def _segment(self, index: int) -> Decoded:
        return self._cache.get((self._page.offset, index), lambda: self._decoded(index))

    def _decoded(self, index: int) -> Decoded:
        offset, count = self._page.dataoffsets[index], self._page.databytecounts[index]
        if not count:  # a sparse segment: nothing stored, all nodata
            return None, (0, 0)
        data = self._read_bytes(offset, count)
        begin = time.perf_counter()
        segment, _, shape = self._decode(data, index, _fullsize=self._key.is_tiled, **self._tables)
        self._cache.decode_seconds += time.perf_counter() - begin
        return (None if segment is None else segment[0]), (shape[1], shape[2])

    def _rows(self, index: int, start: int, stop: int) -> NDArray[Any]:
        """Rows of an uncompressed strip, reading no others: such a file is often one strip for the page."""
        samples = 1 if self._planes > 1 else self.samples
        dtype = self.dtype.newbyteorder(self._key.parent.byteorder)
        line = self.shape[1] * samples * dtype.itemsize
        data = self._read_bytes(self._page.dataoffsets[index] + start * line, (stop - start) * line)
        return np.frombuffer(data, dtype).reshape(stop - start, self.shape[1], samples)
