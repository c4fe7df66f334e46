"""TIFF, OME-TIFF and Aperio SVS, through tifffile.

tifffile finds the pages and the codecs; the regions are decoded here, segment by segment.
"""

from __future__ import annotations

import struct
import threading
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPageSeries

from fastnets.errors import InputError
from fastnets.io.base import BaseReader, check_file, pyramid
from fastnets.io.protocol import Region
from fastnets.io.spacing import Option, Override, resolve
from fastnets.io.tiff_page import PageRegions, SegmentCache
from fastnets.io.tiff_spacing import tiff_spacing


class TiffReader(BaseReader):
    """All pyramid levels of the first image of a TIFF: YX, ZYX, YXC or ZYXC. Safe to read from threads.

    Memory is constant: a read holds the segments that it touches, and a cache of 64 MiB. Only a page stored
    as one compressed strip has to be decoded whole. Pages without a named axis are taken as Z; colours
    (samples) and channel pages are C. Palette indices stay indices.
    """

    format = "tiff"

    def __init__(self, path: Path, *, spacing: Override = None) -> None:
        check_file(path)
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = TiffFile(path)
        except Exception as error:  # tifffile lets struct, key and index errors of a broken header through
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: is not a TIFF or is damaged: {reason}: check the file") from error
        try:
            self._open(spacing)
        except InputError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._damaged("read its header", error) from error

    def _open(self, spacing: Override) -> None:
        if not len(self._file.pages) or not self._file.series:
            raise InputError(f"{self.path}: holds no image: the file is incomplete: copy it again")
        self._check_chain()
        series = self._file.series[0]
        self._channel_pages, self._depth, self._order = self._stack(series)
        self._cache = cache = SegmentCache()
        self._pages = [self._level(level, cache) for level in series.levels]
        first = self._pages[0][0]
        self._channels = self._channel_pages if self._channel_pages > 1 else first.samples
        self.axes = ("Z" if self._depth > 1 else "") + "YX" + ("C" if self._channels > 1 else "")
        depth = (self._depth,) if self._depth > 1 else ()
        self.levels = pyramid([(*depth, *pages[0].shape) for pages in self._pages])
        self.shape = self.levels[0].shape + ((self._channels,) if self._channels > 1 else ())
        self.dtype = first.dtype.newbyteorder("=")
        found, self.spacing_tags = tiff_spacing(self._file)
        spatial = self.axes.removesuffix("C")
        known = [found[a] for a in spatial] if found and all(a in found for a in spatial) else None
        self.unit = "µm"
        option: Option = "--spacing" if "Z" in spatial else "--mpp"
        tags = ", ".join(self.spacing_tags)
        self.spacing = resolve(self.path, known, spacing, axes=spatial, tags=tags, option=option)

    def _check_chain(self) -> None:
        """The link behind the last page leads nowhere or inside the file, else pages (levels) are cut off."""
        form, handle = self._file.tiff, self._file.filehandle
        handle.seek(self._file.pages[-1].offset)
        (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
        handle.seek(tags * form.tagsize, 1)
        (following,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
        if following >= handle.size:
            raise InputError(
                f"{self.path}: is truncated: a page lies at byte {following} and the file has {handle.size}: "
                "copy it again"
            )

    def _stack(self, series: TiffPageSeries) -> tuple[int, int, str]:
        """Channel pages, depth, and the order of the two in the sequence of pages."""
        axes, shape = series.get_axes(False), series.get_shape(False)
        sizes = {a: n for a, n in zip(axes, shape, strict=True) if a not in "YXS" and n > 1}
        named = dict(sizes)
        if "Z" not in named and len(unnamed := [a for a in named if a in "IQR"]) == 1:
            named = {"Z" if a == unnamed[0] else a: n for a, n in named.items()}
        samples = series.keyframe.samplesperpixel
        if not set(named) <= set("ZC") or ("C" in named and samples > 1) or series.keyframe.imagedepth > 1:
            raise InputError(
                f"{self.path}: axes {axes} of shape {shape} are not one image: expected YX with at most Z and "
                "either channels or colours: save one time point or position to a file of its own"
            )
        if len(series.pages) != prod(named.values()) or any(p is None for p in series.pages):
            raise InputError(
                f"{self.path}: {len(series.pages)} pages for shape {shape}: expected one page a plane: "
                "save it again as OME-TIFF"
            )
        return named.get("C", 1), named.get("Z", 1), "".join(named)

    def _level(self, level: TiffPageSeries, cache: SegmentCache) -> list[PageRegions]:
        pages = [PageRegions(page, self._bytes, cache) for page in level.pages if page is not None]
        needed = max(page.segment_ends() for page in pages)
        size = self.path.stat().st_size
        if needed > size or any(page.segment_count_missing() for page in pages):
            raise InputError(
                f"{self.path}: is truncated: its tiles need {needed} bytes and the file has {size}: copy it again"
            )
        return pages

    def _bytes(self, offset: int, count: int) -> bytes:
        with self._lock:
            handle = self._file.filehandle
            handle.seek(offset)
            data = handle.read(count)
        if len(data) != count:
            raise EOFError(f"expected {count} bytes at offset {offset}, got {len(data)}")
        return data

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """Pixels (Z, Y, X, C, as far as the image has them) of a region of a level."""
        *z, rows, columns = self._bounds(region, level)
        planes = range(*z[0]) if z else range(1)
        out = np.empty((len(planes), rows[1] - rows[0], columns[1] - columns[0], self._channels), self.dtype)
        try:
            for i, plane in enumerate(planes):
                for channel in range(self._channel_pages):
                    part = self._pages[level][self._page(plane, channel)].read(rows, columns)
                    out[i, :, :, channel : channel + part.shape[-1]] = part
        except Exception as error:  # codecs raise their own kinds
            raise self._damaged(f"decode rows {rows} of level {level}", error) from error
        self.decode_seconds = self._cache.decode_seconds
        if not z:
            out = out[0]
        return out if self._channels > 1 else out[..., 0]

    def _page(self, plane: int, channel: int) -> int:
        if self._order == "ZC":
            return plane * self._channel_pages + channel
        return channel * self._depth + plane

    def close(self) -> None:
        self._file.close()
