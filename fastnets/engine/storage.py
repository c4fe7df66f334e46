"""Which memory every value has: one arena in which buffers whose values are never alive together share bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Concat, Torch, View
from fastnets.engine.layout import Layouts, copy_of, needs_dense, same_order

ALIGNMENT = 64  # bytes: a cache line


@dataclass(eq=False)
class Buffer:
    """Memory of one value, and of those that lie in it.

    Args:
        owner: the node whose layout it has.
        first, last: the steps between which it holds something.
        external: it is an input or output of the network, which the caller owns.
        offset: bytes from the start of the arena.
    """

    owner: Node
    bytes: int
    first: int
    last: int
    external: bool = False
    offset: int = 0


@dataclass
class Storage:
    """The buffers, and where in them the values are.

    `slices` says of a value that lies in a join: (the join's node, axis, start).
    """

    buffers: list[Buffer] = field(default_factory=list)
    buffer_of: dict[Node, Buffer] = field(default_factory=dict)
    slices: dict[Node, tuple[Node, int, int]] = field(default_factory=dict)
    bytes: int = 0


def assign(graph: Graph, layouts: Layouts) -> Storage:
    """Give every value its place. Copies are added where a join cannot have its input in place."""
    storage = Storage(slices=_join_in_place(graph, layouts))
    place = {node: step for step, node in enumerate(graph.nodes)}
    outputs, inputs = set(graph.output_nodes), set(graph.inputs)
    for node in graph.nodes:
        if node.several:
            continue
        root = _root(node, storage)
        step = place[node]
        if root not in storage.buffer_of:
            kept = node if root is node else root
            storage.buffer_of[root] = Buffer(kept, _bytes(layouts[kept]), step, step)
            storage.buffers.append(storage.buffer_of[root])
        buffer = storage.buffer_of[node] = storage.buffer_of[root]
        buffer.first, buffer.last = min(buffer.first, step), max(buffer.last, step)
        buffer.external |= node in inputs or node in outputs
    for node in graph.nodes:
        for source in node.inputs:
            if not source.several:
                buffer = storage.buffer_of[source]
                buffer.last = max(buffer.last, place[node])
    _reuse_in_place(graph, storage, place, layouts)
    storage.bytes = _pack([buffer for buffer in storage.buffers if not buffer.external])
    return storage


def _bytes(layout: Tensor) -> int:
    return layout.untyped_storage().nbytes()


def _root(node: Node, storage: Storage) -> Node:
    """The node whose memory holds the value."""
    while True:
        if node in storage.slices:
            node = storage.slices[node][0]
        elif isinstance(node.kernel, View):
            node = node.inputs[0]
        else:
            return node


def _join_in_place(graph: Graph, layouts: Layouts) -> dict[Node, tuple[Node, int, int]]:
    """Let producers write into the joins that read them.

    Later joins choose first: a dense block joins the same values again and again, each time with one more, and
    all those joins are then the start of the last.
    """
    slices: dict[Node, tuple[Node, int, int]] = {}
    for join in reversed([node for node in graph.nodes if isinstance(node.kernel, Concat)]):
        axis, start = join.kernel.axis, 0
        if join not in slices and _is_start_of_other(join, slices):
            slices[join] = slices[join.inputs[0]]
            continue
        for index, source in enumerate(join.inputs):
            if source in slices or not _may_move(graph, source, layouts, join):
                source = _copied(graph, join, index, layouts)
            slices[source] = (join, axis, start)
            start += source.shape[axis]
    return slices


def _is_start_of_other(join: Node, slices: dict[Node, tuple[Node, int, int]]) -> bool:
    """Whether the inputs lie beside each other in another join already, in this order."""
    if not all(source in slices for source in join.inputs):
        return False
    places = [slices[source] for source in join.inputs]
    target, axis, start = places[0]
    for source, place in zip(join.inputs, places, strict=True):
        if place != (target, axis, start) or axis != join.kernel.axis:
            return False
        start += source.shape[axis]
    return True


def _may_move(graph: Graph, node: Node, layouts: Layouts, join: Node) -> bool:
    """Whether the value can be made inside a join: a kernel's own, and nothing reads it in a way that needs more."""
    if node.op == "input" or node.several or isinstance(node.kernel, View) or node in graph.output_nodes:
        return False
    if isinstance(node.kernel, Concat) and join.kernel.axis != node.kernel.axis:
        return False
    if needs_dense(node) or not same_order(layouts[node], layouts[join]):
        return False
    readers = graph.users()[node]
    views = [user for user in readers if isinstance(user.kernel, View)]
    return not any(map(needs_dense, readers)) and all(v.op in ("slice", "select", "narrow", "getitem") for v in views)


def _copied(graph: Graph, join: Node, index: int, layouts: Layouts) -> Node:
    source = join.inputs[index]
    copy = copy_of(join, source, layouts)
    layouts[copy] = layouts[join].new_empty(())  # has no memory of its own
    join.inputs = [*join.inputs[:index], copy, *join.inputs[index + 1 :]]
    graph.nodes.insert(graph.nodes.index(join), copy)
    return copy


def _reuse_in_place(graph: Graph, storage: Storage, place: dict[Node, int], layouts: Layouts) -> None:
    """A kernel that may write over one of its inputs does so, where nothing reads that input later.

    Nor, in another order, the kernel itself: x + x.transpose(-1, -2).
    """
    for node in graph.nodes:
        if isinstance(node.kernel, Torch | View | Concat) or node.op == "input" or node.kernel.overwrites is None:
            continue
        over = node.inputs[node.kernel.overwrites]
        mine, source = storage.buffer_of[node], storage.buffer_of[over]
        whole = mine.owner is node and over is source.owner
        if not whole or mine is source or mine.external or source.external:
            continue
        if any(storage.buffer_of.get(other) is source and other is not over for other in node.inputs):
            continue
        same = layouts[node].stride() == layouts[over].stride()
        if source.last == place[node] and same and node.shape == over.shape:
            source.last = max(source.last, mine.last)
            storage.buffers.remove(mine)
            for value, buffer in storage.buffer_of.items():
                if buffer is mine:
                    storage.buffer_of[value] = source


def _pack(buffers: Iterable[Buffer]) -> int:
    """Place large buffers first, each as low as those alive at the same time allow; the bytes that all take."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.bytes, b.first)):
        offset = 0
        for other in sorted(placed, key=lambda b: b.offset):
            apart = other.last < buffer.first or buffer.last < other.first
            if not apart and other.offset < offset + buffer.bytes and offset < other.offset + other.bytes:
                offset = -(-(other.offset + other.bytes) // ALIGNMENT) * ALIGNMENT
        buffer.offset = offset
        placed.append(buffer)
    return max((b.offset + b.bytes for b in placed), default=0)
