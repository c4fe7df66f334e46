"""Readers: spacing, levels, and that a region equals the same part of the whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from io_helpers import BRAIN, HEAD, PICTURE, SLIDE, nib, sample_regions, whole
from PIL import Image

from fastnets.errors import InputError, MissingDependencyError
from fastnets.io import Reader, find_inputs, open_reader, registry
from fastnets.io.openslide import OpenSlideReader

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (333, 517, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (211, 190), dtype=np.uint16)
STACK = RNG.integers(0, 65536, (5, 67, 83), dtype=np.uint16)


def check_regions(reader: Reader) -> None:
    """Every region of every level equals that part of the whole level."""
    channels = len(reader.shape) - len(reader.levels[0].shape)
    for level, info in enumerate(reader.levels):
        full = reader.read(whole(info.shape), level)
        assert full.shape == info.shape + reader.shape[len(reader.shape) - channels :]
        assert full.dtype == reader.dtype
        for region in sample_regions(info.shape):
            np.testing.assert_array_equal(reader.read(region, level), full[region])


def test_slide_is_equal_through_tifffile_and_openslide() -> None:
    with open_reader(SLIDE) as ours, OpenSlideReader(SLIDE) as theirs:
        assert ours.shape == theirs.shape == (2967, 2220, 3)
        assert ours.axes == theirs.axes == "YXC"
        assert ours.spacing == theirs.spacing == (0.499, 0.499)
        assert ours.unit == "µm"
        region = whole(ours.levels[0].shape)
        np.testing.assert_array_equal(ours.read(region), theirs.read(region))
        for part in sample_regions((2967, 2220), 4):
            np.testing.assert_array_equal(ours.read(part), theirs.read(part))


def test_slide_reads_from_threads() -> None:
    with open_reader(SLIDE) as reader:
        full = reader.read(whole((2967, 2220)))
        regions = list(sample_regions((2967, 2220), 16))
        with ThreadPoolExecutor(4) as pool:
            for region, part in zip(regions, pool.map(reader.read, regions), strict=True):
                np.testing.assert_array_equal(part, full[region])


TIFFS: list[tuple[str, Any, dict[str, Any]]] = [
    ("tiles", RGB, {"tile": (64, 48), "compression": "zlib"}),
    ("strips", RGB, {"rowsperstrip": 17, "compression": "lzw", "predictor": True}),
    ("one raw strip", RGB, {}),
    ("raw strips, big endian", GREY16, {"rowsperstrip": 10, "byteorder": ">"}),
    ("compressed, big endian", GREY16, {"compression": "zlib", "byteorder": ">", "predictor": True}),
    ("planes, raw", np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    ("planes, tiles", np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate", "tile": (32, 32)}),
    ("stack", STACK, {"photometric": "minisblack"}),
    ("stack, tiles", STACK, {"photometric": "minisblack", "tile": (32, 16), "compression": "zlib"}),
    ("float", GREY16.astype(np.float32), {"compression": "zlib", "predictor": True, "tile": (64, 64)}),
]


@pytest.mark.parametrize(("data", "options"), [t[1:] for t in TIFFS], ids=[t[0] for t in TIFFS])
def test_tiff_layouts(tmp_path: Path, data: Any, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, **options)
    expected = np.moveaxis(data, 0, -1) if options.get("planarconfig") else data
    with open_reader(path) as reader:
        assert reader.axes == {(517, 3): "YXC", (67, 83): "ZYX"}.get(expected.shape[1:], "YX")
        np.testing.assert_array_equal(reader.read(whole(reader.levels[0].shape)), expected)
        check_regions(reader)


@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "CZYX"])
def test_tiff_channels_come_last(tmp_path: Path, axes: str) -> None:
    sizes = {"Z": 4, "C": 3, "Y": 40, "X": 30}
    data = RNG.integers(0, 255, [sizes[a] for a in axes], dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": axes}, photometric="minisblack")
    with open_reader(tmp_path / "a.ome.tif") as reader:
        assert reader.axes == axes.replace("C", "") + "C"
        expected = np.moveaxis(data, axes.index("C"), -1)
        np.testing.assert_array_equal(reader.read(whole(reader.levels[0].shape)), expected)


def test_pyramid_with_odd_edges(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for i in range(3):
            writer.write(RGB[:: 2**i, :: 2**i], tile=(64, 64), compression="zlib", subfiletype=int(i > 0))
    with open_reader(path) as reader:
        assert [entry.shape for entry in reader.levels] == [(333, 517), (167, 259), (84, 130)]
        assert reader.levels[1].downsample == (333 / 167, 517 / 259)
        check_regions(reader)


def test_openslide_levels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for i in range(3):
            part = np.tile(RGB[:256, :256], (2, 2, 1))[:: 2**i, :: 2**i]
            writer.write(part, tile=(64, 64), compression="zlib", subfiletype=int(i > 0))
    with OpenSlideReader(path) as reader:
        assert reader.spacing is None
        assert [entry.shape for entry in reader.levels] == [(512, 512), (256, 256), (128, 128)]
        check_regions(reader)


def test_nifti_is_nibabels_array() -> None:
    with open_reader(BRAIN) as reader:
        image = nib.load(BRAIN)
        assert (reader.axes, reader.shape, reader.unit) == ("XYZ", (181, 217, 181), "mm")
        assert reader.spacing == (1.0, 1.0, 1.0)
        assert reader.affine is not None
        np.testing.assert_array_equal(reader.affine, image.affine)
        np.testing.assert_array_equal(reader.read(whole(reader.shape)), np.asarray(image.dataobj))
        check_regions(reader)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_scaling_and_units(tmp_path: Path, suffix: str) -> None:
    image = nib.Nifti1Image(STACK.astype(np.int16), np.diag([500.0, 250.0, 125.0, 1.0]))
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(0.5, 3)
    path = tmp_path / f"a{suffix}"
    nib.save(image, path)
    with open_reader(path) as reader:
        assert reader.spacing == (0.5, 0.25, 0.125)
        assert reader.affine is not None
        np.testing.assert_allclose(np.diag(reader.affine), [0.5, 0.25, 0.125, 1])
        assert reader.dtype == np.float32
        np.testing.assert_allclose(reader.read(whole(reader.shape)), nib.load(path).get_fdata(), rtol=1e-6)
        check_regions(reader)


def test_picture() -> None:
    with open_reader(PICTURE) as reader:
        assert (reader.axes, reader.shape, reader.spacing) == ("YXC", (300, 500, 3), None)
        np.testing.assert_array_equal(reader.read(whole((300, 500))), np.asarray(Image.open(PICTURE)))
        check_regions(reader)


def test_picture_spacing_needs_a_plausible_density(tmp_path: Path) -> None:
    for dpi, expected in ((72, None), (300, None), (50800, 0.5)):
        Image.fromarray(GREY16.astype(np.uint8)).save(tmp_path / "a.png", dpi=(dpi, dpi))
        with open_reader(tmp_path / "a.png") as reader:
            assert reader.spacing == (None if expected is None else pytest.approx((expected, expected), rel=1e-3))


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "LA", "RGBA", "CMYK"])
def test_picture_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY16) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    with open_reader(path) as reader:
        assert reader.axes == ("YX" if mode in ("1", "L", "I;16") else "YXC")
        check_regions(reader)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_channels_and_units(tmp_path: Path, version: Any) -> None:
    data = RNG.integers(0, 65535, (1, 2, 6, 40, 31), dtype=np.uint16)
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.create_array("0", data=data, chunks=(1, 1, 3, 16, 16))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 2000, 500, 250]}]
    scales: dict[str, Any] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    }
    attributes: dict[str, Any] = scales if version == 2 else {"ome": {"version": "0.5", **scales}}
    group.attrs.update(attributes)
    with open_reader(tmp_path / "a.zarr") as reader:
        assert (reader.axes, reader.shape, reader.spacing) == ("ZYXC", (6, 40, 31, 2), (2.0, 0.5, 0.25))
        np.testing.assert_array_equal(reader.read(whole((6, 40, 31))), np.moveaxis(data[0], 0, -1))
        check_regions(reader)


def test_tiff_spacing_sources(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}, (0.25, 0.5)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm",
                                    "PhysicalSizeY": 0.5}}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}, (0.5, 0.25)),
    ]  # fmt: skip
    for options, expected in cases:
        tifffile.imwrite(path, GREY16, **options)
        with open_reader(path) as reader:
            assert reader.spacing == (None if expected is None else pytest.approx(expected)), options
            assert reader.spacing_tags


def test_region_outside_is_a_bug() -> None:
    with open_reader(SLIDE) as reader:
        for region in [(slice(0, 3000), slice(0, 4)), (slice(0, 4),), (slice(0, 8, 2), slice(0, 8))]:
            with pytest.raises(ValueError, match="inside level 0"):
                reader.read(region)
        with pytest.raises(ValueError, match="level 3"):
            reader.read((slice(0, 1), slice(0, 1)), 3)


def test_find_inputs(tmp_path: Path) -> None:
    for name in ("b.svs", "a.nii.gz", "note.txt", ".c.svs.partial-1.svs"):
        (tmp_path / name).write_text("x")
    (tmp_path / "d.ome.zarr").mkdir()
    (tmp_path / "sub.svs").mkdir()
    names = ["a.nii.gz", "b.svs", "d.ome.zarr"]
    assert [p.name for p in find_inputs([tmp_path])] == names
    assert [p.name for p in find_inputs([tmp_path / "*", tmp_path / "b.svs"])] == names
    assert find_inputs([tmp_path / "d.ome.zarr"]) == [tmp_path / "d.ome.zarr"]
    for missing, words in ((tmp_path / "*.ndpi", "matches no image"), (tmp_path / "x.svs", "no such file")):
        with pytest.raises(InputError, match=words):
            find_inputs([missing])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in this folder"):
        find_inputs([tmp_path / "empty"])
    with pytest.raises(InputError, match="no input"):
        find_inputs([])


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'nibabel'", name="nibabel")

    monkeypatch.setattr(registry, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"nibabel: pip install 'fastnets\[volume\]'"):
        open_reader(HEAD)


def test_every_registered_reader_exists() -> None:
    for module, name, extra in set(registry.READERS.values()):
        assert registry.load(module, name, extra, "test").format
