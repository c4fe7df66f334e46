"""From files to label maps: the two demonstrations on their real inputs, and the working grid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fastnets.errors import InputError
from fastnets.io import open_reader
from fastnets.models import get_entry
from fastnets.models.recipe import DivideByMax, Recipe
from fastnets.pipeline import predict, verify
from fastnets.pipeline.grid import StreamedGrid, make_grid

DATA = Path(__file__).parent / "data"
SLIDE, MRI = DATA / "cmu_small_region.svs", DATA / "ch2.nii.gz"


def _recipe(name: str) -> Recipe:
    recipe = get_entry(name).recipe
    assert recipe is not None
    return recipe


@pytest.fixture(scope="module")
def slide_result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    results = predict(SLIDE, tmp_path_factory.mktemp("slide"), model="nuclei_demo", tile=512)
    assert results[0].tiles > 20
    assert set(results[0].stages) == {"plan", "read", "decode", "network", "merge", "write"}
    assert results[0].stages["decode"] > 0
    assert sum(results[0].classes.values()) == pytest.approx(1)
    return results[0].files


def test_brain_mask_of_a_real_mri(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    files = predict(MRI, tmp_path, model="brain_unet3d")[0].files
    mask, source = nibabel.load(files["nifti"]), nibabel.load(MRI)
    assert mask.shape == source.shape
    np.testing.assert_array_equal(mask.affine, source.affine)
    mine = np.asarray(mask.dataobj) > 0
    truth = np.asarray(nibabel.load(DATA / "ch2bet.nii.gz").dataobj) > 0
    dice = 2 * np.count_nonzero(mine & truth) / (np.count_nonzero(mine) + np.count_nonzero(truth))
    print(f"Dice of the brain mask against ch2bet > 0: {dice:.4f}")
    assert dice >= 0.925
    with Image.open(files["png"]) as picture:
        assert min(picture.size) > 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ch2.labels.nii.gz", "ch2.overlay.png"]


def test_slide_labels_open_in_openslide(slide_result: dict[str, Path]) -> None:
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(slide_result["ome-tiff"]) as slide, openslide.OpenSlide(SLIDE) as source:
        assert slide.dimensions == source.dimensions
        for key in ("openslide.mpp-x", "openslide.mpp-y"):
            assert float(slide.properties[key]) == pytest.approx(float(source.properties[key]), rel=1e-4)
    labels = tifffile.imread(slide_result["ome-tiff"])
    assert 0.01 < (labels == 1).mean() < 0.2


def test_slide_polygons_lie_within_the_slide(slide_result: dict[str, Path]) -> None:
    shapely = pytest.importorskip("shapely")
    features = json.loads(slide_result["geojson"].read_text())["features"]
    assert len(features) > 500
    box = shapely.box(0, 0, 2220, 2967)
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        assert box.covers(polygon)
        assert feature["properties"]["classification"]["name"] == "nucleus"


def test_tiles_leave_no_trace_in_the_labels(slide_result: dict[str, Path], tmp_path: Path) -> None:
    other = predict(SLIDE, tmp_path, model="nuclei_demo", tile=[320, 448], formats=["ome-tiff"])[0]
    a, b = tifffile.imread(slide_result["ome-tiff"]), tifffile.imread(other.files["ome-tiff"])
    # Two classes that tie to float rounding may fall either way.
    assert np.count_nonzero(a != b) <= 3


def test_verify_on_the_mri() -> None:
    result = verify(MRI, model="brain_unet3d", tile=64)
    print(f"max |tiled - whole| = {result.difference:.2e} of a range of {result.output_range:.3f}")
    assert result.tiles == 8
    assert result.relative <= 1e-5


def test_verify_needs_more_than_one_tile() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        verify(SLIDE, model="nuclei_demo", tile=512, size=300)


def _tiff(path: Path, mpp: float | None, shape: tuple[int, int] = (300, 260), levels: int = 1) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            scale = {} if mpp is None else {"resolution": (1e4 / mpp / 2**level,) * 2, "resolutionunit": "CENTIMETER"}
            file.write(pixels[:: 2**level, :: 2**level], subfiletype=bool(level), **options, **scale)
    return path


def test_a_finer_slide_is_resampled_without_seams(tmp_path: Path) -> None:
    with open_reader(_tiff(tmp_path / "fine.tif", 0.37)) as reader:
        grid = make_grid(reader, _recipe("nuclei_demo"), "nuclei_demo")
        assert isinstance(grid, StreamedGrid)
        assert grid.resampled
        assert grid.shape == (3, 222, 192)
        whole = grid.read((slice(0, 222), slice(0, 192))).numpy()
        for rows, columns in (((0, 50), (0, 192)), ((50, 101), (33, 77)), ((150, 222), (100, 192))):
            part = grid.read((slice(*rows), slice(*columns))).numpy()
            np.testing.assert_allclose(part, whole[:, slice(*rows), slice(*columns)], atol=1e-4)


def test_labels_of_a_resampled_slide_keep_its_geometry(tmp_path: Path) -> None:
    with open_reader(SLIDE) as reader:
        pixels = np.repeat(np.repeat(reader.read((slice(1000, 1200), slice(700, 860))), 2, 0), 2, 1)
    path = tmp_path / "fine.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    files = predict(path, tmp_path / "out", model="nuclei_demo")[0].files
    with tifffile.TiffFile(files["ome-tiff"]) as file:
        assert file.pages.first.shape == (200, 160)
    with open_reader(files["ome-tiff"]) as reader:
        assert reader.spacing == pytest.approx((0.5, 0.5), rel=1e-3)
    features = json.loads(files["geojson"].read_text())["features"]
    corners = np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in features])
    assert corners[:, 1].max() > 201  # level-0 pixels, not those of the labels
    assert (corners.max(0) <= (320, 400)).all()


def test_the_pyramid_level_with_the_spacing_is_used(tmp_path: Path) -> None:
    with open_reader(_tiff(tmp_path / "pyramid.tif", 0.25, (512, 512), levels=2)) as reader:
        grid = make_grid(reader, _recipe("nuclei_demo"), "nuclei_demo")
        assert isinstance(grid, StreamedGrid)
        assert (grid.level, grid.resampled, grid.level0_scale) == (1, False, (2.0, 2.0))


def test_unknown_spacing_is_asked_for(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "bare.tif", None)
    with pytest.raises(InputError, match=r"does not say how large a pixel is \(tried .*\): give it with --mpp"):
        predict(path, tmp_path / "out", model="nuclei_demo")
    assert not (tmp_path / "out").exists()
    assert predict(path, tmp_path / "out", model="nuclei_demo", spacing=0.5, formats=["png"])[0].tiles == 1


def test_normalisation_by_the_maximum_of_a_streamed_image(tmp_path: Path) -> None:
    recipe = replace(_recipe("nuclei_demo"), normalize=DivideByMax())
    with open_reader(_tiff(tmp_path / "a.tif", 0.5)) as reader:
        grid = make_grid(reader, recipe, "x")
        part = grid.read((slice(0, 40), slice(0, 40))).numpy()
        whole = reader.read((slice(0, 300), slice(0, 260)))
        np.testing.assert_allclose(part, np.moveaxis(whole[:40, :40], -1, 0) / np.float32(whole.max()), rtol=1e-6)


def test_images_of_another_kind_are_refused(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(grey)
    with pytest.raises(InputError, match="has 1 channels, and nuclei_demo takes 3: convert it to RGB"):
        predict(grey, tmp_path / "out", model="nuclei_demo", spacing=0.5)
    with pytest.raises(InputError, match=r"brain_unet3d takes volumes"):
        predict(SLIDE, tmp_path / "out", model="brain_unet3d")
    with pytest.raises(InputError, match="model 'unet' has no recipe"):
        predict(SLIDE, tmp_path / "out", model="unet")


def test_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "a.tif", 0.5)
    predict(path, tmp_path / "out", model="nuclei_demo", formats=["png"])
    with pytest.raises(InputError, match="exists already: pass --overwrite"):
        predict(path, tmp_path / "out", model="nuclei_demo", formats=["png"])
    predict(path, tmp_path / "out", model="nuclei_demo", formats=["png"], overwrite=True)


def test_a_failing_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("fastnets.io.overlay.write_overlay", fail)
    with pytest.raises(OSError, match="disk full"):
        predict(_tiff(tmp_path / "a.tif", 0.5), tmp_path / "out", model="nuclei_demo")
    assert not any((tmp_path / "out").iterdir())
