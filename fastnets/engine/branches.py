"""The same layers on several values become one step on a batch: test-time augmentation, siamese networks, shared heads.

Weights are then read once, and small images keep all threads busy. Large values stay apart: a branch by itself leaves
them in the cache for its next layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Concat, OpKernel, Rearranged, View
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Separable, Transposed
from fastnets.machine import cache_bytes

_ON_GPU = 32 << 20  # bytes of a value of all branches; by reasoning, not measured yet

Level = tuple[int, int]
Places = dict[Node, tuple[Node, int]]
"""Of a node that was merged: the step on the batch, and the number of its branch."""


def batch_branches(graph: Graph, nthreads: int | None) -> None:
    """Merge the equal steps of a fused graph: kernels with weights, and what follows them in each branch.

    A value of all branches takes at most what the threads' L2 hold (1 MiB each on a Zen 4). One thread took for a batch
    of four flips 1.16 (ResNet-50) and 1.12 times (MobileNetV2) less time at 96 x 96 than for one after the other, at
    224 x 224 1.02 and 1.05 times. Values of up to 4 MiB made ResNet-50 0.96 times as fast there.

    Args:
        nthreads: of the plan; None: it is for a GPU.
    """
    most_bytes = _ON_GPU if nthreads is None else nthreads * cache_bytes(2)
    levels = _levels(graph)
    places: Places = {}
    joins: dict[tuple[Node, ...], Node] = {}
    for _, nodes in groupby(sorted(graph.nodes, key=levels.__getitem__), levels.__getitem__):
        candidates = [node for node in nodes if _can_merge(node, levels, places)]
        for members in _siblings(candidates, places, most_bytes):
            batched = _batched(members, places, joins)
            places.update({member: (batched, branch) for branch, member in enumerate(members)})
    if not places:
        return
    graph.nodes += [*joins.values(), *dict.fromkeys(batched for batched, _ in places.values())]
    for member, place in places.items():
        part = _part(member, *place)
        graph.redirect(member, part)
        graph.nodes.append(part)
    graph.nodes = _sorted(graph.nodes)
    graph.drop_dead()


def _levels(graph: Graph) -> dict[Node, Level]:
    """The most kernels with weights that lead to a node, and then the most steps since the last of these.

    Nodes of a level do not need each other. Nor do merged ones: those with weights lead to another level, and the
    others read from their own level what is merged alike, each branch by itself.
    """
    levels: dict[Node, Level] = {}
    for node in graph.nodes:
        weights, steps = max((levels[source] for source in node.inputs), default=(0, 0))
        levels[node] = (weights + 1, 0) if _has_weights(node) else (weights, steps + 1)
    return levels


def _has_weights(node: Node) -> bool:
    return isinstance(node.kernel, Conv | InvertedBottleneck | Separable | Transposed)


def _can_merge(node: Node, levels: dict[Node, Level], places: Places) -> bool:
    """Whether the step does each image by itself, and follows merged ones of one branch or has weights."""
    kernel, merged = node.kernel, [source for source in node.inputs if source in places]
    if not node.shape or 0 in node.shape or len({places[source][1] for source in merged}) > 1:
        return False
    if _has_weights(node):
        return True
    near = [source for source in node.inputs if levels[source][0] == levels[node][0]]
    if not merged or any(source not in places for source in near):
        return False
    if isinstance(kernel, View):
        return True
    apart = isinstance(kernel, OpKernel | Rearranged) or (isinstance(kernel, Concat) and kernel.axis > 0)
    return apart and all(source.shape[:1] == node.shape[:1] for source in node.inputs)


def _siblings(candidates: list[Node], places: Places, most_bytes: int) -> Iterator[list[Node]]:
    """Nodes that do the same, one of each branch, in the order of the branches."""
    kinds: list[list[Node]] = []
    for node in candidates:
        kind = next((kind for kind in kinds if _are_equal(kind[0], node, places)), None)
        if kind is None:
            kinds.append([node])
        else:
            kind.append(node)
    for kind in kinds:
        branches = _branches(kind, places)
        if len(branches) > 1 and len(branches) * _bytes(kind[0]) <= most_bytes:
            yield branches


def _branches(kind: list[Node], places: Places) -> list[Node]:
    """One node of each branch, none if a branch has none; without branches yet, one for each value that is read."""
    read = next((source for source in kind[0].inputs if source in places), None)
    if read is None:
        return list({node.inputs[0]: node for node in kind}.values())
    index = kind[0].inputs.index(read)
    of_branch = {places[node.inputs[index]][1]: node for node in kind}
    count = places[read][0].shape[0] // read.shape[0]
    return [of_branch[branch] for branch in range(count)] if len(of_branch) == count else []


def _bytes(node: Node) -> int:
    return max(prod(value.shape) * value.dtype.itemsize for value in (node, *node.inputs))


def _are_equal(a: Node, b: Node, places: Places) -> bool:
    """Whether both do the same to values of the same shapes, which were merged with each other or not at all."""
    if type(a.kernel) is not type(b.kernel) or a.shape != b.shape or len(a.inputs) != len(b.inputs):
        return False
    for mine, other in zip(a.inputs, b.inputs, strict=True):
        alike = mine.shape == other.shape and mine.dtype == other.dtype
        if not alike or places.get(mine, (None, 0))[0] is not places.get(other, (None, 0))[0]:
            return False
    return _same_call(a, b) if isinstance(a.kernel, View | Rearranged) else _same(a.kernel, b.kernel)


def _same_call(a: Node, b: Node) -> bool:
    """Whether the arguments of two operations are the same, but for the values that they read."""
    if a.op == "getitem" == b.op and not _same_call(a.args["self"], b.args["self"]):
        return False
    return a.op == b.op and _same(a.args, b.args)


def _same(a: Any, b: Any) -> bool:
    """Whether two descriptions say the same; tensors by their values, nodes are not looked at."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Node):
        return True
    if isinstance(a, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)
    if is_dataclass(a):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    return bool(a == b)


