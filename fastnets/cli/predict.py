"""`fastnets predict`: images in, label maps out."""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastnets.cli.options import FLAG, Count, Engine, Inputs, Json, Layout, Model, Spacing, Weights, one_or_all
from fastnets.cli.show import print_fields, print_json, rate, stdout, times

if TYPE_CHECKING:
    from fastnets.pipeline import Prediction

MUCH_HALO = 2.0  # times the work of one tile, above which the user is told


def predict(
    *,
    inputs: Inputs,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="DIR")],
    model: Model,
    weights: Weights = None,
    layout: Layout = None,
    spacing: Spacing = None,
    formats: Annotated[
        list[str] | None, Parameter(name="--format", metavar="NAME...", consume_multiple=True, negative=())
    ] = None,
    tile: Count | None = None,
    max_ram: Annotated[str | None, Parameter(metavar="SIZE")] = None,
    device: Annotated[str, Parameter(metavar="NAME")] = "cpu",
    max_vram: Annotated[str | None, Parameter(metavar="SIZE")] = None,
    engine: Engine = "fastnets",
    overwrite: Annotated[bool, FLAG] = False,
    json: Json = False,
    quiet: Annotated[bool, FLAG, Parameter(name=("--quiet", "-q"))] = False,
) -> None:
    """Run a model over slides, volumes or pictures, and write what viewers open.

    The result is that of the network on the whole image at once, without seams, whatever the tiles. A file
    appears under its final name only when it is complete.

    For example:

        fastnets predict -i slide.svs -o out/ -m nuclei_demo
        fastnets predict -i slides/ more/*.tif -o out/ -m nuclei_demo --max-ram 2GB
        fastnets predict -i slide.svs -o out/ -m nuclei_demo --device cuda --max-vram 8GB
        fastnets predict -i photo.png -o out/ -m nuclei_demo --mpp 0.5
        fastnets predict -i T1.nii.gz -o out/ -m brain_unet3d --format nifti --json

    Parameters
    ----------
    inputs
        Files, folders and patterns. A folder stands for the images right inside it.
    output
        Folder of the results; made if missing.
    formats
        Any of ome-tiff, ome-zarr, nifti, geojson, png. By default ome-tiff, geojson and png (an overlay) for
        slides and pictures, nifti and png for volumes.
    tile
        Input pixels a tile contributes along each axis. By default as many as --max-ram allows.
    max_ram
        Limit for the memory of the whole process, such as 500MB or 2GiB; pages of libraries, which the system can
        drop, are not counted. By default half of what is free.
    device
        Where the network runs: cpu, or cuda (cuda:1 is the second) for an NVIDIA GPU.
    max_vram
        Limit for the memory of the GPU: it decides the tiles there. By default four fifths of what is free.
    overwrite
        Replace results that exist.
    quiet
        No progress on stderr.
    """
    from fastnets import pipeline
    from fastnets.cli.progress import Report, RunProgress
    from fastnets.io import find_inputs, open_reader
    from fastnets.models import get_entry

    paths = find_inputs(inputs)
    true_spacing = one_or_all(spacing)
    recipe = get_entry(model).recipe
    caution = recipe.caution if recipe is not None else ""
    with RunProgress(len(paths), caution=caution, quiet=quiet) as bars:

        def start(path: Path) -> Report:
            with open_reader(path, spacing=true_spacing) as reader:
                shape = reader.levels[0].shape
            return bars.start(path, prod(shape), len(shape))

        results = pipeline.predict(
            paths,
            output,
            model=model,
            weights=weights,
            layout=layout,
            spacing=true_spacing,
            formats=formats,
            tile=tile,
            max_ram=max_ram,
            device=device,
            max_vram=max_vram,
            engine=engine,
            overwrite=overwrite,
            progress=start,
        )
    if json:
        print_json({"model": model, "caution": caution, "results": [asdict(result) for result in results]})
        return
    for result in results:
        stdout().print()
        _print_result(result)


def _print_result(result: Prediction) -> None:
    from fastnets.tiling.memory import format_bytes

    dims = len(result.tile_shape)
    word = "voxels" if dims == 3 else "pixels"
    fields = {name: str(path) for name, path in result.files.items()}
    fields[word] = f"{result.pixels:,} in {result.seconds:.1f} s: {rate(result.pixels / result.seconds, dims)}"
    fields["tiles"] = f"{result.tiles} of up to {times(result.tile_shape)}"
    if result.work > MUCH_HALO:
        fields["tiles"] += f": halos make {result.work:.1f} times the work of one tile; more --max-ram is faster"
    fields["peak memory"] = format_bytes(result.peak_bytes)
    fields["seconds"] = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.stages.items())
    fields["classes"] = ", ".join(f"{name} {share:.1%}" for name, share in result.classes.items())
    print_fields(fields, title=str(result.source))
