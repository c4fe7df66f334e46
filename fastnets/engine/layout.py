"""Where the elements of every value lie in its own memory, and the copies that a kernel's needs make necessary.

A layout is a tensor on the meta device: it has strides and no memory. Kernels write channels-last; views have
what their source's layout makes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastnets.engine.attention import Attention
from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Concat, Kernel, Moments, OpKernel, Rearranged, Terms, Torch, View
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Linear, Separable, Transposed, Whole
from fastnets.engine.kernels_matmul import Matmul
from fastnets.engine.rules_pointwise import pointwise
from fastnets.ops.layout import KERNEL_DTYPES, together
from fastnets.ops.matmul import takes_flipped
from fastnets.ops.relayout import OP as RELAYOUT

Layouts = dict[Node, Tensor]
OF_PIXELS = Conv | InvertedBottleneck | Separable | Transposed | Whole
"""Kernels that read the channels of a pixel together, but for convolutions that take any order."""


def lay_out(graph: Graph, *, any_order: bool = True) -> Layouts:
    """The layout of every value; copies are added to the graph where a kernel cannot read one.

    Args:
        any_order: convolutions may read what is not channels-last, where their kernel on the CPU can.
    """
    layouts: Layouts = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "input":
            _choose_axis(node, graph, layouts)
            for index, source in enumerate(node.inputs):
                if not _can_read(node, index, layouts, any_order):
                    copy = copy_of(node, source, layouts, last=_reads_last(node))
                    nodes.append(copy)
                    node.inputs = [copy if value is source else value for value in node.inputs]
            if isinstance(node.kernel, View) and _viewed(node, layouts) is None:
                if _follows(node):
                    node.kernel = Rearranged()
                else:
                    nodes.append(copy_of(node, node.inputs[0], layouts, last=True))
                    node.inputs = nodes[-1:]
        layouts[node] = _layout_of(node, layouts) if node.op != "input" else _layout_of_input(node, graph, any_order)
        nodes.append(node)
    graph.nodes = nodes
    return layouts


def _layout_of_input(node: Node, graph: Graph, any_order: bool) -> Tensor:
    """As callers mostly have it, where all its readers can take that."""
    return _fresh(node, last=any_order and _is_read_contiguous(node, graph))


def _is_read_contiguous(node: Node, graph: Graph) -> bool:
    """Whether all readers take a contiguous value, or make one that is read so of it, as a cast does."""
    readers = _readers(node, graph)

    def takes(reader: Node) -> bool:
        if _casts_for_pixels(reader, graph):
            return True
        keeps = isinstance(reader.kernel, OpKernel) and reader.kernel.channel_axis is None and len(reader.inputs) == 1
        return _is_read_contiguous(reader, graph) if keeps else _reads_last(reader) or _takes_any_order(reader, node)

    return bool(readers) and all(map(takes, readers))


def _readers(node: Node, graph: Graph) -> list[Node]:
    return [reader for reader in graph.nodes if node in reader.inputs]


def _casts_for_pixels(node: Node, graph: Graph) -> bool:
    """Whether a cast, which reads any order, must write the channels of a pixel together."""
    return _is_cast(node) and any(
        isinstance(reader.kernel, OF_PIXELS) and not _takes_any_order(reader, node) for reader in _readers(node, graph)
    )


def _is_cast(node: Node) -> bool:
    return isinstance(node.kernel, OpKernel) and node.kernel.op is RELAYOUT


def _takes_any_order(node: Node, source: Node) -> bool:
    kernel = node.kernel
    if not isinstance(kernel, Conv) or isinstance(kernel, Linear) or source in node.inputs[1:]:
        return False
    return kernel.takes_any_order(source.shape)


def _layout_of(node: Node, layouts: Layouts) -> Tensor:
    if isinstance(node.kernel, View):
        view = _viewed(node, layouts)
        assert view is not None  # lay_out() saw to it
        return view
    if isinstance(node.kernel, Concat):
        return _fresh(node, last=not any(together(layouts[source], 1) for source in node.inputs))
    if isinstance(node.kernel, Attention):
        return _beside_heads(node)
    if isinstance(node.kernel, Matmul):
        *batch, rows, columns = node.shape
        flipped = takes_flipped(*node.kernel.factors([layouts[source] for source in node.inputs]))
        shape = (*batch, columns, rows) if flipped else node.shape
        made = torch.empty(shape, dtype=node.dtype, device="meta")
        return made.mT if flipped else made
    return _fresh(node, last=_writes_last(node))


def _beside_heads(node: Node) -> Tensor:
    """Dense memory of (*batch, heads, rows, width), with the heads of a row together: they become one."""
    *batch, heads, rows, width = node.shape
    return torch.empty((*batch, rows, heads, width), dtype=node.dtype, device="meta").transpose(-2, -3)


def _viewed(node: Node, layouts: Layouts) -> Tensor | None:
    """The layout of a view, or None where its elements must move in memory first."""
    source = layouts[node.inputs[0]]
    try:
        result = node.kernel.apply(source)
    except RuntimeError:  # a view that these strides do not allow
        return None
    return result if result.untyped_storage()._cdata == source.untyped_storage()._cdata else None


def _follows(node: Node) -> bool:
    """Whether a view's own memory, wherever it lies, can be read in the shape of its input: one copy fills it."""
    spaced = torch.empty([2 * size for size in node.shape], device="meta")[tuple(map(slice, node.shape))]
    try:
        spaced.view(node.inputs[0].shape)  # as every memory can be viewed, even a slice of a join
    except RuntimeError:
        return False
    return node.dtype in KERNEL_DTYPES


