"""Which convolution kernel runs a layer, and how: a model of its cost in vector instructions."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass

from fastnets import _C

Axes = tuple[int, int, int]

# Winograd tiles by the number of axes with kernel 3; the kernel axes come last (see kernel_order in ops/conv.cpp).
TILES: dict[int, tuple[Axes, ...]] = {
    1: ((1, 1, 2), (1, 1, 4), (1, 1, 6)),
    2: ((1, 2, 2), (1, 4, 4), (1, 6, 6)),
    3: ((2, 2, 2), (2, 4, 4), (4, 4, 4)),
}


@dataclass(frozen=True)
class ConvConfig:
    """How a convolution runs.

    Args:
        algorithm: "product", "winograd", "grouped" or "depthwise".
        tile: Winograd's outputs along z, y, x; 1 along axes with kernel 1.
        block: output pixels (product) or tiles (winograd) of a work item.
        share: Winograd: the threads share transformed tiles and split the output channels.
        stream: stores past the caches.
    """

    algorithm: str
    tile: Axes = (1, 1, 1)
    block: int = 1
    share: bool = False
    stream: bool = False


@dataclass(frozen=True)
class ConvShape:
    """A convolution without its data; three axes, of which missing ones have size and kernel 1."""

    batch: int
    cin: int
    cout: int
    groups: int
    out: Axes
    kernel: Axes
    stride: Axes
    dilation: Axes

    @property
    def pixels(self) -> int:
        return self.batch * math.prod(self.out)


def choose(shape: ConvShape, nthreads: int, algorithm: str | None = None) -> ConvConfig:
    """The cheapest configuration, of `algorithm` where it is given, which must be able to run."""
    candidates: list[tuple[float, ConvConfig]] = []
    if algorithm == "depthwise" or (algorithm is None and depthwise_refusal(shape) is None and shape.groups > 1):
        return ConvConfig("depthwise", stream=_exceeds_cache(shape))
    if algorithm in (None, "grouped") and grouped_refusal(shape) is None:
        return ConvConfig("grouped")
    if algorithm in (None, "product"):
        candidates.append((_product_cost(shape), _product(shape)))
    if algorithm in (None, "winograd") and winograd_refusal(shape) is None:
        candidates += [(_winograd_cost(shape, tile), _winograd(shape, tile, nthreads)) for tile in tiles_of(shape)]
    return min(candidates, key=lambda pair: pair[0])[1]


def winograd_refusal(shape: ConvShape) -> str | None:
    """Why Winograd's algorithm cannot run `shape`."""
    if shape.stride != (1, 1, 1):
        return f"stride is {shape.stride}; it needs 1"
    if any(k not in (1, 3) for k in shape.kernel) or shape.kernel == (1, 1, 1):
        return f"kernel is {shape.kernel}; it needs 3 along some axes and 1 along the others"
    return None


def depthwise_refusal(shape: ConvShape) -> str | None:
    """Why the depthwise kernel cannot run `shape`."""
    if shape.groups != shape.cin:
        return f"{shape.cin} channels are in {shape.groups} groups; it needs one a group"
    return None


def grouped_refusal(shape: ConvShape) -> str | None:
    """Why the kernel for few channels a group cannot run `shape`."""
    inputs, lanes = shape.cin // shape.groups, _C.conv_lanes()
    if shape.groups == 1 or shape.cin != shape.cout or lanes % inputs or inputs == lanes:
        return (
            f"{shape.cin} channels to {shape.cout} in {shape.groups} groups; it needs groups of as many outputs as "
            f"inputs, a divisor of {lanes} and less"
        )
    return None


def tiles_of(shape: ConvShape) -> tuple[Axes, ...]:
    """The Winograd tiles for the kernel of `shape`, in its own order of axes."""
    axes = [axis for axis in range(3) if shape.kernel[axis] == 3]
    found = []
    for tile in TILES[len(axes)]:
        values = [1, 1, 1]
        for axis, outputs in zip(axes, tile[3 - len(axes) :], strict=True):
            values[axis] = outputs
        found.append((values[0], values[1], values[2]))
    return tuple(found)


# The model counts vector instructions of the slowest port. Its constants are fitted to measurements on Zen 4
# (bench/ops.py --fit): what a transform costs for each point and vector, and the share of the peak that the
# products of each kernel reach.
_GATHER, _INPUT, _OUTPUT = 2.0, 4.0, 3.0
_PRODUCT_SHARE, _WINOGRAD_SHARE = 0.85, 0.9
_BLOCK_BYTES = 512 << 10  # of V, half of a core's L2; and of a product's strip


def _vectors(channels: int) -> int:
    return -(-channels // _C.conv_lanes())


def _product_cost(shape: ConvShape) -> float:
    taps, inputs, outputs = math.prod(shape.kernel), shape.cin // shape.groups, shape.cout // shape.groups
    multiply = shape.pixels * taps * inputs * _vectors(outputs) / _PRODUCT_SHARE
    gather = shape.pixels * taps * _vectors(inputs) * _GATHER if taps > 1 else 0.0
    return shape.groups * (multiply + gather)


def _tile_count(shape: ConvShape, tile: Axes) -> int:
    count = shape.batch
    for size, outputs, step in zip(shape.out, tile, shape.dilation, strict=True):
        count *= sum(-(-len(range(phase, size, step)) // outputs) for phase in range(min(step, size)))
    return count


def _points(tile: Axes) -> int:
    return math.prod(t + 2 if t > 1 else 1 for t in tile)


def _winograd_cost(shape: ConvShape, tile: Axes) -> float:
    points, tiles = _points(tile), _tile_count(shape, tile)
    inputs, outputs = shape.cin // shape.groups, shape.cout // shape.groups
    multiply = inputs * _vectors(outputs) / _WINOGRAD_SHARE
    transform = _vectors(inputs) * _INPUT + _vectors(outputs) * _OUTPUT
    return shape.groups * tiles * points * (multiply + transform)


def _rows() -> int:
    """Rows of a product in registers (kMaxRows in cpu/micro_kernel.h)."""
    return 14 if _C.conv_lanes() == 16 else 6


def _block(row_floats: int, limit: int) -> int:
    """Rows that fill half of L2, in whole products of registers; at least one."""
    rows = _rows()
    return max(rows, min(limit, _BLOCK_BYTES // (4 * row_floats)) // rows * rows)


def _product(shape: ConvShape) -> ConvConfig:
    row = math.prod(shape.kernel) * shape.cin // shape.groups
    return ConvConfig("product", block=_block(row, 8 * _rows()), stream=_exceeds_cache(shape))


def _winograd(shape: ConvShape, tile: Axes, nthreads: int) -> ConvConfig:
    lanes, points = _C.conv_lanes(), _points(tile)
    inputs = _vectors(shape.cin // shape.groups) * lanes
    block = _block(points * inputs, 2 * _rows())
    return ConvConfig("winograd", tile, block, stream=_exceeds_cache(shape))


@functools.cache
def _last_level_bytes() -> int:
    """The size of the last-level cache, or 16 MiB where the system does not say."""
    name = "SC_LEVEL3_CACHE_SIZE"
    size = os.sysconf(name) if name in os.sysconf_names else 0
    return size if size > 0 else 16 << 20


def _exceeds_cache(shape: ConvShape) -> bool:
    return 4 * shape.pixels * shape.cout > _last_level_bytes() // 2
