"""What a convolution costs by each kernel, in vector multiply-adds of one core.

Those of the products are divided by the share of the peak that they reach; gathering a pixel, or transforming a point
of a tile, costs some for each vector of channels. Fitted to measurements on Zen 4, where of 40 layers 36 ran within
10 % of the best tile and block; fetching and Strassen's constants on Zen 5, with weights in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastnets import _C
from fastnets.machine import cache_bytes
from fastnets.ops.conv_refusals import joins_taps

if TYPE_CHECKING:
    from fastnets.ops.conv_config import Axes, ConvShape

_GATHER, _INPUT, _OUTPUT = 2.0, 4.0, 3.0
_PAIRS = 3.0  # of a tap in bfloat16, more than of one in float32
_PRODUCT_SHARE, _PLANAR_SHARE = 0.85, 0.9
# By rows of a product. With 0.75 for 14 of them, strided layers of 12x12 and 14x14 went to other kernels, which took
# 1.08 to 1.27 times as long (Zen 4).
_WINOGRAD_SHARE = {14: 0.85, 6: 0.75}
_COPY = 0.5  # of an element of a line: less from a line, more from pixels
_SUMS = 8.0  # Strassen's, of a vector of inputs
_STRASSEN_PIECE = 512  # columns (kPieceDepth in cpu/strassen.h)
_NEW_SUMS = {14: 0.3, 6: 1.0}  # what the sums of weights add to its first products, by their rows
_FETCH = {14: 12.0, 6: 7.0}  # a vector of weights, by rows: in a network they come from memory
_HALO = 1.5  # inputs of a box for each that its outputs lie on
_TILE_STORE = 20.0  # of a vector of results: 1x1 to 2 or 3 channels took 1.3 to 4 times the narrow kernel's time
_JOIN = 3.0  # the sums of an output over the lanes, and its store
_TILE = 1000.0  # of a Winograd tile: finding its pixels (64 channels, dilated: 1.03 to 1.08 with half as many tiles)
_LARGE = 2.5  # times as much of a volume's transforms with 8 points along an axis, which pass L1 (Emerald Rapids)
_SETTLING = 3  # what starting and storing a product of Winograd's costs, in inputs
_FEW_ROWS = 8  # a product of fewer rows costs as much: it waits for the weights
# Of which taps are fewer: 7x7 and 8x8 outputs by 4 tiles of 4x4 took 0.68 to 1.01 of the time of 16 of 2x2, and 0.9 in
# ResNet-50 (Zen 4).
_FEW_TAP_ROWS = 4


def vectors(channels: int) -> int:
    return -(-channels // _C.conv_lanes())


def product_cost(shape: ConvShape) -> float:
    taps, inputs, outputs = math.prod(shape.kernel), shape.cin // shape.groups, shape.cout // shape.groups
    bf16 = shape.itemsize == 2
    steps = _C.conv_steps(bf16)
    multiply = shape.pixels * taps * inputs * vectors(outputs) / (_C.conv_rate(bf16) * _PRODUCT_SHARE)
    vector = -(-vectors(inputs) // steps) * _GATHER
    copied = shape.pixels * taps * (vector + (_PAIRS if steps > 1 else 0.0)) if taps > 1 else 0.0
    if copies_groups(shape):
        copied = shape.pixels * math.prod(shape.stride) * _HALO * vector
    fetch = taps * inputs * vectors(outputs) * _FETCH[product_rows()] * shape.itemsize / 4
    if bf16 and _C.has_tiles():  # sums leave tiles through memory
        multiply += shape.pixels * vectors(outputs) * _TILE_STORE
    return shape.groups * (multiply + copied + fetch)


def copies_groups(shape: ConvShape) -> bool:
    """Whether products of groups copy their inputs once, and not once a tap (PackedConv in csrc/ops/conv.cpp)."""
    bf16, taps = shape.itemsize == 2, math.prod(shape.kernel)
    whole = shape.cin // shape.groups % _C.conv_steps(bf16) == 0 and not (bf16 and _C.has_tiles())
    return shape.groups > 1 and taps > 1 and whole


def direct_cost(shape: ConvShape) -> float:
    """By tiles: of whole blocks of two vectors of inputs, which are copied once, and their halo."""
    inputs, outputs = shape.cin // shape.groups, shape.cout // shape.groups
    blocks, taps = -(-vectors(inputs) // 2), math.prod(shape.kernel)
    if joins_taps(shape):
        taps //= next((k for k in reversed(shape.kernel) if k > 1), 1)
    multiply = shape.pixels * taps * blocks * 2 * _C.conv_lanes() * vectors(outputs)
    copied = shape.pixels * math.prod(shape.stride) * blocks * _HALO * _GATHER
    fetch = taps * inputs * vectors(outputs) * _FETCH[product_rows()] * shape.itemsize / 4
    store = shape.pixels * vectors(outputs) * _TILE_STORE
    return shape.groups * (multiply / (_C.conv_rate(True) * _PRODUCT_SHARE) + copied + store + fetch)


def product_rows() -> int:
    """Rows of a product in registers (kMaxRows in cpu/micro_kernel.h)."""
    return 14 if _C.conv_lanes() == 16 else 6


def strassen_block(shape: ConvShape) -> int:
    """Pixels of a block of Strassen's algorithm: one block, or an even number of equal ones, for any number of threads.

    They, the sums of a piece of theirs and those of a pair of panels may pass L2 by half: 728 channels at 19x19 took
    0.96 of the time in blocks of 181 instead of 91.
    """
    depth = math.prod(shape.kernel) * shape.cin
    piece = min(depth, _STRASSEN_PIECE)
    row, weights = 4 * (depth + piece), 32 * piece * _C.conv_lanes()
    pair = 2 * product_rows()  # whole products for both halves
    fitting = (3 * cache_bytes(2) // 2 - weights) // row // pair
    pixels = max(1, shape.pixels)
    if pixels <= pair * min(4, max(1, fitting)):
        return pixels
    blocks = -(-pixels // (pair * min(7, max(1, fitting))))
    return -(-pixels // (blocks + blocks % 2))


def strassen_cost(shape: ConvShape) -> float:
    """Seven eighths of the multiplications, some of which wait for sums of weights, and sums of the inputs.

    Never chosen on processors of Intel with AVX-512, whose products of two panels are faster: networks took 0.955
    (MobileNet) to 0.99 of the time without it (Emerald Rapids).
    """
    if _C.is_intel() and product_rows() > 6:
        return math.inf
    depth, outputs = math.prod(shape.kernel) * shape.cin, vectors(shape.cout)
    multiply = shape.pixels * depth * outputs / _PRODUCT_SHARE
    products = strassen_block(shape) / 2 / product_rows()
    sums = shape.pixels * vectors(depth) * _SUMS + multiply * _NEW_SUMS[product_rows()] / products
    return product_cost(shape) - multiply / 8 + sums


def planar_cost(shape: ConvShape) -> float:
    lines, steps = shape.cin * math.prod(shape.kernel[:2]), -(-shape.kernel[2] // _C.conv_steps(shape.itemsize == 2))
    fetch = lines * shape.kernel[2] * vectors(shape.cout) * _FETCH[product_rows()] * shape.itemsize / 4
    return shape.pixels * lines * (steps * vectors(shape.cout) / _PLANAR_SHARE + shape.stride[2] * _COPY) + fetch


def transposed_cost(pixels: int, taps: int, cin: int, cout: int, itemsize: int) -> float:
    """A transposed convolution of `pixels` inputs by products."""
    multiply = pixels * taps * cin * vectors(cout) / (_C.conv_rate(itemsize == 2) * _PRODUCT_SHARE)
    return multiply + taps * cin * vectors(cout) * _FETCH[product_rows()] * itemsize / 4


def narrow_cost(shape: ConvShape) -> float:
    return shape.pixels * (vectors(shape.cin) + shape.cout * (vectors(shape.cin) + _JOIN))


def tile_count(shape: ConvShape, tile: Axes) -> int:
    count = shape.batch
    for size, outputs, step in zip(shape.out, tile, shape.dilation, strict=True):
        count *= sum(-(-len(range(phase, size, step)) // outputs) for phase in range(min(step, size)))
    return count


def points_of(shape: ConvShape, tile: Axes) -> int:
    axes = zip(tile, shape.kernel, shape.stride, strict=True)
    return math.prod(7 if stride == 2 else outputs + taps - 1 for outputs, taps, stride in axes)


def winograd_cost(shape: ConvShape, tile: Axes, *, taps: float | None = None) -> float:
    """taps: how much longer products take by weights that are kept as taps, where they are."""
    points, tiles = points_of(shape, tile), tile_count(shape, tile)
    inputs, outputs = shape.cin // shape.groups, shape.cout // shape.groups
    rows = max(tiles, _FEW_ROWS if taps is None else _FEW_TAP_ROWS)
    multiply = rows * (inputs + _SETTLING) * vectors(outputs) / _WINOGRAD_SHARE[product_rows()]
    large = _LARGE if min(tile) > 1 and max(tile) == 6 else 1.0
    transform = large * tiles * (vectors(inputs) * _INPUT + vectors(outputs) * _OUTPUT)
    fetch = inputs * vectors(outputs) * _FETCH[product_rows()]
    if taps is not None:  # of a line in memory, for all of its points
        kernel = max(shape.kernel)
        multiply, fetch = multiply * taps, fetch * kernel / max(outputs + kernel - 1 for outputs in tile)
    return shape.groups * (points * (multiply + transform + fetch) + tiles * _TILE)
