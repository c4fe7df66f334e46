"""What a convolution is, and how it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastnets.machine import cache_bytes

Axes = tuple[int, int, int]
Packing = tuple[str, Axes, bool]
"""What packed weights depend on: the algorithm, tile and taps of a configuration."""


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


def block_of(count: int, most: int, nthreads: int) -> int:
    """How many of `count` rows an item takes: at most `most`, and equal parts for all threads where items are few."""
    items = max(1, -(-count // most))
    if items < 8 * nthreads:
        items = -(-items // nthreads) * nthreads
    return max(1, -(-count // items))


def out_bytes(shape: ConvShape) -> int:
    return shape.itemsize * shape.pixels * shape.cout


def streams_of(shape: ConvShape, nthreads: int) -> bool:
    return streams(shape.pixels * shape.cout, shape.itemsize, nthreads)


def streams(out_elements: int, itemsize: int, nthreads: int) -> bool:
    """Whether a kernel that multiplies a lot stores past the caches: outputs of which the threads' L2 lack half.

    The next layer then reads it from L3 or memory in any case, and a store to L3 reads the line first. Against a
    threshold of half of L3, networks ran up to 7 % faster, and dilated ones 16 to 22 %. Against one of all of it in
    L2, MobileNetV1, whose first results are 3 MiB, runs 3 % faster, and GoogLeNet 6 % (Zen 5). A vector of bfloat16 is
    half a cache line, of which the store waits for the other half: layers ran 1 to 8 % slower.
    """
    return itemsize == 4 and out_elements * itemsize > 2 * nthreads * cache_bytes(2)
