"""A norm takes mean and variance from the convolution before it, which makes them along the way.

Of three passes over the memory of a large value (for its moments, then to read and to write it) two are left.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Moments, OpKernel
from fastnets.engine.kernels_conv import Conv
from fastnets.ops.norm import OP as NORM


def share_moments(graph: Graph) -> None:
    """Let Winograd convolutions of a fused graph in float32 make the moments that norms of their results need."""
    for node in list(graph.nodes):
        if not isinstance(node.kernel, OpKernel) or node.kernel.op is not NORM or node.kernel.call.moments is not None:
            continue
        producer = node.inputs[0]
        if not _makes_moments(producer):
            continue
        memory = Node("moments", {}, (*node.shape[:2], 2), torch.float64, producer.layer, kernel=Moments())
        graph.nodes.insert(graph.nodes.index(producer), memory)
        producer.kernel.moments = True
        producer.inputs = [*producer.inputs, memory]
        node.kernel = replace(node.kernel, fields=("x", "moments"))
        node.inputs = [producer, memory, *node.inputs[1:]]


def _makes_moments(producer: Node) -> bool:
    kernel = producer.kernel
    if type(kernel) is not Conv or kernel.moments or not kernel.terms.activation.clamps or 0 in producer.shape:
        return False
    return kernel.make().prepare(producer.inputs[0].shape).algorithm == "winograd"
