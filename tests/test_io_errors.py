"""Inputs that cannot be used: one line that says what, and what to do; never a library's traceback."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from io_helpers import BRAIN, PICTURE, SLIDE, nib, whole

from fastnets.errors import InputError
from fastnets.io import open_reader
from fastnets.io.openslide import OpenSlideReader


def read_all(path: Path) -> None:
    with open_reader(path) as reader:
        reader.read(whole(reader.levels[0].shape))


def one_line(path: Path, words: str, use: Callable[[Path], object] = open_reader) -> None:
    with pytest.raises(InputError, match=words) as caught:
        use(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))


SUFFIXES = [".svs", ".tif", ".ndpi", ".nii", ".nii.gz", ".png", ".jpg"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".zarr"])
def test_missing(tmp_path: Path, suffix: str) -> None:
    one_line(tmp_path / f"a{suffix}", "no such (file|folder): check the path")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("text", ["", "this is a note, not an image\n" * 40])
def test_text_and_empty(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(text)
    one_line(path, "empty" if not text else "is not a|cannot open")


def test_folders_and_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.svs").mkdir()
    one_line(tmp_path / "a.svs", "is a folder")
    (tmp_path / "a.zarr").mkdir()
    one_line(tmp_path / "a.zarr", "not an OME-Zarr")
    (tmp_path / "a.docx").write_text("x")
    one_line(tmp_path / "a.docx", "unknown format: expected one of .tif")
    one_line(tmp_path / "b.docx", "no such file")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_slide(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.svs"
    data = SLIDE.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    one_line(path, "damaged|truncated|incomplete")


def test_truncated_tiff_data(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((500, 500), np.uint8))
    path.write_bytes(path.read_bytes()[:100_000])
    one_line(path, r"is truncated: its tiles need \d+ bytes and the file has 100000")


def test_damaged_tile(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), compression="zlib")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 9000] = bytes(9000)
    path.write_bytes(data)
    one_line(path, "cannot decode rows .* damaged", read_all)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_truncated_nifti_gz(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.nii.gz"
    data = BRAIN.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    one_line(path, "damaged", read_all)


def test_truncated_nifti_and_jpeg(tmp_path: Path) -> None:
    plain = tmp_path / "a.nii"
    plain.write_bytes(gzip.decompress(BRAIN.read_bytes())[:1_000_000])
    one_line(plain, "is truncated: needs 7109489 bytes and has 1000000")
    picture = tmp_path / "a.jpg"
    picture.write_bytes(PICTURE.read_bytes()[:20_000])
    one_line(picture, "damaged", read_all)


def test_series_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 3), np.uint8), np.eye(4)), path)
    one_line(path, r"is 4D, of shape \(5, 6, 7, 3\): expected a 3D volume: split the series")
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 1), np.uint8), np.eye(4)), path)
    with open_reader(path) as reader:
        assert reader.read(whole((5, 6, 7))).shape == (5, 6, 7)
    movie = tmp_path / "a.ome.tif"
    tifffile.imwrite(movie, np.zeros((3, 20, 20), np.uint8), metadata={"axes": "TYX"}, photometric="minisblack")
    one_line(movie, "save one time point")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_invalid_volume_spacing(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(np.arange(210, dtype=np.uint8).reshape(5, 6, 7), np.eye(4))
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[80:84] = np.float32(value).tobytes()  # pixdim[1]
    path.write_bytes(data)
    one_line(path, r"pixdim\[1\].*is not above 0: give the true one with --spacing")
    with open_reader(path, spacing=(0.5, 0.6, 0.7)) as reader:
        assert reader.spacing == (0.5, 0.6, 0.7)
        assert reader.affine is not None
        np.testing.assert_allclose(np.diag(reader.affine), [0.5, 0.6, 0.7, 1])
        assert reader.read(whole((5, 6, 7))).sum() == np.arange(210).sum()


@pytest.mark.parametrize("value", ["0", "-0.5", "nan", "n/a"])
def test_invalid_slide_spacing(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(SLIDE.read_bytes().replace(b"MPP = 0.4990", f"MPP = {value:<6}".encode()))
    one_line(path, r"MPP in ImageDescription is not above 0: give the true one with --mpp")
    with open_reader(path, spacing=0.25) as reader:
        assert reader.spacing == (0.25, 0.25)


def test_spacing_absent_is_none_and_override_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(SLIDE.read_bytes().replace(b"MPP = 0.4990", b"XXX = 0.4990"))
    with open_reader(path) as reader:
        assert reader.spacing is None
        assert reader.spacing_tags == ("MPP in ImageDescription",)
    with OpenSlideReader(path) as reader:
        assert reader.spacing is None
    with open_reader(SLIDE, spacing=(0.2, 0.3)) as reader:
        assert reader.spacing == (0.2, 0.3)
    for wrong in (0, -1.0, (1.0, 2.0, 3.0)):
        with pytest.raises(InputError, match=re.escape(f"--mpp {wrong}: expected one number above 0")):
            open_reader(SLIDE, spacing=wrong)


def test_closed_and_failed_readers_warn_of_nothing(tmp_path: Path) -> None:
    """filterwarnings=error turns a file left open into a failure: openers close what they refuse."""
    path = tmp_path / "a.svs"
    path.write_bytes(SLIDE.read_bytes().replace(b"MPP = 0.4990", b"MPP = 0     "))
    for reader in (open_reader, lambda p: OpenSlideReader(p)):
        with pytest.raises(InputError):
            reader(path)
