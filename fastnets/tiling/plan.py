"""From an image's shape and a memory budget to an ordered list of tiles, each with the input that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

import torch
from torch import nn

from fastnets.errors import InputError

from .align import align
from .analysis import Analysis, exact_span
from .memory import format_bytes, gpu_budget, tile_budget
from .tiles import AxisTile, TilePlan
from .trace import Graph, Shape, peak_bytes, trace

# Allocator slack, and tensors that Python code keeps alive longer than the graph needs them.
SLACK = 1.25
# What an image is padded to for a network that refuses its size (skip connections that do not meet).
PADDING_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)


def plan_tiles(
    model: nn.Module,
    shape: Shape,
    *,
    tile: int | Sequence[int] | None = None,
    max_ram: str | int | None = None,
    reserve: int = 0,
    max_vram: str | int | None = None,
    gpu: torch.device | None = None,
    output: int = 0,
    exact: bool = True,
    dtype: torch.dtype = torch.float32,
) -> TilePlan:
    """Tiles whose outputs join to what `model` gives for the whole image of `shape` (C, *spatial).

    `tile` is the size, in input pixels, of the region that one tile contributes; the receptive field's halo comes
    on top. Without it, the largest tile is taken with which the process is estimated to stay under `max_ram`,
    `reserve` bytes of which are the caller's, or, for a network that runs on `gpu`, under `max_vram` there. Raises
    InputError where a layer forbids exact tiling along an axis that has to be cut, unless `exact` is False.
    """
    whole, padded = _trace_whole(model, shape, dtype)
    spatial = shape[1:]
    if not 0 <= output < len(whole.graph.outputs):
        raise InputError(f"output={output}: the model returns {len(whole.graph.outputs)} tensors, counted from 0")
    sizes = None if tile is None else _checked_sizes(tile, whole.spatial)
    whole_bytes = int(SLACK * peak_bytes(whole.graph)) + _held_bytes(whole, output)
    # Asked for after the trace, whose imports and graph stay in memory.
    budget, limit = 0, "max_ram" if gpu is None else "max_vram"
    if sizes is None:
        budget = tile_budget(max_ram, reserve) if gpu is None else gpu_budget(max_vram, gpu)
    fits = whole_bytes <= budget if sizes is None else all(s >= n for s, n in zip(sizes, padded, strict=True))
    if fits and padded == spatial:
        return _one_tile(whole, output, whole_bytes)
    jumps = [whole.output_jump(output, axis) for axis in range(whole.spatial)]
    steps = [_core_step(whole, axis, jump) for axis, jump in enumerate(jumps)]
    per_pixel = whole_bytes / prod(padded)
    if sizes is None:
        cores = _largest_core(whole, output, steps, per_pixel, budget, limit)
    else:
        cores = [ceil(size / step) * step for size, step in zip(sizes, steps, strict=True)]
    plan_axes = None
    while plan_axes is None:
        cuts = [_cut(whole, axis, output, core, jumps[axis]) for axis, core in enumerate(cores)]
        plan_axes = _place(model, whole, cuts, output, exact, shape[0], dtype)
        cores = [core * 2 for core in cores]  # the network refuses so small an input
    real = tuple(
        total if padded[a] == spatial[a] else min(total, ceil(spatial[a] / jumps[a]))
        for a, total in enumerate(whole.output_length(output, a) for a in range(whole.spatial))
    )
    axes = tuple(_clip(axis, size) for axis, size in zip(plan_axes, real, strict=True))
    crop = prod(max(t.stop - t.start for t in axis) for axis in axes)
    return TilePlan(spatial, padded, real, axes, int(per_pixel * crop))


def _checked_sizes(tile: int | Sequence[int], axes: int) -> list[int]:
    sizes = [tile] * axes if isinstance(tile, int) else list(tile)
    if len(sizes) != axes or min(sizes) < 1:
        raise InputError(f"tile={tile!r} must be a positive integer, or one for each of {axes} axes")
    return sizes


def _held_bytes(whole: Analysis, output: int) -> int:
    """What `run_tiles` holds beside the network's own tensors: two inputs read ahead, one result being written."""
    steps, graph = whole.graph.steps, whole.graph
    return 2 * steps[graph.images[0]].nbytes + steps[graph.outputs[output]].nbytes


