"""Attention: what networks write as products, a softmax and what is added to the scores becomes one operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.engine.graph import Graph, Node, Shape, only_user
from fastnets.engine.kernels import Kernel
from fastnets.ops.attention import AttentionCall, run_attention
from fastnets.ops.layout import together

aten = torch.ops.aten

_SAME = ("clone", "dropout", "contiguous", "alias", "detach")
_RESHAPES = ("view", "reshape", "unsqueeze", "squeeze", "_unsafe_view")
_MOST_BATCH_AXES, _MOST_ADDED = 3, 2  # of the kernel

Added = tuple[list[int], Any]
"""What is added to the scores, which have this batch there: a node or a constant."""


@dataclass(eq=False)
class Attention(Kernel):
    """softmax(q k^T * scale + what is added) v; see fastnets.ops.attention.

    Args:
        scale: (heads,).
        batch: of all tensors, as the kernel has it.
        added: for each term the batch that the scores have where it is added, and the constant; None: it is an input.
    """

    name: ClassVar[str] = "attention"

    scale: Tensor
    batch: Shape
    added: list[tuple[Shape, Tensor | None]] = field(default_factory=list)

    @property
    def constants(self) -> list[Tensor]:
        return [constant for _, constant in self.added if constant is not None]

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        q, k, v, *others = inputs
        assert all(together(t, -1) for t in (*inputs, out))  # layout.py saw to it
        scores, given = (q.shape[-2], k.shape[-2]), iter(others)
        terms: list[Tensor | None] = [
            (next(given) if constant is None else constant).expand(*batch, *scores).view(*self.batch, *scores)
            for batch, constant in self.added
        ]
        bias, mask = (*terms, None, None)[:2]
        q, k, v, out = (t.view(*self.batch, *t.shape[-2:]) for t in (q, k, v, out))
        run_attention(AttentionCall(q, k, v, self.scale, bias, mask, out))

    def flops(self, node: Node) -> int:
        q, k, v = node.inputs[:3]
        return 2 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def in_torch(query: Tensor, key: Tensor, value: Tensor, scale: Any, batch: Shape, added: list[Added]) -> Tensor:
    """The same by torch."""
    q, k, v = (t.reshape(*batch, *t.shape[-2:]) for t in (query, key, value))
    scores, total = (*batch, q.shape[-2], k.shape[-2]), None
    for shape, term in added:
        whole = term.to(q).expand(*shape, *scores[-2:]).reshape(scores)
        total = whole if total is None else total + whole
    if isinstance(scale, Tensor):
        q, scale = q * scale.to(q).view(-1, 1, 1), 1.0
    return functional.scaled_dot_product_attention(q, k, v, total, scale=scale).reshape(
        *value.shape[:-2], *q.shape[-2:-1], -1
    )


def find_attention(graph: Graph) -> None:
    """Turn the last product of each attention, or torch's own operation, into a node "attention"."""
    nodes: list[Node] = []
    users = graph.users()
    for node in graph.nodes:
        made: list[Node] = []
        found = _fused(node) or _written_out(node, graph, users, made)
        if found is not None:
            node.op, node.args, node.target = "attention", found, in_torch
            nodes += made
        nodes.append(node)
    graph.nodes = nodes


def _fused(node: Node) -> dict[str, Any] | None:
    """The arguments of torch's own operation."""
    if node.op != "scaled_dot_product_attention":
        return None
    args = node.args
    q, k, v, mask = args["query"], args["key"], args["value"], args["attn_mask"]
    if not all(isinstance(t, Node) for t in (q, k, v)) or args["dropout_p"] or args["enable_gqa"]:
        return None
    scores = (*q.shape[:-1], k.shape[-2])
    if args["is_causal"]:
        mask = torch.ones(scores[-2:], dtype=torch.bool).tril()
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    added = [] if mask is None else [(list(q.shape[:-2]), mask)]
    scale = q.shape[-1] ** -0.5 if args["scale"] is None else args["scale"]
    return _arguments(q, k, v, scale, added)