def _batched(members: list[Node], places: Places, joins: dict[tuple[Node, ...], Node]) -> Node:
    """The step of all `members`; what comes from steps that were not merged is joined for it."""
    inputs: list[Node] = []
    for sources in zip(*(node.inputs for node in members), strict=True):
        if sources[0] in places:
            inputs.append(places[sources[0]][0])
            continue
        if sources not in joins:
            joins[sources] = _of_all(sources[0], len(sources), op="cat", kernel=Concat(0), inputs=list(sources))
        inputs.append(joins[sources])
    first, count = members[0], len(members)
    if not isinstance(first.kernel, View):
        return _of_all(first, count, inputs=inputs)

    def apply(base: Tensor) -> Tensor:
        result: Tensor = torch.vmap(first.kernel.apply)(base.view(count, -1, *base.shape[1:]))
        return result.flatten(0, 1)

    # The arguments name sizes of one branch: where these strides forbid a view, torch runs `apply` as well.
    return _of_all(first, count, args={"self": inputs[0]}, target=apply, kernel=View(apply), inputs=inputs)


def _of_all(node: Node, count: int, **changed: Any) -> Node:
    layer = f"{node.layer} of {count} branches"
    return replace(node, shape=(count * node.shape[0], *node.shape[1:]), layer=layer, **changed)


def _part(member: Node, batched: Node, branch: int) -> Node:
    """The value of `member`: its images of the batch."""
    size = member.shape[0]
    arguments = {"self": batched, "dim": 0, "start": branch * size, "length": size}
    view = View(lambda base: base.narrow(0, branch * size, size))
    return replace(
        member, op="narrow", args=arguments, target=torch.ops.aten.narrow.default, kernel=view, inputs=[batched]
    )


def _sorted(nodes: list[Node]) -> list[Node]:
    """The nodes in their order as far as each comes after those that it reads."""
    done: dict[Node, None] = {}
    waiting = nodes[::-1]
    while waiting:
        missing = [source for source in waiting[-1].inputs if source not in done]
        if missing:
            waiting += missing[::-1]
        else:
            done[waiting.pop()] = None
    return list(done)
