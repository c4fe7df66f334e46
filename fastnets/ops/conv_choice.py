"""Which convolution kernel runs a layer, and how: what tuning found, or the least cost (conv_cost.py)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from fastnets import _C
from fastnets.machine import cache_bytes
from fastnets.ops.conv_cost import (
    direct_cost,
    narrow_cost,
    planar_cost,
    points_of,
    product_cost,
    product_rows,
    strassen_block,
    strassen_cost,
    tile_count,
    vectors,
    winograd_cost,
)
from fastnets.ops.conv_refusals import (
    REFUSALS,
    TILES,
    depthwise_refusal,
    direct_refusal,
    grouped_refusal,
    is_strided,
    joins_taps,
    narrow_refusal,
    planar_refusal,
    strassen_refusal,
    taps_refusal,
    winograd_refusal,
)
from fastnets.ops.tuned import key, user_choices

logger = logging.getLogger(__name__)

Axes = tuple[int, int, int]
Packing = tuple[str, Axes, bool]
"""What packed weights depend on: the algorithm, tile and taps of a configuration."""

MIXING = frozenset({"strassen", "winograd"})
"""Algorithms that add values of several pixels before they multiply: the sums at a pixel of zeros are not quite 0."""

STRIDED_TILE: Axes = (1, 3, 3)
"""The tile of two axes with stride 2; 7 points along each."""


@dataclass(frozen=True)
class ConvConfig:
    """How a convolution runs.

    Args:
        algorithm: "product", "direct" (by tiles of bfloat16), "strassen" (a product of fewer multiplications),
            "winograd", "planar", "narrow", "grouped" or "depthwise".
        tile: Winograd's outputs along z, y, x; 1 along axes with kernel 1, and 3 along those with stride 2.
        block: output pixels (product, strassen, planar, narrow) or tiles (winograd) of a work item.
        share: Winograd: the threads share transformed tiles and products, and read each weight once a block.
        stream: stores past the caches.
        taps: Winograd: weights are kept as taps along the last axis, which take less memory, and transformed while they
            are multiplied; kernels of 3, for whole panels of output channels.
    """

    algorithm: str
    tile: Axes = (1, 1, 1)
    block: int = 1
    share: bool = False
    stream: bool = False
    taps: bool = False

    @property
    def packing(self) -> Packing:
        return self.algorithm, self.tile, self.taps


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
    itemsize: int = 4
    """Bytes of an element: 4 for float32, 2 for bfloat16."""

    @property
    def pixels(self) -> int:
        return self.batch * math.prod(self.out)


def choose(shape: ConvShape, nthreads: int, algorithm: str | None = None, *, direct: bool = False) -> ConvConfig:
    """The tuned configuration, or else what the heuristic says; of `algorithm` where it is given, which must run.

    Args:
        direct: none of MIXING.
    """
    tuned = _tuned(shape, nthreads)
    if tuned and algorithm in (None, tuned.algorithm) and not (direct and tuned.algorithm in MIXING):
        return tuned
    return heuristic(shape, nthreads, algorithm, direct=direct)


def tuning_key(shape: ConvShape, nthreads: int) -> str:
    """Where the tuned choice is kept."""
    return key("conv", shape, nthreads)


def _tuned(shape: ConvShape, nthreads: int) -> ConvConfig | None:
    found = user_choices().find(tuning_key(shape, nthreads))
    if found is None:
        return None
    try:
        config = ConvConfig(**{**found, "tile": tuple(found["tile"])})
        reason = REFUSALS[config.algorithm](shape)
        if config.algorithm == "winograd" and config.tile not in tiles_of(shape):
            reason = f"there is no tile {config.tile}"
        elif config.taps:
            reason = taps_refusal(shape, config.tile)
        if not isinstance(config.block, int) or config.block < 1:
            reason = f"block is {config.block}"
    except (KeyError, TypeError) as error:
        reason = repr(error)
    if reason is None:
        return config
    logger.warning("the tuned choice %s for %s is left aside: %s", found, shape, reason)
    return None


def heuristic(shape: ConvShape, nthreads: int, algorithm: str | None = None, *, direct: bool = False) -> ConvConfig:
    """The cheapest configuration by conv_cost.py, of `algorithm` where it is given, which must be able to run."""
    found = candidates(shape, nthreads, algorithm)
    return min((pair for pair in found if not (direct and pair[1].algorithm in MIXING)), key=lambda pair: pair[0])[1]


def least_cost(shape: ConvShape, nthreads: int) -> float:
    """What the heuristic's choice costs, in the units of conv_cost.py."""
    return min(cost for cost, _ in candidates(shape, nthreads))


