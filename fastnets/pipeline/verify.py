"""Measures the contract: the tiled result against the whole image in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fastnets.errors import InputError
from fastnets.io import open_reader
from fastnets.tiling.infer import make_plan, run_tiles
from fastnets.tiling.memory import format_bytes
from fastnets.tiling.tiles import TilePlan

from .grid import make_grid
from .predict import load_for_prediction


@dataclass(frozen=True)
class Verification:
    """max |tiled − whole|, where it is (channel and position on the working grid), and the output's range."""

    difference: float
    position: tuple[int, ...]
    output_range: float
    tiles: int
    tile_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def relative(self) -> float:
        """The difference as a fraction of the output's range."""
        return self.difference / self.output_range if self.output_range else self.difference


def verify(
    path: Path | str,
    *,
    model: str,
    weights: Path | str | None = None,
    layout: str | None = None,
    spacing: float | Sequence[float] | None = None,
    tile: int = 64,
    size: int | None = None,
    engine: str = "torch",
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Runs `model` over an image tiled and whole, and compares every value of the raw output.

    By torch the difference is that of the tiling alone; by the engine "fastnets", whose sums round differently at
    each position, it is that of what predict() does. The whole image must fit in memory; `size` takes only its
    first `size` pixels along every axis.
    """
    if size is not None and size < 1:
        raise InputError(f"size={size}: expected a positive number of pixels, or nothing for the whole image")
    network, recipe = load_for_prediction(model, weights, engine, layout)
    with open_reader(path, spacing=spacing) as reader:
        grid = make_grid(reader, recipe, model)
        spatial = tuple(min(n, size or n) for n in grid.shape[1:])
        shape = (grid.shape[0], *spatial)
        whole_plan = make_plan(network, shape, tile=max(spatial))
        free = int(psutil.virtual_memory().available)
        if whole_plan.tile_bytes > free:
            raise InputError(
                f"{path}: the whole image needs about {format_bytes(whole_plan.tile_bytes)} in one pass and "
                f"{format_bytes(free)} are free: compare a part of it with --size"
            )
        plan = make_plan(network, shape, tile=tile)
        if len(plan) == 1:
            raise InputError(
                f"tile={tile} covers the whole image {spatial}: give a smaller one, there is nothing to compare"
            )

        def report(done: int) -> None:
            if progress is not None:
                progress(done, len(plan) + len(whole_plan))

        tiled = _run(network, plan, grid.read, report, 0)
        whole = _run(network, whole_plan, grid.read, report, len(plan))
    delta = (tiled.double() - whole.double()).abs()
    worst = int(delta.argmax())
    return Verification(
        difference=float(delta.flatten()[worst]),
        position=tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), delta.shape)),
        output_range=float(whole.max() - whole.min()),
        tiles=len(plan),
        tile_shape=plan.crop_shape,
        shape=shape,
    )


def _run(
    network: torch.nn.Module,
    plan: TilePlan,
    read: Callable[[tuple[slice, ...]], torch.Tensor],
    report: Callable[[int], None],
    done: int,
) -> torch.Tensor:
    """The network's raw output (C, *spatial) by one plan; unwritten values stay NaN and would show."""
    result: list[torch.Tensor] = []

    def save(region: tuple[slice, ...], values: torch.Tensor) -> None:
        nonlocal done
        if not result:
            result.append(torch.full((values.shape[1], *plan.output), torch.nan, dtype=values.dtype))
        result[0][(slice(None), *region)] = values[0]
        done += 1
        report(done)

    run_tiles(network, plan, read, save)
    return result[0]
