"""Fewer and better steps: what a kernel can take into its epilogue, its padding or its loop, goes there."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torch import Tensor

from fastnets.engine.branches import batch_branches
from fastnets.engine.graph import Graph, Node, only_user
from fastnets.engine.kernels import OpKernel, Terms, Torch, View
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Linear, Separable, Whole
from fastnets.engine.moves import join_borders
from fastnets.ops.activation import OP as ACTIVATION
from fastnets.ops.conv_arguments import Window

_LEAST_ROWS = 12  # of the result, a thread
_LEAST_OUTPUTS = 32  # of a 1x1 convolution: fewer leave vectors of a separable pair empty


def fuse(graph: Graph, nthreads: int | None, *, widest_pair: int | None = None) -> None:
    """Apply all passes.

    Args:
        nthreads: of the plan; None: it is for a GPU, where three convolutions do not become one.
        widest_pair: a depthwise and a 1x1 convolution with more outputs stay two kernels.
    """
    for node in list(graph.nodes):
        _flatten_into_linear(node)
    for node in list(graph.nodes):
        _zeros_into_conv(graph, node)
    graph.drop_dead()
    if nthreads is not None:
        join_borders(graph)
    for node in list(graph.nodes):
        _into_producer(graph, node)
        _residual_into_producer(graph, node)
    graph.drop_dead()
    for node in list(graph.nodes):
        if nthreads is not None:
            _norm_into_pointwise(graph, node)
    for node in list(graph.nodes):
        if widest_pair is None or (len(node.shape) > 1 and node.shape[1] <= widest_pair):
            _pair_separable(graph, node)
    graph.drop_dead()
    for node in list(graph.nodes):
        if nthreads is not None:
            _expand_separable(graph, node, nthreads)
    graph.drop_dead()
    batch_branches(graph, nthreads)


def _flatten_into_linear(node: Node) -> None:
    """A linear layer on a flattened image is a convolution of the image's size: channels-last needs no copy."""
    if type(node.kernel) is not Linear or not isinstance(node.inputs[0].kernel, View):
        return
    image, kernel = _image_of(node.inputs[0]), node.kernel
    if image is None or len(node.shape) != 2:
        return
    shape = (node.shape[1], *image.shape[1:])
    axes = len(image.shape) - 2
    window = Window((1,) * axes, ((0, 0),) * axes, (1,) * axes)
    # Another size of image with as many pixels reads the same weight in another order.
    packs = kernel.packs.setdefault(shape, {})
    node.kernel = Whole(kernel.weight.reshape(shape), window, 1, packs, terms=kernel.terms)
    node.inputs = [image]


def _image_of(node: Node) -> Node | None:
    """What a chain of views flattens from (N, C, *spatial) to (N, C * spatial), where there is a spatial size.

    Of one channel, as attention's heads may look, nothing moves: it stays a product (ViT-B: planar, at a fifth of it).
    """
    flat = node.shape
    while isinstance(node.kernel, View):
        node = node.inputs[0]
        if 3 <= len(node.shape) <= 5 and flat == (node.shape[0], prod(node.shape[1:])):
            return node if prod(node.shape[2:]) > 1 and node.shape[1] > 1 else None
    return None


def _zeros_into_conv(graph: Graph, node: Node) -> None:
    """Padding with zeros before a convolution becomes its own."""
    if not isinstance(node.kernel, Conv) or isinstance(node.kernel, Linear | Whole):
        return
    pad, kernel = node.inputs[0], node.kernel
    pairs = _zeros_of(pad)
    if pairs is None:
        return
    joined = zip(kernel.window.padding, pairs, strict=True)
    padding = tuple((a + before, b + after) for (a, b), (before, after) in joined)
    node.kernel = Conv(
        kernel.weight, replace(kernel.window, padding=padding), kernel.groups, kernel.packs, terms=kernel.terms
    )
    node.inputs = [pad.inputs[0], *node.inputs[1:]]


def _zeros_of(node: Node) -> tuple[tuple[int, int], ...] | None:
    """The zeros before and after each spatial axis that `node` adds, if that is all it does."""
    if node.op not in ("pad", "constant_pad_nd") or not isinstance(node.kernel, Torch):
        return None
    args, axes = node.args, len(node.shape) - 2
    widths = list(args["pad"])
    if args.get("mode", "constant") != "constant" or args.get("value") not in (None, 0, 0.0) or min(widths) < 0:
        return None
    if len(widths) > 2 * axes:
        return None
    widths += [0] * (2 * axes - len(widths))
    return tuple((widths[2 * axis], widths[2 * axis + 1]) for axis in reversed(range(axes)))


def _is_pointwise(node: Node) -> bool:
    return isinstance(node.kernel, OpKernel) and node.kernel.op is ACTIVATION


def _into_producer(graph: Graph, node: Node) -> None:
    """Scale, shift and activation go into the kernel that makes the value, if nothing else reads it."""
    if not _is_pointwise(node) or node.kernel.terms.residual:
        return
    producer, terms = node.inputs[0], node.kernel.terms
    if producer.op == "input" or only_user(graph.users(), graph, producer) is not node:
        return
    made = _composed(producer.kernel.terms, terms, producer.kernel.accepts)
    if made is not None:
        producer.kernel.terms = made
        graph.redirect(node, producer)
        graph.nodes.remove(node)


