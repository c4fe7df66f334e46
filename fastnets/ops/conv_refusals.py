"""Why a convolution kernel cannot run a layer, or None where it can."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastnets import _C

if TYPE_CHECKING:
    from fastnets.ops.conv_config import ConvShape

MOST_PLANES = 4
"""Input channels of the planar kernel; more are better gathered a vector at a time."""

MOST_NARROW = 8
"""Output channels of the narrow kernel; more fill half a vector of the product's."""


# Winograd tiles by the kernel and the number of axes that have it, which come last (kernel_order in ops/conv.cpp).
TILES: dict[tuple[int, int], tuple[tuple[int, int, int], ...]] = {
    (3, 1): ((1, 1, 2), (1, 1, 4), (1, 1, 6)),
    (3, 2): ((1, 2, 2), (1, 4, 4), (1, 6, 6)),
    (3, 3): ((2, 2, 2), (2, 4, 4), (4, 4, 4), (6, 4, 4)),
    (5, 1): ((1, 1, 2), (1, 1, 4)),
    (5, 2): ((1, 2, 2), (1, 4, 4)),
    (5, 3): ((2, 2, 2),),
    (7, 1): ((1, 1, 2),),
    (7, 2): ((1, 2, 2),),
}


def strassen_refusal(shape: ConvShape) -> str | None:
    """Why Strassen's algorithm cannot run `shape`."""
    depth, lanes = math.prod(shape.kernel) * shape.cin, _C.conv_lanes()
    if shape.itemsize != 4:
        return "elements are bfloat16, in which its sums lose digits; it needs float32"
    if shape.groups != 1 or depth < 2 * lanes or shape.cout < 4 * lanes:
        return (
            f"{shape.cout} outputs are of {depth} values in {shape.groups} groups; it needs {4 * lanes} or more, of "
            f"{2 * lanes} or more, in one group"
        )
    return None


def winograd_refusal(shape: ConvShape) -> str | None:
    """Why Winograd's algorithm cannot run `shape`."""
    taps = [k for k in shape.kernel if k != 1]
    if len(set(taps)) != 1 or (taps[0], len(taps)) not in TILES:
        return f"kernel is {shape.kernel}; it needs 3, 5 or (along two at most) 7 along some axes, and 1 along others"
    if shape.stride != (1, 1, 1) and not is_strided(shape):
        return f"stride is {shape.stride}; it needs 1, or 2 along two axes with kernel 3 and without dilation"
    return None


def taps_refusal(shape: ConvShape, tile: tuple[int, int, int]) -> str | None:
    """Why Winograd's algorithm with `tile` cannot keep the taps of `shape`."""
    outputs, panel = shape.cout // shape.groups, 2 * _C.conv_lanes()
    if max(shape.kernel) != 3 or 3 in tile or outputs % panel:
        return f"kernel is {shape.kernel}, of {outputs} outputs a group; it needs 3, stride 1 and a multiple of {panel}"
    return None


def is_strided(shape: ConvShape) -> bool:
    """Whether stride is 2 along both of two axes with kernel 3, without dilation."""
    axes = [axis for axis in range(3) if shape.kernel[axis] == 3]
    strides = tuple(2 if axis in axes else 1 for axis in range(3))
    return len(axes) == 2 and shape.stride == strides and all(shape.dilation[axis] == 1 for axis in axes)


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


def direct_refusal(shape: ConvShape) -> str | None:
    """Why the direct kernel, by tiles, cannot run `shape`."""
    if not _C.has_tiles() or shape.itemsize != 2:
        return "it needs bfloat16 and a processor with tiles of it (AMX)"
    last = max((axis for axis in range(3) if shape.kernel[axis] > 1), default=2)
    if joins_taps(shape) and shape.dilation[last] > 1:
        return f"dilation is {shape.dilation}; few channels have joined taps, which needs 1 along the last axis"
    return None


def joins_taps(shape: ConvShape) -> bool:
    """Whether the direct kernel takes the taps along the last axis together (joins_taps in csrc/common/conv_pack.h)."""
    inputs, last = shape.cin // shape.groups, next((k for k in reversed(shape.kernel) if k > 1), 1)
    return inputs <= MOST_PLANES and inputs * last <= 32


def planar_refusal(shape: ConvShape) -> str | None:
    """Why the kernel for few input channels cannot run `shape`."""
    if shape.groups != 1 or shape.cin > MOST_PLANES:
        return f"{shape.cin} channels are in {shape.groups} groups; it needs {MOST_PLANES} or fewer in one"
    last = max((axis for axis in range(3) if shape.kernel[axis] > 1), default=2)
    if shape.dilation[last] > 1 and _C.conv_steps(shape.itemsize == 2) > 1:
        return f"dilation is {shape.dilation}; in bfloat16 it takes taps in pairs, which needs 1 along the last axis"
    return None


def narrow_refusal(shape: ConvShape) -> str | None:
    """Why the kernel for few output channels cannot run `shape`."""
    if shape.groups != 1 or shape.kernel != (1, 1, 1):
        return f"kernel is {shape.kernel} in {shape.groups} groups; it needs 1 along all axes, in one group"
    if shape.cout > MOST_NARROW:
        return f"there are {shape.cout} output channels; it needs {MOST_NARROW} or fewer"
    return None


REFUSALS: dict[str, Callable[[ConvShape], str | None]] = {
    "winograd": winograd_refusal,
    "depthwise": depthwise_refusal,
    "planar": planar_refusal,
    "narrow": narrow_refusal,
    "grouped": grouped_refusal,
    "product": lambda shape: None,
    "direct": direct_refusal,
    "strassen": strassen_refusal,
}
