"""A network as a list of nodes in execution order: what the passes of the engine read and change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_map_only

Shape = tuple[int, ...]


@dataclass(eq=False)
class Node:
    """One value and the operation that makes it.

    Args:
        op: an ATen name without overload ("conv2d"), or, once lowered, the name of a kernel.
        args: the operation's arguments by schema name; other nodes stand for their values, tensors are constants.
        shape, dtype: of the value.
        layer: the module that asked for it, "layer1.0.conv1 (Conv2d)".
        target: the ATen function, of a node that is not lowered.
        kernel: of a lowered node.
        inputs: of a lowered node: the values that the kernel reads.
        several: the operation has several results, each of which a node "getitem" names.
    """

    op: str
    args: dict[str, Any]
    shape: Shape
    dtype: torch.dtype
    layer: str
    target: Callable[..., Any] | None = None
    kernel: Any = None
    inputs: list[Node] = field(default_factory=list)
    several: bool = False

    def call(self, values: Callable[[Node], Any]) -> Any:
        """The result of the operation in torch, with `values` of its nodes."""
        assert self.target is not None
        arguments = tree_map_only(Node, values, self.args)
        if not isinstance(self.target, torch._ops.OpOverload):
            return self.target(*arguments.values())
        schema = self.target._schema.arguments
        given = [arguments[a.name] for a in schema if not a.kwarg_only]
        return self.target(*given, **{a.name: arguments[a.name] for a in schema if a.kwarg_only})

    @property
    def sources(self) -> list[Node]:
        """The nodes whose values this one reads."""
        if self.kernel is not None:
            return self.inputs
        found: list[Node] = []
        tree_map_only(Node, found.append, list(self.args.values()))
        return found

    def __repr__(self) -> str:
        return f"{self.op}{list(self.shape)} of {self.layer}"


@dataclass
class Graph:
    """All nodes of one trace.

    `inputs` follow the order of the flattened arguments; `outputs`, nodes or constants, follow `out_spec`.
    """

    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Any]
    out_spec: TreeSpec

    def copy(self) -> Graph:
        """The same graph before it is lowered, of new nodes; constants are shared."""
        made: dict[Node, Node] = {}

        def new(node: Node) -> Node:
            return made[node]

        for node in self.nodes:
            made[node] = replace(node, args=tree_map_only(Node, new, node.args), inputs=[])
        outputs = [made[value] if isinstance(value, Node) else value for value in self.outputs]
        return Graph(list(made.values()), [made[node] for node in self.inputs], outputs, self.out_spec)

    def users(self) -> dict[Node, list[Node]]:
        """For each node those that read its value, once each; an output counts as a reader that is no node."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.sources):
                users[source].append(node)
        return users

    @property
    def output_nodes(self) -> list[Node]:
        return [value for value in self.outputs if isinstance(value, Node)]

    def redirect(self, old: Node, new: Node) -> None:
        """Let all that read `old` read `new`."""

        def swap(node: Node) -> Node:
            return new if node is old else node

        for node in self.nodes:
            if node is new:
                continue
            node.inputs = [swap(source) for source in node.inputs]
            if node.kernel is None:
                node.args = tree_map_only(Node, swap, node.args)
        self.outputs = [swap(value) if isinstance(value, Node) else value for value in self.outputs]

    def drop_dead(self) -> None:
        """Remove the nodes that no output needs."""
        needed = set(self.output_nodes) | set(self.inputs)
        for node in reversed(self.nodes):
            if node in needed:
                needed.update(node.sources)
        self.nodes = [node for node in self.nodes if node in needed]


def only_user(users: dict[Node, list[Node]], graph: Graph, node: Node) -> Node | None:
    """The one node that reads `node`, if it is one and `node` is not an output."""
    readers = users[node]
    return readers[0] if len(readers) == 1 and node not in graph.output_nodes else None
