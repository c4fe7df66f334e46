"""How Winograd's algorithm cuts a convolution into items, and what its threads share."""

from __future__ import annotations

from fastnets import _C
from fastnets.machine import cache_bytes
from fastnets.ops.conv_config import Axes, ConvConfig, ConvShape, block_of, out_bytes, streams_of
from fastnets.ops.conv_cost import points_of, product_rows, tile_count, vectors

LARGE_L2 = 2 << 20  # bytes, as of Intel's servers

_SHARED_BYTES = cache_bytes(3) * 2 // 3  # for the transformed tiles and products that threads share
_MOST_SHARED = 64  # tiles of a block
_ENOUGH_ROWS = 12  # of a product, not to wait for the weights


def winograd_config(shape: ConvShape, tile: Axes, nthreads: int, *, taps: bool = False) -> ConvConfig:
    """How Winograd's algorithm cuts `shape` into items, and what its threads share; `taps` as in ConvConfig."""
    lanes, points, tiles = _C.conv_lanes(), points_of(shape, tile), tile_count(shape, tile)
    inputs, outputs = shape.cin // shape.groups, shape.cout // shape.groups
    # Smaller outputs are fetched a tile ahead (ops/conv.cpp), which is as fast, and the next layer finds them in L3.
    stream = streams_of(shape, nthreads) and out_bytes(shape) >= cache_bytes(3) // 2
    both = 4 * points * lanes * (vectors(inputs) + vectors(outputs))  # bytes of a tile and its products
    weights = 4 * points * inputs * vectors(outputs) * lanes
    kept = weights * shape.kernel[2] // (tile[2] + shape.kernel[2] - 1) if taps else weights
    # An item of a thread's own is two products of tiles, whether L2 holds them or not, as each item reads all weights:
    # one took 1.05 to 1.8 of the time from 128 channels on, and in 3D 1.04 to 1.1; by AVX2, three or four took 1.03 to
    # 1.2 (Zen 5). Where a few less leave half of L2 for the rest, these (64 channels, dilated: 1.03); and where L3
    # would hold little else than tiles, no more than a quarter of it (256 channels of 24 x 24 x 24: 1.2).
    rows = product_rows()
    most, tile_bytes = 2 * rows, 4 * points * lanes * vectors(inputs)
    fitting = cache_bytes(2) // 2 // (tile_bytes + 2 * 4 * points * lanes)
    if most * 3 // 4 <= fitting:
        most = min(most, fitting)

    def beyond(block: int) -> float:
        """Bytes that a tile takes from beyond L2: its weights, and where L2 does not hold an item, V for each panel."""
        held = block * (tile_bytes + 2 * 4 * points * lanes) <= 0.56 * cache_bytes(2)
        return (0 if held else tile_bytes * (1 + vectors(outputs) / 2)) + kept / block

    # Beside L2s of this size, L3 is a mesh that gives a core few bytes a cycle: with one product of tiles an item, 32
    # channels of 96 x 96 x 96 took 0.78 of the time, 64 to 32 0.9, and transposed ones 0.79 (Emerald Rapids).
    if cache_bytes(2) >= LARGE_L2 and beyond(rows) < 0.9 * beyond(most):
        most = rows
    most = max(rows, min(most, cache_bytes(3) // 4 // (nthreads * tile_bytes)))
    shared = max(1, -(-tiles // max(1, min(_MOST_SHARED, _SHARED_BYTES // both))))  # times that weights are read
    together = ConvConfig("winograd", tile, max(1, -(-tiles // shared)), True, stream, taps)
    may_share = vectors(outputs) >= 4 * nthreads  # panels of output channels (2 vectors each) for all
    # Threads that share read tiles and products once, and wait for each other (128 channels at 28 x 28 read as much
    # either way: 1.07). 256 channels at 56 x 56 took 0.76 of the time, 512 at 28 x 28 0.91, VGG-16's features 0.92 to
    # 0.95 and U-Net 0.93 (Emerald Rapids).
    if may_share and cache_bytes(2) >= LARGE_L2:
        block = block_of(tiles, most, nthreads) if tiles > most else max(1, tiles)
        if 1.3 * (2 * both + kept * shared / max(1, tiles)) < beyond(block):
            return together
    # A line that another core has read takes 1.4 ns to write again where they share an L3, 8 ns where they do not.
    # So where L2 holds most of all tiles, each thread has its own: some of them, if those fill a product (128 channels
    # at 28 x 28: as fast as shared ones with one L3, 0.63 of their time with two), or all of them and a part of the
    # output channels (256 at 14 x 14: as fast, and 0.85). Together: ResNet-50 0.99, and 0.97 with two. Tiles of two
    # products are all for each thread, too, whether L2 holds them or not (512 at 28 x 28: 0.95).
    local = 2 * tiles * tile_bytes <= 3 * cache_bytes(2)
    few = tiles < _ENOUGH_ROWS * nthreads if local else tiles <= most
    if few and may_share:
        return ConvConfig("winograd", tile, max(1, tiles), stream=stream, taps=taps)
    # Threads that share tiles read the weights once for all, but each other's tiles and products from L3. It pays where
    # weights are most of what is read, if they are so read less often (1024 channels at 64 x 64: 0.8 of the time; as
    # often, 512 at 56 x 56: 1.1), or tiles are few.
    own = -(-tiles // (most * nthreads))
    pays = 7 * tiles * both < 3 * weights and (shared < own or tiles < 4 * rows)
    if not local and pays and may_share:
        return together
    return ConvConfig("winograd", tile, block_of(tiles, most, nthreads), stream=stream, taps=taps)


def taps_slow_down(shape: ConvShape, tile: Axes, config: ConvConfig) -> float:
    """How much longer products take whose weights are transformed meanwhile.

    Threads that share tiles read each weight once, and others once an item, of which taps are a third or half. Of what
    L2 holds it counts little (64 channels: 1.01 to 1.03 of the time). Layers of more took 1.01 to 1.05 of the time with
    one L3 for all cores, and 0.87 to 0.99 with two (128 channels: 1.0 and 0.88; Zen 5).
    """
    weights = 4 * points_of(shape, tile) * shape.cin // shape.groups * vectors(shape.cout // shape.groups)
    return 1.1 if config.share or weights * _C.conv_lanes() <= 2 * cache_bytes(2) else 1.0
