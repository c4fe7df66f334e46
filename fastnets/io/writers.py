"""Which writer makes which format. A new format is one file here and one line below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastnets.errors import InputError
from fastnets.io.protocol import LabelMap, Reader
from fastnets.io.registry import load

# format: (module, function, extra that brings its packages, suffix, numbers of axes)
WRITERS = {
    "ome-tiff": ("ome_tiff", "write_ome_tiff", "slide", ".ome.tif", (2,)),
    "ome-zarr": ("ome_zarr", "write_ome_zarr", "", ".ome.zarr", (2, 3)),
    "nifti": ("nifti", "write_nifti", "volume", ".nii.gz", (3,)),
    "geojson": ("geojson", "write_geojson", "slide", ".geojson", (2,)),
    "png": ("overlay", "write_overlay", "", ".png", (2, 3)),
}


def write(label_map: LabelMap, path: Path | str, *, format: str, reader: Reader | None = None, **options: Any) -> None:
    """Writes a finished label map under its final name, which appears only when the file is complete.

    `reader` is the open source: "png" draws over its pixels, "nifti" keeps its header. `options` go to the
    writer, e.g. `min_area` of "geojson". A format that cannot hold the axes is an InputError.
    """
    module, name, extra, *_ = _entry(format)
    make = load(module, name, extra, f"{path}: writing {format}")
    make(label_map, path, reader, **options)


def suffix_of(format: str) -> str:
    """The suffix that files of a format end in, with its dot."""
    return _entry(format)[3]


def check_format(format: str, axes: int) -> None:
    """InputError unless the format exists and holds label maps with that many axes."""
    accepted = [name for name, entry in WRITERS.items() if axes in entry[4]]
    if axes not in _entry(format)[4]:
        kind = "volumes" if axes == 3 else "planes"
        raise InputError(f"format {format}: does not hold {kind}: choose among {', '.join(accepted)}")


def _entry(format: str) -> tuple[str, str, str, str, tuple[int, ...]]:
    if format not in WRITERS:
        raise InputError(f"write: format {format!r} is unknown: expected one of {', '.join(WRITERS)}")
    return WRITERS[format]