def _written_out(node: Node, graph: Graph, users: dict[Node, list[Node]], made: list[Node]) -> dict[str, Any] | None:
    """The arguments of an attention whose last product is `node`; `made` gets nodes that it reads."""
    last = _product(node, made)
    if last is None:
        return None
    weights, v = last
    value: Any = _plain(weights)
    if value.op not in ("softmax", "_softmax") or value.args["dim"] % len(value.shape) != len(value.shape) - 1:
        return None
    if value.args.get("dtype") is not None or only_user(users, graph, value) is None:
        return None
    scores = _Search(graph, users, made).scores(value.args["self"])
    if scores is None:
        return None
    return _arguments(scores.q, scores.k, v, scores.scale, scores.added, scores.batches)


def _plain(node: Node) -> Node:
    while node.op in _SAME:
        source = node.args.get("self", node.args.get("input"))
        assert isinstance(source, Node)
        node = source
    return node


@dataclass(frozen=True)
class _Scores:
    """What a softmax reads: q k^T * scale + what is added, where they have these batches on the way."""

    q: Node
    k: Node
    scale: Any
    added: list[Added]
    batches: list[Shape]


class _Search:
    """Follows what a softmax reads back to the product of queries and keys."""

    def __init__(self, graph: Graph, users: dict[Node, list[Node]], made: list[Node]) -> None:
        self.graph, self.users, self.made = graph, users, made

    def scores(self, value: Any, most_added: int = _MOST_ADDED) -> _Scores | None:
        """Those that `value` is, if it is a product that is scaled, then added to, and reshaped on the way."""
        if not isinstance(value, Node) or only_user(self.users, self.graph, value) is None:
            return None
        found: _Scores | None = None
        if value.op in _SAME:
            found = self.scores(value.args.get("self", value.args.get("input")), most_added)
        elif value.op in _RESHAPES:
            source = value.args["self"]
            found = self.scores(source, most_added) if source.shape[-2:] == value.shape[-2:] else None
        elif value.op == "add":
            a, b = value.args["self"], value.args["other"]
            found = self._sum(value, a, b, most_added) or self._sum(value, b, a, most_added)
        elif value.op in ("mul", "div"):
            a, b = value.args["self"], value.args["other"]
            found = self._scaled(value, a, b) or self._scaled(value, b, a)
        else:
            found = self._product(value)
        return found and replace(found, batches=[*found.batches, value.shape[:-2]])

    def _sum(self, value: Node, scores: Any, term: Any, most_added: int) -> _Scores | None:
        floats = isinstance(term, Node | Tensor) and term.dtype.is_floating_point
        if not floats or term.shape[-1:] != value.shape[-1:] or getattr(scores, "shape", ()) != value.shape:
            return None
        if most_added == 0 or value.args.get("alpha", 1) != 1:
            return None
        found = self.scores(scores, most_added - 1)
        return found and replace(found, added=[*found.added, (list(value.shape[:-2]), term)])

    def _scaled(self, value: Node, scores: Any, factor: Any) -> _Scores | None:
        known = None if isinstance(factor, Node) else _per_head(factor, value.shape)
        divides = value.op == "div"
        if known is None or value.args.get("rounding_mode") or (divides and scores is not value.args["self"]):
            return None
        found = self.scores(scores, 0)
        if found is None or found.q.shape[:-1] != value.shape[:-1]:
            return None
        return replace(found, scale=found.scale / known if divides else found.scale * known)

    def _product(self, value: Node) -> _Scores | None:
        found = _product(value, self.made)
        if found is None:
            return None
        (q, by_q), (transposed, by_k) = _without_factor(found[0]), _without_factor(found[1])
        *batch, depth, keys = transposed.shape
        arguments = {"self": transposed, "dim0": -2, "dim1": -1}
        k = Node("transpose", arguments, (*batch, keys, depth), q.dtype, value.layer, aten.transpose.int)
        self.made.append(k)
        return _Scores(q, k, by_q * by_k, [], [])


