"""OME-Zarr: reads 0.4 and 0.5, writes 0.4 (Zarr v2), the version that QuPath and Bio-Formats open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io.atomic import atomic_path
from fastnets.io.base import BaseReader, pyramid
from fastnets.io.labels import block, check_axes, regions, storage_dtype
from fastnets.io.protocol import LabelMap, Reader, Region
from fastnets.io.spacing import MICROMETRES, Option, Override, resolve

_TAGS = "multiscales coordinateTransformations scale with axes unit"
_BLOSC: dict[str, Any] = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 0}
_CHUNK = {2: 512, 3: 128}
_SMALLEST = 256  # the pyramid ends when no axis is longer
_Node = TypeVar("_Node", zarr.Group, zarr.Array[Any])
_UNIT = {"µm": "micrometer", "mm": "millimeter"}


class OmeZarrReader(BaseReader):
    """All levels of the first multiscale image: spatial axes in stored order, then C. Safe to read from threads."""

    format = "ome-zarr"

    def __init__(self, path: Path, *, spacing: Override = None) -> None:
        if not path.exists():
            raise InputError(f"{path}: no such folder: check the path")
        self.path = path
        try:
            self._open(spacing)
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: is not an OME-Zarr image or is damaged: {reason}: check the folder") from error

    def _open(self, spacing: Override) -> None:
        group = zarr.open_group(self.path, mode="r")
        if "bioformats2raw.layout" in _attributes(group):
            group = _member(group, "0", zarr.Group)
        scales = _attributes(group).get("multiscales")
        if not scales:
            raise InputError(
                f"{self.path}: has no multiscales attribute: expected an OME-Zarr image: give the image's own folder"
            )
        scale = scales[0]
        axes = [a if isinstance(a, dict) else {"name": a} for a in scale["axes"]]
        names = [str(a["name"]).upper() for a in axes]
        self._arrays = [_member(group, d["path"], zarr.Array) for d in scale["datasets"]]
        first = self._arrays[0]
        kept = [i for i, n in enumerate(names) if n in "ZYX" or (n == "C" and first.shape[i] > 1)]
        dropped = {n: first.shape[i] for i, n in enumerate(names) if i not in kept}
        if any(n > 1 for n in dropped.values()):
            raise InputError(
                f"{self.path}: axes {''.join(names)} of shape {first.shape}: expected one time point: "
                "save one to an image of its own"
            )
        self._names = names
        self._spatial = [i for i in kept if names[i] != "C"]
        self._channel = [i for i in kept if names[i] == "C"]
        order = self._spatial + self._channel
        self.axes = "".join(names[i] for i in order)
        self.shape = tuple(first.shape[i] for i in order)
        self.dtype = np.dtype(first.dtype).newbyteorder("=")
        self.levels = pyramid([tuple(a.shape[i] for i in self._spatial) for a in self._arrays])
        self.spacing_tags = (_TAGS,)
        spatial = "".join(names[i] for i in self._spatial)
        self.unit = "mm" if any(a.get("unit") == "millimeter" for a in axes) else "µm"
        known = self._header_spacing(axes, scale)
        option: Option = "--spacing" if len(spatial) == 3 else "--mpp"
        self.spacing = resolve(self.path, known, spacing, axes=spatial, tags=_TAGS, option=option)

    def _header_spacing(self, axes: list[dict[str, Any]], scale: dict[str, Any]) -> list[float] | None:
        """Scales of level 0 times those of the whole image; without units they are no lengths."""
        values = np.ones(len(axes))
        for owner in (scale["datasets"][0], scale):
            for step in owner.get("coordinateTransformations", ()):
                if step["type"] == "scale":
                    values = values * np.asarray(step["scale"], float)
        units = [str(axes[i].get("unit", "")) for i in self._spatial]
        if any(u not in MICROMETRES for u in units):
            return None
        factor = MICROMETRES[self.unit]
        return [float(values[i]) * MICROMETRES[u] / factor for i, u in zip(self._spatial, units, strict=True)]

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """Pixels of a region of a level, channels last."""
        bounds = dict(zip(self._spatial, self._bounds(region, level), strict=True))
        key = tuple(
            slice(*bounds[i]) if i in bounds else (slice(None) if i in self._channel else 0)
            for i in range(len(self._names))
        )
        try:
            values = np.asarray(self._arrays[level][key])
        except Exception as error:  # a codec's own kind, or an operating system error
            raise self._damaged(f"read level {level}", error) from error
        if self._channel:  # what is left is spatial axes and C, in stored order
            values = np.moveaxis(values, sum(i < self._channel[0] for i in self._spatial), -1)
        return np.ascontiguousarray(values, self.dtype)


def _attributes(group: zarr.Group) -> dict[str, Any]:
    """The OME attributes: 0.5 keeps them under "ome"."""
    attributes: dict[str, Any] = dict(group.attrs)
    nested = attributes.get("ome")
    return dict(nested) if isinstance(nested, dict) else attributes


def _member(group: zarr.Group, name: str, kind: type[_Node]) -> _Node:
    item = group[name]
    if not isinstance(item, kind):
        raise InputError(f"{group.store_path}/{name}: expected a Zarr {kind.__name__.lower()}: check the folder")
    return item


def write_ome_zarr(label_map: LabelMap, path: Path | str, reader: Reader | None = None) -> None:
    """Writes labels as a multiscale image with `image-label` colours, chunk by chunk.

    Every level halves the one above by nearest neighbour. Volumes are stored as ZYX, which the specification
    asks for. An existing folder of that name is replaced when the new one is complete.
    """
    del reader
    check_axes(label_map, ("YX", "ZYX", "XYZ"), "ome-zarr", "give the spatial axes only")
    dtype = storage_dtype(label_map)
    turned = label_map.axes == "XYZ"
    shape = tuple(label_map.labels.shape)[:: -1 if turned else 1]
    chunk = _CHUNK[len(shape)]
    with atomic_path(path) as partial:
        group = zarr.create_group(partial, zarr_format=2)
        shapes = _level_shapes(shape)
        above: zarr.Array[Any] | None = None
        for name, size in enumerate(shapes):
            array = _create(group, str(name), size, chunk, dtype)
            for region in regions(size, [chunk] * len(size)):
                if above is None:
                    source = region[::-1] if turned else region
                    values = block(label_map, source, dtype)
                    array[region] = values.transpose() if turned else values
                else:
                    array[region] = above[tuple(slice(2 * s.start, 2 * s.stop, 2) for s in region)]
            above = array
        group.attrs.update(_metadata(label_map, shapes, Path(path).name))


def _level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST:
        shapes.append(tuple((n + 1) // 2 for n in shapes[-1]))
    return shapes


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], chunk: int, dtype: np.dtype[Any]) -> zarr.Array[Any]:
    """Blosc, because the Java reader behind QuPath knows Blosc and zlib only; nested keys as OME-Zarr asks."""
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(min(chunk, n) for n in shape),
        dtype=dtype,
        compressors=_BLOSC,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _metadata(label_map: LabelMap, shapes: list[tuple[int, ...]], name: str) -> dict[str, Any]:
    axes = sorted(label_map.axes, reverse=True)
    spacing = label_map.spacing
    by_axis = dict(zip(label_map.axes, spacing, strict=True)) if spacing else dict.fromkeys(axes, 1.0)
    unit = {"unit": _UNIT[label_map.unit]} if spacing else {}
    datasets = [
        {
            "path": str(i),
            "coordinateTransformations": [
                {"type": "scale", "scale": [float(by_axis[a]) * 2**i for a in axes]},
            ],
        }
        for i in range(len(shapes))
    ]
    colors = [{"label-value": c.value, "rgba": [*c.color, 255 if c.value else 0]} for c in label_map.classes]
    names = [{"label-value": c.value, "class": c.name} for c in label_map.classes]
    label = {"version": "0.4"} | ({"colors": colors, "properties": names} if colors else {})
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": name,
                "axes": [{"name": a.lower(), "type": "space", **unit} for a in axes],
                "datasets": datasets,
                "type": "nearest",
            }
        ],
        "image-label": label,
    }
