"""`fastnets verify`: the tiled result against the whole image in one pass."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastnets.cli.options import Count, Engine, Json, Layout, Model, Spacing, Weights, one_or_all
from fastnets.cli.show import print_error, print_fields, print_json, times

if TYPE_CHECKING:
    from fastnets.pipeline import Verification

DIFFERENT = 1
TOLERANCES = {"torch": 1e-5, "fastnets": 1e-4}


def verify(
    *,
    path: Annotated[Path, Parameter(name=("--input", "-i"), metavar="PATH")],
    model: Model,
    weights: Weights = None,
    layout: Layout = None,
    spacing: Spacing = None,
    tile: Count = 64,
    size: Count | None = None,
    engine: Engine = "torch",
    tolerance: Annotated[float | None, Parameter(metavar="F")] = None,
    json: Json = False,
) -> int:
    """Measure how far the tiled result of a model is from its result on the whole image.

    Prints max |tiled − whole|, where it is, and what part of the output's range it is. Exit code 1 where that
    part is above the tolerance.

    For example:

        fastnets verify -i T1.nii.gz -m brain_unet3d
        fastnets verify -i slide.svs -m nuclei_demo --tile 256 --size 2000

    Parameters
    ----------
    path
        One image. The network runs on it in one pass, so it must fit in memory.
    tile
        Input pixels a tile contributes along each axis.
    size
        Compare only the first so many pixels along every axis.
    engine
        What runs the network. With torch the difference is that of the tiling alone; with fastnets, whose sums
        round differently at each position, it is that of what `predict` does.
    tolerance
        Largest accepted difference, as a fraction of the output's range: by default 1e-5 with torch and 1e-4 with
        fastnets.
    """
    from fastnets import pipeline
    from fastnets.cli.progress import RunProgress

    with RunProgress(1, quiet=json) as bars:
        report = bars.start(path)
        found = pipeline.verify(
            path,
            model=model,
            weights=weights,
            layout=layout,
            spacing=one_or_all(spacing),
            tile=tile,
            size=size,
            engine=engine,
            progress=lambda done, total: report("network", done, total),
        )
    limit = TOLERANCES[engine] if tolerance is None else tolerance
    same = found.relative <= limit  # not where the difference is NaN
    if json:
        print_json({"model": model, "source": path, **asdict(found), "relative": found.relative, "same": same})
    else:
        _print_found(found, path)
    if not same:
        print_error(
            f"{path}: the tiled result differs from the whole by {found.relative:.1e} of the output's range, "
            f"above the tolerance {limit:g}"
        )
    return 0 if same else DIFFERENT


def _print_found(found: Verification, path: Path) -> None:
    channel, *position = found.position
    fields = {
        "max |tiled − whole|": f"{found.difference:.3g}, in channel {channel} at ({', '.join(map(str, position))})",
        "output range": f"{found.output_range:.4g}",
        "as a fraction": f"{found.relative:.2e}",
        "tiles": f"{found.tiles} of {times(found.tile_shape)}, halo included",
        "compared": times(found.shape[1:]),
    }
    print_fields(fields, title=str(path))
