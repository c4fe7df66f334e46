"""From ATen operations to kernels: one rule an operation, found by its name.

A rule returns a kernel and the nodes that it reads, or a sentence that says why there is none; then torch runs
the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Kernel, Torch, View
from fastnets.engine.patterns import recognize
from fastnets.engine.trace import AS_OTHER

Lowered = tuple[Kernel, list[Node]]


@dataclass
class Context:
    """What rules share: packed weights, by the constant that they were made of.

    Args:
        dtypes: of the values that kernels take.
        refusal: why torch runs what a rule has a kernel for, or None.
    """

    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    refusal: Callable[[Kernel], str | None] = lambda kernel: None
    packs: dict[tuple[int, int], dict[Any, Any]] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)  # whose ids are keys of `packs`

    def packs_of(self, weight: Tensor, groups: int) -> dict[Any, Any]:
        """Where the packed forms of `weight` are, which layers of as many groups share."""
        if (id(weight), groups) not in self.packs:
            self.packs[id(weight), groups] = {}
            self.kept.append(weight)
        return self.packs[id(weight), groups]


Rule = Callable[[Node, Context], Lowered | str]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


VIEWS = {"slice", "select", "view", "reshape", "permute", "transpose", "expand", "squeeze", "unsqueeze", "narrow"}
VIEWS |= {"chunk", "split", "unbind", "flatten", "unflatten", "movedim", "diagonal", "split_with_sizes", "t", "numpy_T"}
VIEWS |= {"_unsafe_view", "swapaxes", "mT"}
SAME = {"alias", "detach", "contiguous", "lift_fresh_copy", "lift", "clone", "dropout", "alpha_dropout"}
SAME |= {"feature_dropout", "feature_alpha_dropout"}


def lower(graph: Graph, context: Context) -> None:
    """Give every node a kernel, and remove those that only name another's value."""
    recognize(graph)
    graph.drop_dead()
    extra = {node.args["self"] for node in graph.nodes if node.op == "getitem" and node.args["index"] > 0}
    for node in list(graph.nodes):
        if node.op == "input":
            continue
        if node.op in SAME or _keeps_dtype(node) or _pads_nothing(node):
            graph.redirect(node, node.args["self" if "self" in node.args else "input"])
        elif node.op == "getitem":
            _part(node, graph)
        elif node.op in VIEWS and len(node.sources) == 1:
            node.inputs, node.kernel = node.sources, View(_view_of(node))
        elif node.op in AS_OTHER:
            node.inputs, node.kernel = [node.args["self"]], View(_reshaped(node))
        elif node in extra:
            node.inputs, node.kernel = node.sources, Torch("more than its first result is read")
        else:
            _apply(node, context)
    graph.drop_dead()


def _keeps_dtype(node: Node) -> bool:
    source = node.args.get("self")
    return node.op in ("_to_copy", "to", "type_as") and isinstance(source, Node) and source.dtype == node.dtype


def _pads_nothing(node: Node) -> bool:
    return node.op in ("pad", "constant_pad_nd") and not any(node.args["pad"])


def _part(node: Node, graph: Graph) -> None:
    """One of several results: a view of a split tensor, the result proper of a norm, or a part of a torch step."""
    whole, index = node.args["self"], node.args["index"]
    if whole.op in VIEWS:
        split = _view_of(whole)
        node.inputs, node.kernel = list(whole.inputs), View(lambda base: split(base)[index])
    elif isinstance(whole.kernel, Torch):
        node.inputs, node.kernel = [whole], Torch(f"{whole.op} has several results")
    else:
        node.inputs, node.kernel = list(whole.inputs), whole.kernel


def _view_of(node: Node) -> Callable[[Tensor], Any]:
    return lambda base: node.call(lambda _: base)


def _reshaped(node: Node) -> Callable[[Tensor], Tensor]:
    return lambda base: base.expand(node.shape) if node.op == "expand_as" else base.view(node.shape)


def _apply(node: Node, context: Context) -> None:
    sources = node.sources
    found: Lowered | str
    if node.op not in RULES:
        found = f"there is no kernel for {node.op}"
    elif any(source.dtype not in context.dtypes for source in sources):
        found = f"an input is not {' or '.join(str(dtype).removeprefix('torch.') for dtype in context.dtypes)}"
    elif not node.several and node.dtype not in context.dtypes:
        found = f"the result is {str(node.dtype).removeprefix('torch.')}"
    else:
        found = RULES[node.op](node, context)
        if not isinstance(found, str):
            found = context.refusal(found[0]) or found
    if isinstance(found, str):
        found = Torch(found), sources
    node.kernel, node.inputs = found[0], list(found[1])