def _composed(first: Terms, then: Terms, accepts: frozenset[str]) -> Terms | None:
    """`first` followed by `then` as one, if a kernel that accepts these terms can do it."""
    scales = then.scale is not None or then.shift is not None
    acts = then.activation.name != "none"
    if (scales and not (first.open and {"scale", "shift"} <= accepts)) or (acts and "activation" not in accepts):
        return None
    if first.activation.name != "none":
        return None if acts or scales else first
    return replace(
        first,
        scale=_product(first.scale, then.scale),
        shift=sum_of(None if first.shift is None else _product(first.shift, then.scale), then.shift),
        activation=then.activation,
    )


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return (a.double() * b.double().to(a.device)).float()


def sum_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Of two vectors, of which None stands for zeros."""
    if a is None or b is None:
        return a if b is None else b
    return (a.double() + b.double().to(a.device)).float()


def _residual_into_producer(graph: Graph, node: Node) -> None:
    """A sum becomes the epilogue of the kernel that makes one of its inputs, the later one if both can."""
    if not _is_pointwise(node) or not node.kernel.terms.residual or node.inputs[0] is node.inputs[1]:
        return
    users = graph.users()
    for producer in sorted(node.inputs, key=graph.nodes.index, reverse=True):
        (other,) = (value for value in node.inputs if value is not producer)
        if producer.op == "input" or only_user(users, graph, producer) is not node:
            continue
        kernel = producer.kernel
        if "residual" in kernel.accepts and kernel.terms.open and node.kernel.terms.scale is node.kernel.terms.shift:
            kernel.terms = replace(kernel.terms, residual=True, activation=node.kernel.terms.activation)
            node.kernel, node.inputs, node.layer = kernel, [*producer.inputs, other], producer.layer
            return


def _norm_into_pointwise(graph: Graph, node: Node) -> None:
    """A norm and its activation that only a 1x1 convolution reads become a depthwise convolution of it, of one tap.

    DenseNet-121 ran 1.00 to 1.02 times as fast, and with a batch of 8, which leaves the caches, 1.07 to 1.1.
    """
    kernel = node.kernel
    if type(kernel) is not Conv or not kernel.is_pointwise or kernel.weight.shape[0] < _LEAST_OUTPUTS:
        return
    norm = node.inputs[0]
    if not _is_pointwise(norm) or norm.kernel.terms.residual or only_user(graph.users(), graph, norm) is not node:
        return
    axes, channels = len(norm.shape) - 2, norm.shape[1]
    window = Window((1,) * axes, ((0, 0),) * axes, (1,) * axes)
    ones = kernel.weight.new_ones(channels, 1, *(1,) * axes)
    node.kernel = Separable(Conv(ones, window, channels, {}, terms=norm.kernel.terms), kernel, terms=kernel.terms)
    node.inputs = [*norm.inputs, *node.inputs[1:]]


def _pair_separable(graph: Graph, node: Node) -> None:
    """A depthwise convolution and the 1x1 convolution that alone reads it are one kernel."""
    pointwise = node.kernel
    if type(pointwise) is not Conv or not pointwise.is_pointwise:
        return
    producer = node.inputs[0]
    depthwise = producer.kernel
    if type(depthwise) is not Conv or not depthwise.is_depthwise or depthwise.terms.residual:
        return
    if only_user(graph.users(), graph, producer) is node:
        node.kernel = Separable(depthwise, pointwise, terms=pointwise.terms)
        node.inputs = [*producer.inputs, *node.inputs[1:]]


def _expand_separable(graph: Graph, node: Node, nthreads: int) -> None:
    """A separable pair takes along the 1x1 convolution that it alone reads."""
    pair = node.kernel
    if not isinstance(pair, Separable):
        return
    producer = node.inputs[0]
    expand = producer.kernel
    if type(expand) is not Conv or not expand.is_pointwise or expand.terms.residual:
        return
    if only_user(graph.users(), graph, producer) is node and _expands_well(pair.depthwise, node.shape, nthreads):
        node.kernel = InvertedBottleneck(expand, pair.depthwise, pair.pointwise, terms=pair.terms)
        node.inputs = [*producer.inputs, *node.inputs[1:]]


def _expands_well(depthwise: Conv, shape: tuple[int, ...], nthreads: int) -> bool:
    """Whether one kernel for all three is faster than two.

    Threads take runs of rows and expand the few that two of them read twice. With 12 or more output rows a thread
    one kernel took 1.01 to 1.9 times less time on all blocks of MobileNetV2 and EfficientNet and larger ones; with
    fewer it was from 0.86 times as fast (two threads) to as fast (one).
    """
    images = len(shape) == 4 and set(depthwise.window.dilation) == {1} and depthwise.weight.shape[1] == 1
    return images and shape[0] * shape[2] >= _LEAST_ROWS * nthreads
