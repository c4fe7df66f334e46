"""Upsampling that only a convolution reads becomes one kernel with it.

A transposed convolution of kernel 2 and stride 2, or each pixel repeated twice along each axis, and then a convolution
of kernel 3 and padding 1 are one transposed convolution of kernel 4, stride 2 and padding 1. By Winograd's algorithm it
needs fewer multiplications than the two, and the values between them are neither written nor read. Where the
convolution reads them beside those of an encoder, as in a U-Net, the convolution of these adds that of the others: a 2D
U-Net ran 1.09 and a 3D one 1.11 times as fast, interleaved, on two cores without a common L3 (Zen 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.engine.fuse import sum_of
from fastnets.engine.graph import Graph, Node, only_user
from fastnets.engine.kernels import Concat, OpKernel, Terms
from fastnets.engine.kernels_conv import Conv, Transposed
from fastnets.ops import conv_transpose_winograd as winograd
from fastnets.ops.conv_arguments import three
from fastnets.ops.conv_choice import least_cost
from fastnets.ops.conv_config import ConvShape
from fastnets.ops.conv_cost import transposed_cost
from fastnets.ops.resize import OP as RESIZE


def join_upsampling(graph: Graph, nthreads: int, itemsize: int) -> None:
    """Make one kernel of such pairs in a fused graph, where it costs less (conv_cost.py).

    Args:
        itemsize: bytes of an element of the values, once the graph runs.
    """
    for node in list(graph.nodes):
        read = _read_by(graph, node)
        if read is not None and _pays(node, read, nthreads, itemsize):
            _join(graph, node, read)
    graph.drop_dead()


@dataclass(frozen=True)
class _Read:
    """What a convolution reads: the results of `upsampling` from channel `start` on, and `others`."""

    upsampling: Node
    start: int
    others: list[Node]

    @property
    def channels(self) -> int:
        return self.upsampling.shape[1]


def _read_by(graph: Graph, node: Node) -> _Read | None:
    if type(node.kernel) is not Conv or node.kernel.terms.residual or not _is_plain(node.kernel) or node.kernel.direct:
        return None
    users, source = graph.users(), node.inputs[0]
    if not isinstance(source.kernel, Concat):
        fits = _doubles(source) and only_user(users, graph, source) is node
        return _Read(source, 0, []) if fits else None
    if source.kernel.axis != 1 or only_user(users, graph, source) is not node:
        return None
    start = 0
    for index, part in enumerate(source.inputs):
        if _doubles(part) and only_user(users, graph, part) is source and source.inputs.count(part) == 1:
            others = source.inputs[:index] + source.inputs[index + 1 :]
            return _Read(part, start, [other for other in others if other.shape[1] > 0])
        start += part.shape[1]
    return None


def _is_plain(conv: Conv) -> bool:
    """Kernel 3 and padding 1 along two or three axes, and nothing else."""
    kernel, window = conv.weight.shape[2:], conv.window
    ones = conv.groups == 1 and set(window.stride) == set(window.dilation) == {1}
    return ones and len(kernel) > 1 and set(kernel) == {3} and set(window.padding) == {(1, 1)}


def _doubles(node: Node) -> bool:
    """Whether it is a transposed convolution of kernel 2 and stride 2 with at most a bias, or repeats each pixel."""
    kernel = node.kernel
    if 0 in node.shape:
        return False
    if isinstance(kernel, OpKernel) and kernel.op is RESIZE:
        call, twice = kernel.call, tuple(2 * size for size in node.inputs[0].shape[2:])
        return call.mode != "linear" and node.shape[2:] == twice and set(call.scale or (2.0,)) == {2.0}
    if type(kernel) is not Transposed or not kernel.terms.open or kernel.terms.scale is not None:
        return False
    geometry, twos = kernel.geometry, {*kernel.weight.shape[2:], *kernel.geometry["stride"]}
    zeros = not any(geometry["padding"]) and not any(geometry["output_padding"])
    return twos == {2} and zeros and set(geometry["dilation"]) == {1} and geometry["groups"] == 1


def _pays(node: Node, read: _Read, nthreads: int, itemsize: int) -> bool:
    batch, cout, *size = node.shape
    _, cin, *small = read.upsampling.inputs[0].shape
    ones = (1, 1, 1)

    def convolution(channels: int) -> float:
        kernel = three((3,) * len(size))
        shape = ConvShape(batch, channels, cout, 1, three(size), kernel, ones, ones, itemsize)
        return least_cost(shape, nthreads) if channels else 0.0

    rest = sum(other.shape[1] for other in read.others)
    learned = isinstance(read.upsampling.kernel, Transposed)
    apart = transposed_cost(batch * prod(small), 2 ** len(size), cin, read.channels, itemsize) if learned else 0.0
    joined, _ = winograd.choose_for(batch, cin, cout, small, itemsize)
    return joined + convolution(rest) < apart + convolution(rest + read.channels)


@dataclass(frozen=True)
class _Joined:
    """Of upsampling and the part of a convolution that reads it, without scale and shift.

    Args:
        weight: (Cin, Cout, 4 an axis).
        inner: (Cout,), what the first one's bias adds to the results, but to those at a border.
        border: (Cout, 3 an axis), the difference to that at the first, inner and last positions; None without a bias.
        kept: the first one's weight and bias, whose ids name what was made of them.
    """

    weight: Tensor
    inner: Tensor | None
    border: Tensor | None
    kept: tuple[Tensor | None, Tensor | None]
    packs: dict[Any, Any] = field(default_factory=dict)


def _joined(conv: Conv, read: _Read) -> _Joined:
    """Made once for all shapes that a network is run at."""
    kernel = read.upsampling.kernel
    first, bias = (kernel.weight, kernel.terms.shift) if isinstance(kernel, Transposed) else (None, None)
    key = "joined", id(first), id(bias), read.start
    if key not in conv.packs:
        second = conv.weight.detach()[:, read.start : read.start + read.channels].double()
        axes = second.dim() - 2
        convolve: Any = functional.conv2d if axes == 2 else functional.conv3d
        if first is None:
            ones = second.new_ones(1, 1, *(2,) * axes)
            flipped = second.transpose(0, 1).flip(tuple(range(2, 2 + axes))).flatten(0, 1).unsqueeze(1)
            weight = convolve(flipped, ones, padding=1).view(read.channels, -1, *(4,) * axes)
        else:
            weight = convolve(first.detach().double(), second, padding=2)
        inner = border = None
        if bias is not None:
            values = bias.detach().double().view(1, -1, *(1,) * axes).expand(1, -1, *(3,) * axes)
            everywhere = convolve(values, second, padding=1)[0]
            inner = everywhere[(..., *(1,) * axes)]
            border = everywhere - inner.view(-1, *(1,) * axes)
        conv.packs[key] = _Joined(weight.float(), inner, border, (first, bias))
    made: _Joined = conv.packs[key]
    return made


def _join(graph: Graph, node: Node, read: _Read) -> None:
    conv: Conv = node.kernel
    made, axes = _joined(conv, read), len(node.shape) - 2
    scale, shift = conv.terms.scale, made.inner
    border = made.border
    if scale is not None and shift is not None and border is not None:
        shift, border = shift * scale, border * scale.view(-1, *(1,) * axes)
    geometry = {"stride": 2, "padding": 1, "output_padding": 0, "dilation": 1, "groups": 1}
    terms = Terms(scale=scale, shift=None if shift is None else shift.float())
    kernel = Transposed(
        made.weight, geometry, made.packs, None if border is None else border.float(), terms=terms, dtype=conv.dtype
    )
    source = read.upsampling.inputs[0]
    if not read.others:
        kernel.terms = replace(conv.terms, shift=sum_of(terms.shift, conv.terms.shift))
        node.kernel, node.inputs = kernel, [source]
        return
    up = Node("conv_transpose", {}, node.shape, node.dtype, read.upsampling.layer, kernel=kernel, inputs=[source])
    graph.nodes.insert(graph.nodes.index(node), up)
    weight = conv.weight.detach()
    outside = torch.cat([weight[:, : read.start], weight[:, read.start + read.channels :]], 1)
    packs = conv.packs.setdefault(("others", read.start, read.channels), {})
    node.kernel = Conv(outside, conv.window, 1, packs, terms=replace(conv.terms, residual=True), dtype=conv.dtype)
    node.inputs = [_beside(graph, node, read.others), up]


def _beside(graph: Graph, node: Node, parts: list[Node]) -> Node:
    """One value, or several as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    shape = (first.shape[0], sum(part.shape[1] for part in parts), *first.shape[2:])
    join = Node("cat", {}, shape, first.dtype, node.layer, kernel=Concat(1), inputs=parts)
    graph.nodes.insert(graph.nodes.index(node), join)
    return join