def _one_tile(whole: Analysis, output: int, whole_bytes: int) -> TilePlan:
    """The whole image at once, which any network allows."""
    spatial, result = whole.shape(whole.graph.images[0])[2:], whole.shape(whole.graph.outputs[output])
    if len(result) < len(spatial):
        raise InputError(f"the model's output {result} has fewer dimensions than the image has spatial axes")
    ends = result[len(result) - len(spatial) :]
    axes = tuple((AxisTile(0, n, 0, end, 0),) for n, end in zip(spatial, ends, strict=True))
    return TilePlan(spatial, spatial, ends, axes, whole_bytes)


def _trace_whole(model: nn.Module, shape: Shape, dtype: torch.dtype) -> tuple[Analysis, Shape]:
    """The analysis of the whole image, padded at its ends to the smallest multiple that the network accepts."""
    try:
        return Analysis(trace(model, (1, *shape), dtype=dtype)), shape[1:]
    except InputError as error:
        if model.training:
            raise
        for multiple in PADDING_MULTIPLES:
            padded = tuple(ceil(n / multiple) * multiple for n in shape[1:])
            if padded == shape[1:]:
                continue
            try:
                return Analysis(trace(model, (1, shape[0], *padded), dtype=dtype)), padded
            except InputError:
                continue
        raise error


def _core_step(whole: Analysis, axis: int, jump: Fraction) -> int:
    """Tile sizes must be multiples of this: whole strides, and whole output pixels."""
    step = whole.alignment[axis]
    return step * (step / jump).denominator


@dataclass(frozen=True)
class _Cut:
    """One axis cut into outputs [lo, hi) with the input each reads, before crops get one common size."""

    outputs: list[tuple[int, int]]
    inputs: list[tuple[int, int]]
    size: int  # the common crop size


