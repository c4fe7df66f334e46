"""Convolutions whose results a quotient reads sum the products of each pixel apart.

Winograd's and Strassen's algorithms add values of several pixels before they multiply. Where a pixel's inputs are all
0, as padding makes them, its results are then 1e-7 of those around it, and not 0. F.normalize, x / max(|x|, 1e-12),
makes a vector of length 1 of them: torchvision's swin_v2_t, with its attention by cosines, was wrong by 0.08 of the
largest value.
"""

from __future__ import annotations

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import OpKernel, Torch
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Separable, Transposed
from fastnets.ops.channel_norm import OP as CHANNEL_NORM
from fastnets.ops.combine import OP as COMBINE

_QUOTIENTS = {"div", "divide", "true_divide", "reciprocal", "rsqrt", "normalize"}


def sum_directly(graph: Graph) -> None:
    """Find these convolutions in a fused graph, and tell their kernels."""
    waiting = [source for node in graph.nodes if _divides(node) for source in node.inputs]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node.kernel, Conv | Separable | Transposed):
            node.kernel.direct = True
        sums = isinstance(node.kernel, Conv | InvertedBottleneck | Separable | Transposed)
        waiting += node.inputs[1:] if sums else node.inputs  # of the first: what is added to the results


def _divides(node: Node) -> bool:
    """Whether it divides by values that it reads, which may be as small as they like."""
    kernel = node.kernel
    if isinstance(kernel, OpKernel) and kernel.op is CHANNEL_NORM:
        return bool(kernel.call.kind == "unit")
    if isinstance(kernel, OpKernel) and kernel.op is COMBINE:
        return kernel.call.kind == "divide" and "other" in kernel.fields
    power = node.args.get("exponent", 0)
    negative = node.op == "pow" and isinstance(power, (int, float)) and power < 0
    return isinstance(kernel, Torch) and (negative or node.op in _QUOTIENTS)