def candidates(shape: ConvShape, nthreads: int, algorithm: str | None = None) -> list[tuple[float, ConvConfig]]:
    """One configuration a kernel and a tile that can run, with its cost."""
    found: list[tuple[float, ConvConfig]] = []
    if algorithm == "depthwise" or (algorithm is None and depthwise_refusal(shape) is None and shape.groups > 1):
        # It waits for memory, which a store past L3 makes worse: 0.63 ms instead of 0.44 for 6 MiB.
        return [(0.0, ConvConfig("depthwise", stream=_out_bytes(shape) > cache_bytes(3) // 2))]
    if algorithm in (None, "grouped") and grouped_refusal(shape) is None:
        return [(0.0, ConvConfig("grouped"))]
    if algorithm in (None, "product"):
        found.append((product_cost(shape), _product(shape, nthreads)))
    if algorithm in (None, "direct") and direct_refusal(shape) is None:
        found.append((direct_cost(shape), ConvConfig("direct", stream=_streams(shape, nthreads))))
    if algorithm in (None, "strassen") and strassen_refusal(shape) is None:
        found.append((strassen_cost(shape), _strassen(shape, nthreads)))
    # By tiles, layers took 0.47 to 0.94 of the time of Winograd's algorithm, which computes in float32, and with joined
    # taps 0.28 to 0.8 of the planar kernel's (Emerald Rapids).
    by_tiles = algorithm is None and direct_refusal(shape) is None
    if algorithm in (None, "winograd") and winograd_refusal(shape) is None and not by_tiles:
        for tile in tiles_of(shape):
            config = winograd_config(shape, tile, nthreads)
            found.append((winograd_cost(shape, tile), config))
            if taps_refusal(shape, tile) is None and product_rows() > 6:  # beside six rows, transforms take too long
                slower = _taps_slow_down(shape, tile, config)
                found.append((winograd_cost(shape, tile, taps=slower), replace(config, taps=True)))
    if algorithm in (None, "planar") and planar_refusal(shape) is None and not (by_tiles and joins_taps(shape)):
        found.append((planar_cost(shape), _planar(shape, nthreads)))
    if algorithm in (None, "narrow") and narrow_refusal(shape) is None:
        found.append((narrow_cost(shape), ConvConfig("narrow", block=_NARROW_PIXELS)))
    return found


def tiles_of(shape: ConvShape) -> tuple[Axes, ...]:
    """The Winograd tiles for the kernel of `shape`, in its own order of axes."""
    axes = [axis for axis in range(3) if shape.kernel[axis] > 1]
    found = []
    for tile in (STRIDED_TILE,) if is_strided(shape) else TILES[shape.kernel[axes[0]], len(axes)]:
        values = [1, 1, 1]
        for axis, outputs in zip(axes, tile[3 - len(axes) :], strict=True):
            values[axis] = outputs
        found.append((values[0], values[1], values[2]))
    return tuple(found)


_NARROW_PIXELS = 1024
_BLOCK_BYTES = cache_bytes(2) // 2  # for the gathered pixels of an item
_PIECE = 1024  # columns that are gathered at once, in float32 (kPieceDepth in cpu/conv_product.cpp)
_SHARED_BYTES = cache_bytes(3) * 2 // 3  # for the transformed tiles and products that threads share
_MOST_SHARED = 64  # tiles of a block
_LARGE_L2 = 2 << 20
_ENOUGH_ROWS = 12  # of a product, not to wait for the weights


def _block(count: int, most: int, nthreads: int) -> int:
    """How many of `count` rows an item takes: at most `most`, and equal parts for all threads where items are few."""
    items = max(1, -(-count // most))
    if items < 8 * nthreads:
        items = -(-items // nthreads) * nthreads
    return max(1, -(-count // items))


def _product(shape: ConvShape, nthreads: int) -> ConvConfig:
    tiles = _C.has_tiles() and shape.itemsize == 2
    rows = 32 if tiles else product_rows()
    depth = math.prod(shape.kernel) * shape.cin // shape.groups
    if shape.itemsize == 4:
        depth = min(depth, max(_PIECE, shape.cin // shape.groups))
    fitting = _BLOCK_BYTES // (shape.itemsize * depth)
    # Pixels that are read in place may be more than L1 holds: single layers took 1.02 to 1.06 of the time with 56
    # instead of 112, networks 1.0 to 1.01 (Zen 5).
    # Splitting the output channels is left to the kernel (Plan::chunks); where pixels are gathered, each part does it.
    in_place = math.prod(shape.kernel) == 1
    most = max(rows, min((8 if in_place and not tiles else 4) * rows, fitting // rows * rows))
    threads = nthreads if in_place and shape.pixels > most else 1
    return ConvConfig("product", block=_block(shape.pixels, most, threads), stream=_streams(shape, nthreads))


def _strassen(shape: ConvShape, nthreads: int) -> ConvConfig:
    return ConvConfig("strassen", block=strassen_block(shape), stream=_streams(shape, nthreads))


def _planar(shape: ConvShape, nthreads: int) -> ConvConfig:
    rows, length = shape.batch * shape.out[0] * shape.out[1], shape.out[2]
    parts = max(-(-length // (16 * product_rows())), 1 if nthreads == 1 else -(-8 * nthreads // max(1, rows)))
    return ConvConfig("planar", block=max(product_rows(), -(-length // parts)), stream=_streams(shape, nthreads))


def winograd_config(shape: ConvShape, tile: Axes, nthreads: int) -> ConvConfig:
    """How Winograd's algorithm cuts `shape` into items, and what its threads share."""
    lanes, points, tiles = _C.conv_lanes(), points_of(shape, tile), tile_count(shape, tile)
    inputs, outputs = shape.cin // shape.groups, shape.cout // shape.groups
    # Smaller outputs are fetched a tile ahead (ops/conv.cpp), which is as fast, and the next layer finds them in L3.
    stream = _streams(shape, nthreads) and _out_bytes(shape) >= cache_bytes(3) // 2
    both = 4 * points * lanes * (vectors(inputs) + vectors(outputs))  # bytes of a tile and its products
    weights = 4 * points * inputs * vectors(outputs) * lanes
    # An item of a thread's own is two products of tiles, whether L2 holds them or not, as each item reads all weights:
    # one took 1.05 to 1.8 of the time from 128 channels on, and in 3D 1.04 to 1.1; by AVX2, three or four took 1.03 to
    # 1.2 (Zen 5). Where a few less leave half of L2 for the rest, these (64 channels, dilated: 1.03); and where L3
    # would hold little else than tiles, no more than a quarter of it (256 channels of 24 x 24 x 24: 1.2).
    rows = product_rows()
    most, tile_bytes = 2 * rows, 4 * points * lanes * vectors(inputs)
    fitting = cache_bytes(2) // 2 // (tile_bytes + 2 * 4 * points * lanes)
    if most * 3 // 4 <= fitting:
        most = min(most, fitting)
    most = max(rows, min(most, cache_bytes(3) // 4 // (nthreads * tile_bytes)))
    shared = max(1, -(-tiles // max(1, min(_MOST_SHARED, _SHARED_BYTES // both))))  # times that weights are read
    together = ConvConfig("winograd", tile, max(1, -(-tiles // shared)), True, stream)
    may_share = vectors(outputs) >= 4 * nthreads  # panels of output channels (2 vectors each) for all
    # Where L2 is as large as that of Intel's servers, L3 is a mesh that gives a core few bytes a cycle: what is read
    # from there decides. A panel of an item reads all of its tiles, unless L2 holds them beside the weights; threads
    # that share read tiles and products once. 256 channels at 56 x 56 took 0.75 of the time, 512 at 28 x 28 0.82,
    # VGG-16's features 0.95, U-Net 0.93 (Emerald Rapids).
    if may_share and cache_bytes(2) >= _LARGE_L2:
        block = _block(tiles, most, nthreads) if tiles > most else max(1, tiles)
        held = 20 * block * (tile_bytes + 2 * 4 * points * lanes) <= 11 * cache_bytes(2)
        alone = (0 if held else tile_bytes * (1 + vectors(outputs) / 2)) + weights / block
        if 1.3 * (2 * both + weights * shared / max(1, tiles)) < alone:
            return together
    # A line that another core has read takes 1.4 ns to write again where they share an L3, 8 ns where they do not.
    # So where L2 holds most of all tiles, each thread has its own: some of them, if those fill a product (128 channels
    # at 28 x 28: as fast as shared ones with one L3, 0.63 of their time with two), or all of them and a part of the
    # output channels (256 at 14 x 14: as fast, and 0.85). Together: ResNet-50 0.99, and 0.97 with two. Tiles of two
    # products are all for each thread, too, whether L2 holds them or not (512 at 28 x 28: 0.95).
    local = 2 * tiles * tile_bytes <= 3 * cache_bytes(2)
    few = tiles < _ENOUGH_ROWS * nthreads if local else tiles <= most
    if few and may_share:
        return ConvConfig("winograd", tile, max(1, tiles), stream=stream)
    # Threads that share tiles read the weights once for all, but each other's tiles and products from L3. It pays where
    # weights are most of what is read, if they are so read less often (1024 channels at 64 x 64: 0.8 of the time; as
    # often, 512 at 56 x 56: 1.1), or tiles are few.
    own = -(-tiles // (most * nthreads))
    pays = 7 * tiles * both < 3 * weights and (shared < own or tiles < 4 * rows)
    if not local and pays and may_share:
        return together
    return ConvConfig("winograd", tile, _block(tiles, most, nthreads), stream=stream)


def _taps_slow_down(shape: ConvShape, tile: Axes, config: ConvConfig) -> float:
    """How much longer products take whose weights are transformed meanwhile.

    Threads that share tiles read each weight once, and others once an item, of which taps are a third or half. Of what
    L2 holds it counts little (64 channels: 1.01 to 1.03 of the time). Layers of more took 1.01 to 1.05 of the time with
    one L3 for all cores, and 0.87 to 0.99 with two (128 channels: 1.0 and 0.88; Zen 5).
    """
    weights = 4 * points_of(shape, tile) * shape.cin // shape.groups * vectors(shape.cout // shape.groups)
    return 1.1 if config.share or weights * _C.conv_lanes() <= 2 * cache_bytes(2) else 1.0


def _out_bytes(shape: ConvShape) -> int:
    return shape.itemsize * shape.pixels * shape.cout


def _streams(shape: ConvShape, nthreads: int) -> bool:
    return streams(shape.pixels * shape.cout, shape.itemsize, nthreads)


def streams(out_elements: int, itemsize: int, nthreads: int) -> bool:
    """Whether a kernel that multiplies a lot stores past the caches: outputs of which the threads' L2 lack half.

    The next layer then reads it from L3 or memory in any case, and a store to L3 reads the line first. Against a
    threshold of half of L3, networks ran up to 7 % faster, and dilated ones 16 to 22 %. Against one of all of it in
    L2, MobileNetV1, whose first results are 3 MiB, runs 3 % faster, and GoogLeNet 6 % (Zen 5). A vector of bfloat16 is
    half a cache line, of which the store waits for the other half: layers ran 1 to 8 % slower.
    """
    return itemsize == 4 and out_elements * itemsize > 2 * nthreads * cache_bytes(2)
