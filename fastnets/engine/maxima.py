"""A convolution makes the maxima of its own results: the pool after it costs no pass over memory.

Where nothing but the pool reads the results, as in VGG, they are not written at all; in a U-Net, whose decoder reads
them too, the maxima are written beside them.
"""

from __future__ import annotations

from fastnets.engine.graph import Graph, Node, only_user
from fastnets.engine.kernels import OpKernel, Written
from fastnets.engine.kernels_conv import Conv
from fastnets.ops.pool import OP as POOL


def pool_in_producers(graph: Graph) -> None:
    """Let Winograd convolutions of a fused graph make the maxima that pools with windows of 2 ask for."""
    for node in list(graph.nodes):
        if not _halves(node) or not _makes_maxima(node.inputs[0]):
            continue
        producer = node.inputs[0]
        if only_user(graph.users(), graph, producer) is node:
            producer.kernel.maxima = "only"
            producer.shape = node.shape
            graph.redirect(node, producer)
            graph.nodes.remove(node)
        else:
            producer.kernel.maxima = "too"
            graph.nodes.remove(node)
            graph.nodes.insert(graph.nodes.index(producer), node)
            node.kernel, node.inputs = Written(), []
            producer.inputs = [*producer.inputs, node]


def _halves(node: Node) -> bool:
    """Whether it is a maximum over windows of 2 that lie beside each other, without borders."""
    if not isinstance(node.kernel, OpKernel) or node.kernel.op is not POOL:
        return False
    call, source = node.kernel.call, node.inputs[0]
    two = (2,) * (len(node.shape) - 2)
    plain = not call.average and not call.adaptive and call.window == call.stride == two
    inside = not any(call.padding) and set(call.dilation) == {1}
    return plain and inside and node.shape[2:] == tuple(size // 2 for size in source.shape[2:])


def _makes_maxima(producer: Node) -> bool:
    kernel = producer.kernel
    if type(kernel) is not Conv or kernel.maxima or kernel.moments or 0 in producer.shape:
        return False
    return kernel.make().makes_maxima(producer.inputs[0].shape)
