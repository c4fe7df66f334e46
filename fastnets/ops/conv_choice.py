"""Which convolution kernel runs a layer, and how: what tuning found, or the least cost (conv_cost.py)."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from fastnets import _C
from fastnets.machine import cache_bytes
from fastnets.ops.conv_config import Axes, ConvConfig, ConvShape, block_of, out_bytes, streams_of
from fastnets.ops.conv_cost import (
    direct_cost,
    narrow_cost,
    planar_cost,
    product_cost,
    product_rows,
    strassen_block,
    strassen_cost,
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
from fastnets.ops.winograd_choice import taps_slow_down, winograd_config

logger = logging.getLogger(__name__)

MIXING = frozenset({"strassen", "winograd"})
"""Algorithms that add values of several pixels before they multiply: the sums at a pixel of zeros are not quite 0."""

STRIDED_TILE: Axes = (1, 3, 3)
"""The tile of two axes with stride 2; 7 points along each."""


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
        return [(0.0, ConvConfig("depthwise", stream=out_bytes(shape) > cache_bytes(3) // 2))]
    if algorithm in (None, "grouped") and grouped_refusal(shape) is None:
        return [(0.0, ConvConfig("grouped"))]
    if algorithm in (None, "product"):
        found.append((product_cost(shape), _product(shape, nthreads)))
    if algorithm in (None, "direct") and direct_refusal(shape) is None:
        found.append((direct_cost(shape), ConvConfig("direct", stream=streams_of(shape, nthreads))))
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
                # Of a third or half of the weights, threads may share tiles where they do not of all (512 channels of
                # 14x14 took 0.85 of the time, 256 of 12x12x12 0.8), but not the other way round (256 of 56x56: 1.2).
                kept = winograd_config(shape, tile, nthreads, taps=True)
                kept = replace(config, taps=True) if config.share else kept
                found.append((winograd_cost(shape, tile, taps=taps_slow_down(shape, tile, kept)), kept))
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
_PIECE = 1024  # columns gathered at once, in float32 and of whole vectors of channels (cpu/conv_product.cpp)


def _product(shape: ConvShape, nthreads: int) -> ConvConfig:
    tiles = _C.has_tiles() and shape.itemsize == 2
    rows = 32 if tiles else product_rows()
    inputs = shape.cin // shape.groups
    depth = math.prod(shape.kernel) * inputs
    if shape.itemsize == 4 and inputs % _C.conv_lanes() == 0:
        depth = min(depth, max(_PIECE, inputs))
    fitting = _BLOCK_BYTES // (shape.itemsize * depth)
    # Pixels that are read in place may be more than L1 holds: single layers took 1.02 to 1.06 of the time with 56
    # instead of 112, networks 1.0 to 1.01 (Zen 5).
    # Splitting the output channels is left to the kernel (Plan::chunks); where pixels are gathered, each part does it.
    in_place = math.prod(shape.kernel) == 1
    most = max(rows, min((8 if in_place and not tiles else 4) * rows, fitting // rows * rows))
    threads = nthreads if in_place and shape.pixels > most else 1
    return ConvConfig("product", block=block_of(shape.pixels, most, threads), stream=streams_of(shape, nthreads))


def _strassen(shape: ConvShape, nthreads: int) -> ConvConfig:
    return ConvConfig("strassen", block=strassen_block(shape), stream=streams_of(shape, nthreads))


def _planar(shape: ConvShape, nthreads: int) -> ConvConfig:
    rows, length = shape.batch * shape.out[0] * shape.out[1], shape.out[2]
    parts = max(-(-length // (16 * product_rows())), 1 if nthreads == 1 else -(-8 * nthreads // max(1, rows)))
    return ConvConfig("planar", block=max(product_rows(), -(-length // parts)), stream=streams_of(shape, nthreads))
