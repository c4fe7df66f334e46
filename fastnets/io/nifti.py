"""NIfTI volumes, through nibabel."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io.atomic import atomic_path
from fastnets.io.base import BaseReader, check_file, pyramid
from fastnets.io.labels import block, check_axes, storage_dtype
from fastnets.io.protocol import LabelMap, Reader, Region
from fastnets.io.spacing import Override, resolve

nib: Any = nibabel  # most of its functions carry no types

_MILLIMETRES = {"unknown": 1.0, "meter": 1e3, "mm": 1.0, "micron": 1e-3}  # NIfTI readers take unknown as mm
_TAGS = ("pixdim[1]", "pixdim[2]", "pixdim[3]")
_LARGEST_NIFTI1 = 32767  # dimensions are int16 there
_LABEL_INTENT = 1002


class NiftiReader(BaseReader):
    """A 3D volume in the order of the file (axes XYZ), spacing and affine in mm. Safe to read from threads.

    `.nii` is read region by region. gzip has no random access, so the first read of a `.nii.gz` inflates it
    into an unnamed temporary file on disk, and memory stays constant. Scaled data (scl_slope) is float32.
    """

    format = "nifti"

    def __init__(self, path: Path, *, spacing: Override = None) -> None:
        check_file(path)
        self.path = path
        self._packed = path.suffix.lower() == ".gz"
        self._lock = threading.Lock()
        self._inflated: IO[bytes] | None = None
        self._proxy: Any = None  # ArrayProxy
        try:
            image = nib.load(path)
            if not isinstance(image.header, nib.Nifti1Header):  # NIfTI-2 derives from it
                raise InputError(f"{path}: is not NIfTI but {type(image).__name__}: convert it to .nii.gz")
            raw = self._raw_header(type(image.header))
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: is not a NIfTI volume or is damaged: {reason}: check the file") from error
        self.header = image.header
        shape, stored = self._check_shape(), self.header.get_data_dtype()
        if stored.kind not in "iuf":
            raise InputError(f"{path}: voxels of type {stored}: expected integers or floats: save one channel")
        # `load` clears these in the header, and keeps them here.
        self._offset = int(image.dataobj.offset)
        self._scaling = (float(image.dataobj.slope), float(image.dataobj.inter))
        scaled = self._scaling != (1, 0)
        self.axes, self.shape, self.levels = "XYZ", shape, pyramid([shape])
        self.dtype = np.dtype(np.float32) if scaled else stored.newbyteorder("=")
        self.unit, self.spacing_tags = "mm", _TAGS
        scale = _MILLIMETRES.get(self.header.get_xyzt_units()[0], 1.0)
        known = [float(v) * scale for v in raw["pixdim"][1:4]]
        self.spacing = resolve(path, known, spacing, axes="XYZ", tags=", ".join(_TAGS), option="--spacing")
        assert self.spacing is not None
        self.affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(image.affine, np.float64)
        if spacing is not None or not np.isfinite(self.affine).all():
            self.affine = _respaced(self.affine, self.spacing)
        self._check_length(stored.itemsize)

    def _raw_header(self, kind: Any) -> Any:
        """The header before nibabel mends it: `load` turns a spacing of 0 or below into a positive one."""
        opener = gzip.open if self._packed else open
        with opener(self.path, "rb") as file:
            return kind.from_fileobj(file, check=False)

    def _check_shape(self) -> tuple[int, ...]:
        shape = tuple(int(n) for n in self.header.get_data_shape())
        if len(shape) != 3 and not (len(shape) > 3 and set(shape[3:]) == {1}):
            do = "split the series and give one volume a file" if len(shape) > 3 else "save it as a volume or PNG"
            raise InputError(f"{self.path}: is {len(shape)}D, of shape {shape}: expected a 3D volume: {do}")
        return shape[:3]

    def _check_length(self, itemsize: int) -> None:
        """A plain file that is too short is found at once; a compressed one when it is inflated."""
        needed = self._offset + int(np.prod(self.shape)) * itemsize
        size = self.path.stat().st_size
        if not self._packed and size < needed:
            raise InputError(f"{self.path}: is truncated: needs {needed} bytes and has {size}: copy it again")

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """Voxels [X, Y, Z] of a region."""
        bounds = self._bounds(region, level)
        try:
            with self._lock:
                if self._proxy is None:
                    self._proxy = self._open()
            values = self._proxy[tuple(slice(a, b) for a, b in bounds)]
        except Exception as error:
            raise self._damaged("read its voxels", error) from error
        return np.array(values, self.dtype)

    def _open(self) -> Any:
        header = self.header
        spec = (self.shape, header.get_data_dtype(), self._offset, *self._scaling)
        if not self._packed:
            return nib.arrayproxy.ArrayProxy(self.path, spec)
        self.close()
        self._inflated = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the reader
        begin = time.perf_counter()
        with gzip.open(self.path) as packed:
            shutil.copyfileobj(packed, self._inflated, 1 << 20)
        self.decode_seconds += time.perf_counter() - begin
        self._inflated.flush()
        return nib.arrayproxy.ArrayProxy(self._inflated, spec)

    def close(self) -> None:
        self._proxy = None
        if self._inflated is not None:
            self._inflated.close()


def _respaced(affine: NDArray[np.float64], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The same directions and origin with these voxel sizes; axis-aligned where there are no directions."""
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(columns).all() or not lengths.all():
        columns, lengths = np.eye(3), np.ones(3)
    out = np.eye(4)
    out[:3, :3] = columns / lengths * np.asarray(spacing)
    out[:3, 3] = np.where(np.isfinite(affine[:3, 3]), affine[:3, 3], 0.0)
    return out


def write_nifti(label_map: LabelMap, path: Path | str, reader: Reader | None = None) -> None:
    """Writes labels (XYZ or ZYX) as compressed NIfTI with the geometry of the input.

    From a NIfTI input the qform, the sform and the units are kept bit for bit. The file is written in one
    piece, so the labels are held in memory in their smallest type (1 byte a voxel up to 256 classes).
    """
    check_axes(label_map, ("XYZ", "ZYX"), "nifti", "write ome-tiff, ome-zarr or geojson")
    dtype = storage_dtype(label_map)
    values = block(label_map, (slice(None),) * 3, dtype)
    turned = label_map.axes == "ZYX"
    values = values.transpose() if turned else values
    spacing = label_map.spacing[::-1] if label_map.spacing and turned else label_map.spacing
    millimetres = 1e-3 if label_map.unit == "µm" else 1.0
    zooms = tuple(v * millimetres for v in spacing or (1.0, 1.0, 1.0))
    affine = np.diag([*zooms, 1.0]) if label_map.affine is None else label_map.affine
    if turned and label_map.affine is not None:
        affine = affine[:, [2, 1, 0, 3]]
    same = isinstance(reader, NiftiReader) and reader.affine is not None and not turned
    if same and isinstance(reader, NiftiReader) and np.allclose(_of_header(reader.header), affine):
        header, matrix = reader.header.copy(), None
    else:
        large = max(values.shape) > _LARGEST_NIFTI1
        header, matrix = (nib.Nifti2Header() if large else nib.Nifti1Header()), affine
        header.set_xyzt_units("mm")
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_intent(_LABEL_INTENT, name="fastnets labels", allow_unknown=True)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(values, matrix, header)
    with atomic_path(path) as partial:
        image.to_filename(partial)


def _of_header(header: Any) -> NDArray[np.float64]:
    """The affine of a header in mm."""
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ np.asarray(header.get_best_affine(), np.float64)