def _choose_axis(node: Node, graph: Graph, layouts: Layouts) -> None:
    """A kernel that takes any axis as the channels takes the one whose elements its first input has together."""
    kernel = node.kernel
    if isinstance(kernel, OpKernel) and kernel.channel_axis is None:
        pixels = len(node.shape) == 2 or together(layouts[node.inputs[0]], 1) or _casts_for_pixels(node, graph)
        kernel.channel_axis = 1 if pixels else -1


def _writes_last(node: Node) -> bool:
    """Whether the last axis of the result is the one whose elements lie together."""
    kernel = node.kernel
    if isinstance(kernel, Linear | Moments) or (isinstance(kernel, OpKernel) and kernel.channel_axis == -1):
        return True
    return isinstance(kernel, Torch | Rearranged) and len(node.shape) not in (4, 5)


def _reads_last(node: Node) -> bool:
    return isinstance(node.kernel, Attention | Linear | Matmul) or (
        isinstance(node.kernel, OpKernel) and node.kernel.channel_axis == -1
    )


def _fresh(node: Node, *, last: bool) -> Tensor:
    """Dense memory: contiguous, or else channels-last."""
    shape = node.shape
    if last or len(shape) < 3:
        return torch.empty(shape, dtype=node.dtype, device="meta")
    return torch.empty((shape[0], *shape[2:], shape[1]), dtype=node.dtype, device="meta").movedim(-1, 1)


def _can_read(node: Node, index: int, layouts: Layouts, any_order: bool) -> bool:
    """Whether the kernel of `node` takes its input number `index` as it lies."""
    kernel, x = node.kernel, layouts[node.inputs[index]]
    if isinstance(node.inputs[index].kernel, Moments):
        return True
    if isinstance(kernel, Linear):
        return x.is_contiguous()
    if isinstance(kernel, Attention):
        return together(x, -1)
    if isinstance(kernel, Matmul):
        a, b = kernel.factors([layouts[source] for source in node.inputs])
        return together(x, -1) or (together(x, -2) if x is b else takes_flipped(a, b))
    if isinstance(kernel, OpKernel):
        return _is_cast(node) or together(x, 1 if x.dim() == 2 else _axis(kernel))
    if isinstance(kernel, OF_PIXELS):
        return together(x, 1) or (any_order and _takes_any_order(node, node.inputs[index]))
    return True


def _axis(kernel: OpKernel) -> int:
    assert kernel.channel_axis is not None  # chosen by now
    return kernel.channel_axis


def same_order(x: Tensor, other: Tensor) -> bool:
    """Whether the axes of `x` follow each other in memory as those of `other` do."""
    axes = [axis for axis, size in enumerate(x.shape) if size > 1]
    return sorted(axes, key=x.stride) == sorted(axes, key=other.stride)


def needs_dense(node: Node) -> bool:
    """Whether the kernel of `node` reads all its input as one run of rows."""
    return isinstance(node.kernel, Linear) and len(node.shape) > 2


def copy_of(node: Node, source: Node, layouts: Layouts, *, last: bool = False) -> Node:
    """A node that copies `source` into memory of its own, for `node`; `last` as in _fresh."""
    kernel: Kernel = Torch(f"there is no kernel for {source.dtype}")
    axis = -1 if last and len(source.shape) > 2 else 1
    if source.dtype in KERNEL_DTYPES:
        near = 2 <= len(source.shape) <= 5 and together(layouts[source], axis)
        kernel = pointwise(Terms(), channel_axis=axis) if near else Rearranged()
    arguments = {"self": source, "memory_format": None}
    target = torch.ops.aten.clone.default
    copy = Node("clone", arguments, source.shape, source.dtype, node.layer, target, kernel, [source])
    layouts[copy] = _fresh(copy, last=last)
    return copy