def _without_factor(node: Node) -> tuple[Node, float]:
    """A product by a number as its first factor and that number."""
    x, factor = node.args.get("self"), node.args.get("other")
    if node.op == "mul" and isinstance(x, Node) and isinstance(factor, int | float) and x.shape == node.shape:
        return x, float(factor)
    return node, 1.0


def _per_head(factor: Any, shape: Shape) -> Any:
    """A factor of scores of `shape` as one number, or as (heads,)."""
    if isinstance(factor, (int, float)):
        return float(factor)
    if not isinstance(factor, Tensor) or not factor.is_floating_point():
        return None
    if factor.numel() == 1:
        return float(factor.detach())
    heads = factor.shape[-3] if factor.dim() >= 3 else 0
    return factor.detach().float().reshape(-1) if factor.numel() == heads == shape[-3] else None


def _product(node: Node, made: list[Node]) -> tuple[Node, Node] | None:
    """The factors (*batch, rows, depth) and (*batch, depth, columns) of a product, whose batches are the same."""
    if node.op in ("matmul", "bmm"):
        a, b = node.args["self"], node.args["other" if node.op == "matmul" else "mat2"]
    elif node.op == "einsum":
        pair = einsum_factors(node, made)
        if pair is None:
            return None
        a, b = pair
    else:
        return None
    nodes = isinstance(a, Node) and isinstance(b, Node) and len(a.shape) > 2
    return (a, b) if nodes and a.shape[:-2] == b.shape[:-2] else None


def einsum_factors(node: Node, made: list[Node]) -> tuple[Node, Node] | None:
    """The factors of an einsum that is a product of matrices; `made` gets them where their axes must change places."""
    tensors, equation = node.args["tensors"], node.args["equation"].replace(" ", "")
    sides, arrow, result = equation.partition("->")
    names = sides.split(",")
    if not arrow or len(names) != 2 or not sides.replace(",", "").isalpha() or len(result) < 3:
        return None
    batch, row, column = result[:-2], result[-2], result[-1]
    inner = set(names[0]) & set(names[1]) - set(batch)
    if len(inner) != 1 or not all(isinstance(t, Node) for t in tensors):
        return None
    (depth,) = inner
    orders = (batch + row + depth, batch + depth + column)
    if any(sorted(name) != sorted(order) for name, order in zip(names, orders, strict=True)):
        return None
    a, b = (_permuted(t, n, o, made) for t, n, o in zip(tensors, names, orders, strict=True))
    return a, b


def _permuted(node: Node, names: str, order: str, made: list[Node]) -> Node:
    if names == order:
        return node
    axes = [names.index(name) for name in order]
    shape = tuple(node.shape[axis] for axis in axes)
    made.append(Node("permute", {"self": node, "dims": axes}, shape, node.dtype, node.layer, aten.permute.default))
    return made[-1]


def _arguments(
    q: Node, k: Node, v: Node, scale: Any, added: list[Added], batches: list[Shape] | None = None
) -> dict[str, Any] | None:
    """The arguments of a node "attention", where the kernel takes them."""
    shapes = [t.shape[:-2] for t in (q, k, v)] + (batches or [])
    shapes += [tuple(shape) for shape, _ in added]
    batch = max(shapes, key=len)
    batch = batch if len(batch) <= _MOST_BATCH_AXES else tuple(size for size in batch if size != 1)
    batch = batch or (1,)
    fits = len(batch) <= _MOST_BATCH_AXES and 0 not in batch and all(_splits(shape, batch) for shape in shapes)
    if not fits or v.shape[-2] != k.shape[-2] or q.shape[-1] != k.shape[-1] or 0 in (*q.shape, *v.shape):
        return None
    if isinstance(scale, Tensor) and scale.numel() != batch[-1]:
        return None
    return {"query": q, "key": k, "value": v, "scale": scale, "batch": list(batch), "added": added}


def _splits(coarse: Shape, fine: Shape) -> bool:
    """Whether each axis of `coarse` is a product of axes of `fine` that follow each other."""
    rest = [size for size in fine if size != 1]
    for size in coarse:
        part = 1
        while part < size and rest:
            part *= rest.pop(0)
        if part != size:
            return False
    return not rest
