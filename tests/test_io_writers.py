"""Writers: what an independent library reads back, at every level, and nothing left behind by a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import shapely
import tifffile
import zarr
from io_helpers import BRAIN, CLASSES, HEAD, SLIDE, blobs, nib, plane, whole
from PIL import Image

from fastnets.errors import InputError
from fastnets.io import WRITERS, LabelMap, atomic_path, open_reader, suffix_of, write

LABELS = blobs((1301, 1757))


def volume(labels: Any, axes: str = "XYZ", spacing: tuple[float, ...] = (0.7, 0.8, 1.5)) -> LabelMap:
    return LabelMap(labels, axes, spacing, "mm", CLASSES)


def test_ome_tiff_in_tifffile_openslide_and_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    store = zarr.create_array(tmp_path / "labels.zarr", data=LABELS.astype(np.int64), chunks=(512, 512))
    write(plane(store), path, format="ome-tiff")
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert len(file.series[0].levels) == 3
        for i, level in enumerate(file.series[0].levels):
            np.testing.assert_array_equal(level.asarray(), LABELS[:: 2**i, :: 2**i])
            assert level.keyframe.tile == (512, 512)
        assert 'Name="labels"' in (file.ome_metadata or "")
        assert "tumour" in (file.ome_metadata or "")
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 3
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.499)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        for channel in range(3):
            np.testing.assert_array_equal(pixels[..., channel], LABELS)
    with open_reader(path) as reader:
        assert reader.spacing == (0.499, 0.5)
        np.testing.assert_array_equal(reader.read(whole(reader.levels[2].shape), 2), LABELS[::4, ::4])


@pytest.mark.parametrize("top", [300, 70000])
def test_ome_tiff_widens_for_instances(tmp_path: Path, top: int) -> None:
    labels = np.zeros((20, 30), np.int64 if top < 1000 else np.uint32)
    labels[3:9, 4:20] = top
    path = tmp_path / "a.ome.tif"
    if top < 1000:
        with pytest.raises(InputError, match="label 300 is outside 0 to 255"):
            write(plane(labels), path, format="ome-tiff")
    write(LabelMap(labels, "YX", None, "µm", ()), path, format="ome-tiff")
    with open_reader(path) as reader:
        assert reader.spacing is None
        np.testing.assert_array_equal(reader.read(whole(labels.shape)), labels)


def test_bigtiff_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnets.io import ome_tiff

    monkeypatch.setattr(ome_tiff, "_BIG_TIFF_FROM", 0)
    write(plane(LABELS), tmp_path / "a.ome.tif", format="ome-tiff")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_bigtiff
        assert len(file.series[0].levels) == 3
    with openslide.OpenSlide(tmp_path / "a.ome.tif") as slide:
        assert slide.level_count == 3


@pytest.mark.parametrize("axes", ["YX", "ZYX", "XYZ"])
def test_ome_zarr_levels_and_metadata(tmp_path: Path, axes: str) -> None:
    labels = LABELS if axes == "YX" else blobs((150, 60, 300))
    label_map = plane(labels) if axes == "YX" else volume(labels, axes)
    path = tmp_path / "a.ome.zarr"
    write(label_map, path, format="ome-zarr")
    write(label_map, path, format="ome-zarr")  # replaces the folder
    stored = labels.transpose() if axes == "XYZ" else labels
    with open_reader(path) as reader:
        assert reader.axes == ("YX" if axes == "YX" else "ZYX")
        expected = tuple(label_map.spacing or ())
        assert reader.spacing == (expected[::-1] if axes == "XYZ" else expected)
        assert len(reader.levels) >= 2
        for i, level in enumerate(reader.levels):
            part = stored[tuple(slice(None, None, 2**i) for _ in stored.shape)]
            np.testing.assert_array_equal(reader.read(whole(level.shape), i), part)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 2
    colors: Any = group.attrs["image-label"]
    assert colors["colors"][1] == {"label-value": 1, "rgba": [200, 30, 60, 255]}
    models = pytest.importorskip("ome_zarr_models.v04.image")
    models.ImageAttrs.model_validate(dict(group.attrs))
    labels_models = pytest.importorskip("ome_zarr_models.v04.image_label")
    labels_models.ImageLabelAttrs.model_validate(dict(group.attrs))


def test_nifti_keeps_the_geometry_of_its_input(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with open_reader(HEAD) as head, open_reader(BRAIN) as brain:
        labels = (brain.read(whole(brain.shape)) > 0).astype(np.int64)
        write(LabelMap(labels, "XYZ", head.spacing, "mm", CLASSES, head.affine), path, format="nifti", reader=head)
    ours, source = nib.load(path), nib.load(HEAD)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), labels)
    assert ours.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(ours.affine, source.affine)
    for field in ("qform_code", "sform_code", "xyzt_units", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(ours.header[field], source.header[field])


def test_nifti_of_a_stack_and_of_an_override(tmp_path: Path) -> None:
    labels = blobs((6, 20, 30))
    write(LabelMap(labels, "ZYX", (2.0, 0.5, 0.25), "µm", CLASSES), tmp_path / "a.nii.gz", format="nifti")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.transpose())
    np.testing.assert_allclose(image.header.get_zooms(), (0.00025, 0.0005, 0.002))
    with open_reader(HEAD, spacing=2.0) as head:
        assert head.spacing == (2.0, 2.0, 2.0)
        few = np.zeros(head.shape, np.uint8)
        label_map = LabelMap(few, "XYZ", head.spacing, "mm", CLASSES, head.affine)
        write(label_map, tmp_path / "b.nii.gz", format="nifti", reader=head)
    image = nib.load(tmp_path / "b.nii.gz")
    assert image.header.get_zooms() == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(np.diag(image.affine), [2, 2, 2, 1])


def rasterised(features: list[dict[str, Any]], shape: tuple[int, ...]) -> Any:
    """The class at every pixel centre, by point in polygon."""
    values = {c.name: c.value for c in CLASSES}
    rows, columns = np.indices(shape)
    out = np.zeros(shape, np.uint8)
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        inside = shapely.contains_xy(polygon, columns + 0.5, rows + 0.5)
        out[inside] = values[feature["properties"]["classification"]["name"]]
    return out


def features_of(label_map: LabelMap, path: Path, **options: Any) -> list[dict[str, Any]]:
    write(label_map, path, format="geojson", **options)
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    return list(collection["features"])


@pytest.mark.parametrize("block_size", [64, 97, 4096])
def test_geojson_is_exact_without_simplification(tmp_path: Path, block_size: int) -> None:
    labels = blobs((230, 311), seed=2)
    labels[100:140, 60:70] = np.indices((40, 10)).sum(0) % 2  # corners that touch
    features = features_of(plane(labels), tmp_path / "a.geojson", tolerance=0, min_area=0, block_size=block_size)
    np.testing.assert_array_equal(rasterised(features, labels.shape), labels)
    whole_image = features_of(plane(labels), tmp_path / "b.geojson", tolerance=0, min_area=0)

    def shapes(found: list[dict[str, Any]]) -> Any:
        return shapely.normalize(shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in found]))

    assert len(features) == len(whole_image)  # no cuts at the seams of blocks
    assert shapely.equals(shapes(features), shapes(whole_image))


def test_geojson_simplified_within_border_pixels(tmp_path: Path) -> None:
    labels = blobs((230, 311), seed=4)
    features = features_of(plane(labels), tmp_path / "a.geojson", block_size=100)
    wrong = rasterised(features, labels.shape) != labels
    same = np.ones(labels.shape, bool)
    for shift in np.ndindex(3, 3):
        padded = np.pad(labels, 1, mode="edge")
        same &= padded[shift[0] : shift[0] + 230, shift[1] : shift[1] + 311] == labels
    assert not (wrong & same).any()
    assert wrong.mean() < 0.005
    assert any(len(f["geometry"]["coordinates"]) > 1 for f in features)  # holes
    points = np.concatenate([np.asarray(r) for f in features for r in f["geometry"]["coordinates"]])
    assert points.min() >= 0
    assert (points.max(axis=0) <= (311, 230)).all()
    properties = features[0]["properties"]
    assert properties["objectType"] == "annotation"
    assert set(properties["classification"]) == {"name", "color"}


def test_geojson_small_many_and_none(tmp_path: Path) -> None:
    labels = np.zeros((200, 200), np.uint8)
    assert features_of(plane(labels), tmp_path / "a.geojson") == []
    labels[5:8, 5:8] = 1
    labels[50:60, 50:60] = 2
    found = features_of(plane(labels), tmp_path / "a.geojson", object_type="detection")
    assert [f["properties"]["classification"]["name"] for f in found] == ["stroma"]
    assert found[0]["properties"]["objectType"] == "detection"
    labels[:] = 1
    labels[2::4, 2::4] = 0  # 2500 holes: the sieve
    found = features_of(plane(labels), tmp_path / "a.geojson", block_size=64)
    assert len(found) == 1
    np.testing.assert_array_equal(rasterised(found, labels.shape), labels)


def test_overlay_of_a_slide(tmp_path: Path) -> None:
    with open_reader(SLIDE) as reader:
        labels = np.zeros(reader.shape[:2], np.uint8)
        labels[1000:2000, 600:1600] = 1
        write(plane(labels), tmp_path / "a.png", format="png", reader=reader)
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) <= 2048
        left, right = np.split(np.asarray(image.crop((0, 0, image.width // 2 * 2, image.height))), 2, axis=1)
    assert (left != right).any()
    write(plane(labels), tmp_path / "b.png", format="png")
    with Image.open(tmp_path / "b.png") as image:
        assert max(image.size) <= 2100


@pytest.mark.parametrize("axes", ["XYZ", "ZYX"])
def test_overlay_of_a_volume(tmp_path: Path, axes: str) -> None:
    labels = blobs((40, 50, 30))
    affine = np.diag([-0.7, 0.8, 1.5, 1.0]) if axes == "XYZ" else None
    label_map = LabelMap(labels, axes, (0.7, 0.8, 1.5), "mm", CLASSES, affine)
    write(label_map, tmp_path / "a.png", format="png")
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) <= 2048


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_failure_leaves_nothing(tmp_path: Path, format: str) -> None:
    class Broken:
        shape: tuple[int, ...] = (3000, 100) if format != "nifti" else (40, 30, 20)
        dtype = np.dtype(np.uint8)

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key[0], slice) and (key[0].start or 0) < 1000 and format != "nifti":
                return np.ones((3000, 100), np.uint8)[key] if format != "png" else 1 / 0
            raise OSError("disk gone")

    broken = Broken()
    label_map = LabelMap(broken, "XYZ", None, "mm", ()) if format == "nifti" else plane(broken)
    old = tmp_path / f"a{suffix_of(format)}"
    old.write_text("the previous result")
    options: dict[str, Any] = {"block_size": 500} if format == "geojson" else {}
    with pytest.raises((OSError, ZeroDivisionError)):
        write(label_map, old, format=format, **options)
    assert [p.name for p in tmp_path.iterdir()] == [old.name]
    assert old.read_text() == "the previous result"


def test_atomic_folder(tmp_path: Path) -> None:
    final = tmp_path / "a.zarr"
    for text in ("one", "two"):
        with atomic_path(final) as partial:
            partial.mkdir()
            (partial / "x").write_text(text)
            assert partial.name.startswith(".a.zarr.partial-")
        assert (final / "x").read_text() == text

    def fail() -> None:
        with atomic_path(final) as partial:
            partial.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (final / "x").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_wrong_axes_and_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of ome-tiff, ome-zarr, nifti, geojson, png"):
        write(plane(LABELS), tmp_path / "a", format="tiff")
    for format in ("ome-tiff", "geojson"):
        with pytest.raises(InputError, match="axes YX, got XYZ: write nifti or ome-zarr"):
            write(volume(blobs((9, 9, 9))), tmp_path / "a", format=format)
    with pytest.raises(InputError, match="axes XYZ or ZYX, got YX"):
        write(plane(LABELS), tmp_path / "a.nii.gz", format="nifti")
    with pytest.raises(InputError, match="not whole numbers"):
        write(plane(LABELS.astype(np.float32)), tmp_path / "a.ome.tif", format="ome-tiff")
    assert not list(tmp_path.iterdir())
