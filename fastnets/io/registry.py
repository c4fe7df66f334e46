"""Which reader opens which file name. A new format is one file here and one line below."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from fastnets.errors import InputError, MissingDependencyError
from fastnets.io.protocol import Reader
from fastnets.io.spacing import Override

# suffix: (module, class, extra that brings its packages). The longest suffix that matches wins.
READERS = {
    ".tif": ("tiff", "TiffReader", "slide"),
    ".tiff": ("tiff", "TiffReader", "slide"),
    ".btf": ("tiff", "TiffReader", "slide"),
    # Aperio goes through tifffile: levels are read as stored, on their own grid (OpenSlide shifts by a
    # fraction of a pixel where a downsampling is not whole), and 512² regions come 2.6 times as fast
    # (6 against 16 ms on cmu_small_region.svs, no cache). OpenSlideReader opens .svs too and gives the same
    # pixels at level 0 (a test says so); nothing changes between the two on its own.
    ".svs": ("tiff", "TiffReader", "slide"),
    ".ndpi": ("openslide", "OpenSlideReader", "slide"),
    ".mrxs": ("openslide", "OpenSlideReader", "slide"),
    ".scn": ("openslide", "OpenSlideReader", "slide"),
    ".svslide": ("openslide", "OpenSlideReader", "slide"),
    ".bif": ("openslide", "OpenSlideReader", "slide"),
    ".vms": ("openslide", "OpenSlideReader", "slide"),
    ".vmu": ("openslide", "OpenSlideReader", "slide"),
    ".nii": ("nifti", "NiftiReader", "volume"),
    ".nii.gz": ("nifti", "NiftiReader", "volume"),
    ".png": ("picture", "PictureReader", ""),
    ".jpg": ("picture", "PictureReader", ""),
    ".jpeg": ("picture", "PictureReader", ""),
    ".zarr": ("ome_zarr", "OmeZarrReader", ""),
}
_FOLDER_SUFFIXES = (".zarr",)


def open_reader(path: Path | str, *, spacing: Override = None) -> Reader:
    """Opens an image by its suffix.

    `spacing` is the true pixel size, in the reader's unit (µm for slides and pictures, mm for NIfTI), one
    number or one a spatial axis in the order of `axes`; it wins over the header. Without it, a header value
    that is not above 0 is an InputError; a header without any gives `reader.spacing = None`.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix is None:
        if not path.exists():
            raise InputError(f"{path}: no such file: check the path")
        raise InputError(f"{path}: unknown format: expected one of {' '.join(READERS)}: convert or rename it")
    module, name, extra = READERS[suffix]
    make: Callable[..., Reader] = load(module, name, extra, f"{path}: reading {suffix}")
    return make(path, spacing=spacing)


def find_inputs(paths: Iterable[Path | str]) -> list[Path]:
    """The images that files, folders and patterns name, without duplicates.

    A folder gives the images right inside it, sorted; an OME-Zarr folder is an image itself. Hidden entries
    are skipped. Something that gives nothing is an InputError that says so.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_expand(Path(path))))
    if not found:
        raise InputError("no input given: name a file, a folder or a pattern")
    return list(found)


def _expand(path: Path) -> list[Path]:
    if path.exists():
        if not path.is_dir() or path.name.lower().endswith(_FOLDER_SUFFIXES):
            return [path]
        inside = _images(path.iterdir())
        if not inside:
            raise InputError(f"{path}: no image in this folder: expected files ending in {' '.join(READERS)}")
        return inside
    if not glob.has_magic(str(path)):
        raise InputError(f"{path}: no such file or folder: check the path")
    inside = _images(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207  absolute patterns too
    if not inside:
        raise InputError(f"{path}: the pattern matches no image: expected files ending in {' '.join(READERS)}")
    return inside


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if not p.name.startswith(".") and _suffix(p) is not None and _is_image(p))


def _is_image(path: Path) -> bool:
    return path.is_dir() == path.name.lower().endswith(_FOLDER_SUFFIXES)


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return max((s for s in READERS if name.endswith(s)), key=len, default=None)


def load(module: str, name: str, extra: str, doing: str) -> Any:
    """`name` from a module of this package, imported now; a missing package says which extra brings it."""
    try:
        return getattr(import_module(f"fastnets.io.{module}"), name)
    except ImportError as error:
        if (error.name or "").startswith("fastnets"):
            raise
        what = error.name or str(error)
        raise MissingDependencyError(f"{doing} needs the package {what}: pip install 'fastnets[{extra}]'") from error