def _cut(whole: Analysis, axis: int, output: int, core: int, jump: Fraction) -> _Cut:
    length = whole.shape(whole.graph.images[0])[axis + 2]
    total = whole.output_length(output, axis)
    grid = whole.alignment[axis]
    width = int(core / jump)
    outputs = [(lo, min(lo + width, total)) for lo in range(0, total, width)]
    inputs = []
    for lo, hi in outputs:
        a, b = whole.needs(output, axis, lo, hi)
        inputs.append((a // grid * grid, b))
    size = max(ceil((b - a) / grid) * grid for a, b in inputs)
    if size >= length or len(outputs) == 1:
        return _Cut([(0, total)], [(0, length)], length)
    return _Cut(outputs, inputs, size)


def _crop_size(whole: Analysis, axis: int, output: int, core: int) -> int:
    """The crop that a tile in the middle of the image needs: `core` plus halo, on the stride's grid."""
    length = whole.shape(whole.graph.images[0])[axis + 2]
    jump = whole.output_jump(output, axis)
    grid = whole.alignment[axis]
    a, b = whole.needs(output, axis, 0, int(core / jump), clip=False)
    return min(length, ceil((b - a // grid * grid) / grid) * grid)


def _largest_core(
    whole: Analysis, output: int, steps: list[int], per_pixel: float, budget: int, limit: str
) -> list[int]:
    """The largest core, as near to a cube as the image allows, whose crop fits the budget."""
    lengths = whole.shape(whole.graph.images[0])[2:]
    ends = [ceil(n / step) * step for n, step in zip(lengths, steps, strict=True)]

    def bytes_for(cores: Sequence[int]) -> float:
        return per_pixel * prod(_crop_size(whole, a, output, core) for a, core in enumerate(cores))

    if bytes_for(ends) <= budget:
        return ends
    largest, best = max(ends), None
    low, high = 1, largest
    while low <= high:  # memory grows with the core: bisect its size
        middle = (low + high) // 2
        cores = [min(end, ceil(middle / step) * step) for end, step in zip(ends, steps, strict=True)]
        if bytes_for(cores) <= budget:
            best, low = cores, middle + 1
        else:
            high = middle - 1
    if best is None:
        least = bytes_for(steps)
        raise InputError(
            f"{limit} leaves {format_bytes(budget)} for a tile, and the smallest tile of this network "
            f"needs about {format_bytes(int(least))}: raise {limit} by {format_bytes(int(least) - budget)}"
        )
    # Equal parts instead of full tiles and a sliver.
    even = [ceil(n / ceil(n / core)) for n, core in zip(lengths, best, strict=True)]
    return [min(core, ceil(e / step) * step) for core, e, step in zip(best, even, steps, strict=True)]


def _place(
    model: nn.Module,
    whole: Analysis,
    cuts: list[_Cut],
    output: int,
    exact: bool,
    channels: int,
    dtype: torch.dtype,
) -> list[list[AxisTile]] | None:
    """Gives every tile a crop of the common size inside the image, and proves its outputs exact.

    None where the network cannot run on such a crop: it is too small.
    """
    lengths = whole.shape(whole.graph.images[0])[2:]
    tiled = {axis for axis, cut in enumerate(cuts) if len(cut.outputs) > 1}
    broken = [i for i in whole.inexact if i.axis in tiled]
    if broken and exact:
        layers = list(dict.fromkeys(str(i) for i in broken))
        more = f" (and {len(layers) - 3} more)" if len(layers) > 3 else ""
        raise InputError(
            f"this network cannot be tiled exactly: {'; '.join(layers[:3])}{more}. Give it more memory so that one "
            "tile holds the image, pass exact=False to accept seams, or use sliding_window_inference"
        )
    if not tiled:
        return [[AxisTile(0, cut.size, *cut.outputs[0], 0)] for cut in cuts]
    # Crops have one size, but for those that end at the border of an image that is no multiple of the grid.
    ends = [
        cut.size if axis not in tiled else cut.size + lengths[axis] % whole.alignment[axis]
        for axis, cut in enumerate(cuts)
    ]
    sizes = [cut.size for cut in cuts]
    try:
        graphs = [
            trace(model, (1, channels, *size), dtype=dtype) for size in ([sizes] if ends == sizes else [sizes, ends])
        ]
    except InputError:
        return None
    pairs = [_analyses(whole, graph) for graph in graphs]
    regular, at_end = pairs[0], pairs[-1]
    placed = []
    for axis, cut in enumerate(cuts):
        row = []
        for (lo, hi), (start, _) in zip(cut.outputs, cut.inputs, strict=True):
            stop = start + cut.size
            traces = regular
            if stop > lengths[axis] or axis not in tiled:
                start, stop, traces = lengths[axis] - ends[axis], lengths[axis], at_end
            span = exact_span(*traces, axis, start, output)
            if not (span.lo <= lo and hi <= span.hi):
                raise InputError(
                    f"axis {axis}: output {lo}:{hi} cannot be reproduced from input {start}:{stop} (exact there: "
                    f"{span.lo}:{span.hi}); the network's sizes are not consistent between tiles and image: pass halo=…"
                )
            row.append(AxisTile(start, stop, lo, hi, lo - span.start))
        placed.append(row)
    return placed


def _analyses(whole: Analysis, tile: Graph) -> tuple[Analysis, Analysis]:
    """Whole and tile with one numbering of their steps."""
    aligned, other = align(whole.graph, tile)
    return whole if len(aligned.steps) == len(whole.graph.steps) else Analysis(aligned), Analysis(other)


def _clip(axis: list[AxisTile], size: int) -> tuple[AxisTile, ...]:
    """Drops what lies in the padding beyond the real image."""
    return tuple(AxisTile(t.start, t.stop, t.lo, min(t.hi, size), t.local) for t in axis if t.lo < size)
