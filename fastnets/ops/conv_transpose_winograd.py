"""Transposed convolutions of kernel 4, stride 2 and padding 1 by Winograd's algorithm.

Between two neighbours of x lie two results along each axis. Each of these phases is a convolution of kernel 2 of the
same inputs, with taps of its own, so all phases share the transformed tiles of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastnets import _C
from fastnets.machine import cache_bytes
from fastnets.ops.arguments import result_like
from fastnets.ops.conv_arguments import three
from fastnets.ops.conv_config import Axes, ConvConfig, ConvShape
from fastnets.ops.conv_cost import points_of, product_rows, transposed_cost, vectors, winograd_cost
from fastnets.ops.layout import array5, channels_last, floats_of, threads
from fastnets.ops.winograd_choice import winograd_config

if TYPE_CHECKING:
    from fastnets.ops.conv_transpose import ConvTransposeCall

TILES: dict[int, tuple[Axes, ...]] = {2: ((1, 3, 3), (1, 5, 5), (1, 7, 7)), 3: ((3, 3, 3), (5, 5, 5))}
"""Inputs that a tile's results lie around, along z, y and x, by the number of axes."""

_MOST_BYTES = 4 * cache_bytes(3)
"""Of packed weights, but for those of the smallest tile: a few per cent are not worth hundreds of megabytes."""


def refusal(call: ConvTransposeCall) -> str | None:
    """Why Winograd's algorithm cannot run `call`, or None."""
    axes = call.x.dim() - 2
    if axes not in TILES:
        return f"there are {axes} spatial axes; it needs 2 or 3"
    kernel = tuple(call.weight.shape[2:])
    plain = not any(call.output_padding) and set(call.dilation) == {1} and call.groups == 1
    if set(kernel) != {4} or set(call.stride) != {2} or set(call.padding) != {1} or not plain:
        return (
            f"kernel is {kernel}, stride {call.stride}, padding {call.padding}, output_padding {call.output_padding}, "
            f"dilation {call.dilation}, groups {call.groups}; it needs 4, 2, 1, 0, 1 and 1"
        )
    return None


def choose(call: ConvTransposeCall) -> tuple[float, ConvConfig]:
    """The configuration of least cost (conv_cost.py), and its cost."""
    (batch, cin, *size), cout = call.x.shape, call.weight.shape[1]
    return choose_for(batch, cin, cout, size, call.x.element_size())


def choose_for(batch: int, cin: int, cout: int, size: Sequence[int], itemsize: int) -> tuple[float, ConvConfig]:
    """The same for inputs of `size`, of elements of `itemsize` bytes."""
    axes = len(size)
    shape = ConvShape(
        batch=batch,
        cin=cin,
        cout=2**axes * vectors(cout) * _C.conv_lanes(),
        groups=1,
        out=three([n + 1 for n in size]),
        kernel=three((2,) * axes),
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
        itemsize=itemsize,
    )
    # Taps in memory: layers took 0.92 to 1.02 of the time, with a third or a quarter of the memory (Zen 5).
    taps = cout % (2 * _C.conv_lanes()) == 0 and product_rows() > 6  # as in conv_choice.py
    costs = [(winograd_cost(shape, tile, taps=1.0 if taps else None), tile) for tile in TILES[axes]]
    few = [pair for pair in costs if _weight_bytes(shape, pair[1], taps) <= _MOST_BYTES]
    cost, tile = min(few or costs[:1])
    return cost, winograd_config(shape, tile, threads(), taps=taps)


def products_cost(call: ConvTransposeCall) -> float:
    """What `call` costs by products."""
    (batch, cin, *size), (_, cout, *kernel) = call.x.shape, call.weight.shape
    return transposed_cost(batch * prod(size), prod(kernel), cin, cout, call.x.element_size())


def _weight_bytes(shape: ConvShape, tile: Axes, taps: bool) -> int:
    points = points_of(shape, tile)
    return 4 * (points // (tile[2] + 1) * 2 if taps else points) * shape.cin * shape.cout


def pack(weight: Tensor, config: ConvConfig) -> _C.PackedTransposed:
    """The weight (Cin, Cout, *kernel), packed for `config`."""
    axes = weight.dim() - 2
    # Of the results 2i - 1 and 2i, between the inputs i - 1 and i, the first sees them by taps 2 and 0.
    taps = [torch.tensor(pair, device=weight.device) for pair in ((2, 0), (3, 1))]
    phases = []
    for phase in product(taps, repeat=axes):
        part = weight.detach().transpose(0, 1)
        for axis, pair in enumerate(phase):
            part = part.index_select(2 + axis, pair)
        phases.append(part.reshape(*part.shape[:2], *(1,) * (3 - axes), *part.shape[2:]))
    return _C.PackedTransposed(torch.stack(phases).float().contiguous().numpy(), config.tile, config.taps, threads())


def run(call: ConvTransposeCall, packed: _C.PackedTransposed, config: ConvConfig, border: Tensor | None) -> Tensor:
    """The result of `call`; border as PackedConvTranspose has it."""
    out = result_like(call.x, call.shape, call.out)
    axes = call.x.dim() - 2
    if border is not None:
        border = border.movedim(0, -1).reshape(*(1,) * (3 - axes), *(3,) * axes, -1).float().contiguous()
    packed.run(
        x=array5(channels_last(call.x)),
        out=array5(out),
        scale=floats_of(call.scale),
        shift=floats_of(call.bias),
        border=None if border is None else border.numpy(),
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        block=config.block,
        share=config.share,
        stream=config.stream,
        nthreads=threads(),
    )
    return out
