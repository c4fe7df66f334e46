"""Operations that torch writes as several: recognised by their graph, so that they run as one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from fastnets.engine.attention import find_attention
from fastnets.engine.graph import Graph, Node
from fastnets.engine.moves import rewrite_moves

aten = torch.ops.aten

RESHAPES = ("view", "reshape", "unsqueeze", "squeeze", "_unsafe_view")
MOST_PARTS = 8
"""Values of a sum that becomes additions."""


def recognize(graph: Graph) -> None:
    """Give the last node of every pattern the operation that the pattern is; the others may be dead then."""
    nodes: list[Node] = []
    for node in graph.nodes:
        arguments = _local_response(node)
        if arguments is not None:
            node.op, node.args, node.target = "local_response_norm", arguments, functional.local_response_norm
        arguments = _unit_vectors(node)
        if arguments is not None:
            node.op, node.args, node.target = "normalize", arguments, functional.normalize
        nodes += _sum_of_parts(node)
        nodes.append(node)
    graph.nodes = nodes
    find_attention(graph)
    rewrite_moves(graph)


def _sum_of_parts(node: Node) -> list[Node]:
    """A sum or mean over an axis of few values, as stack or a split of the channels makes it, becomes additions.

    Selective kernels, split attention and feature pyramids have it, the first two of products by weights.

    Returns:
        New nodes for `node`, which is changed, to read.
    """
    x, axes = node.args.get("self"), node.args.get("dim")
    if node.op not in ("sum", "mean") or not isinstance(x, Node) or not isinstance(axes, (list, tuple)):
        return []
    axis = axes[0] % len(x.shape) if len(axes) == 1 else 0
    plain = len(axes) == 1 and not node.args["keepdim"] and node.dtype == x.dtype and x.dtype.is_floating_point
    if not plain or not 1 <= x.shape[axis] <= MOST_PARTS or not _has_parts(x, axis):
        return []
    made: list[Node] = []
    total = _part(x, axis, 0, made)
    for index in range(1, x.shape[axis]):
        total = _made(made, aten.add.Tensor, total, _part(x, axis, index, made), node)
    if node.op == "mean" and x.shape[axis] > 1:
        total = _made(made, aten.mul.Tensor, total, 1 / x.shape[axis], node)
    last = made.pop() if made else Node("alias", {"self": total}, node.shape, node.dtype, "", aten.alias.default)
    node.op, node.args, node.target = last.op, last.args, last.target
    return made


def _has_parts(x: Node, axis: int) -> bool:
    if x.op == "mul":
        factors = [x.args["self"], x.args["other"]]
        known = all(isinstance(f, Node) and len(f.shape) == len(x.shape) for f in factors)
        return known and any(_has_parts(f, axis) for f in factors)
    if x.op == "stack":
        return bool(x.args["dim"] % len(x.shape) == axis and all(isinstance(t, Node) for t in x.args["tensors"]))
    return x.op in ("view", "reshape", "_unsafe_view", "unflatten")


def _part(x: Node, axis: int, index: int, made: list[Node]) -> Node:
    """x.select(axis, index), by nodes that `made` gets."""
    if x.op == "stack" and x.args["dim"] % len(x.shape) == axis:
        part: Node = x.args["tensors"][index]
        return part
    if x.op == "mul" and _has_parts(x, axis):
        a, b = (_part(f, axis, min(index, f.shape[axis] - 1), made) for f in (x.args["self"], x.args["other"]))
        return _made(made, aten.mul.Tensor, a, b, x)
    arguments = {"self": x, "dim": axis, "index": index}
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    made.append(Node("select", arguments, shape, x.dtype, x.layer, aten.select.int))
    return made[-1]


def _made(made: list[Node], target: Any, a: Node, b: Node | float, origin: Node) -> Node:
    """The sum or product of two parts, for `origin`."""
    arguments = {"self": a, "other": b} | ({"alpha": 1} if target is aten.add.Tensor else {})
    shape = a.shape if not isinstance(b, Node) else tuple(map(max, a.shape, b.shape))
    made.append(Node(target._opname, arguments, shape, origin.dtype, origin.layer, target))
    return made[-1]


def _unit_vectors(node: Node) -> dict[str, Any] | None:
    """x / max(|x|, eps), as F.normalize has it: its arguments."""
    if node.op != "div" or node.args.get("rounding_mode"):
        return None
    x, value = node.args["self"], node.args["other"]
    while isinstance(value, Node) and value.op in ("expand", "expand_as"):
        value = value.args["self"]
    if not isinstance(value, Node) or value.op != "clamp_min" or not isinstance(value.args["min"], int | float):
        return None
    norm, eps = value.args["self"], value.args["min"]
    if not isinstance(norm, Node) or norm.op != "linalg_vector_norm" or norm.args["self"] is not x:
        return None
    args = norm.args
    plain = args["ord"] == 2 and args["keepdim"] and not args["dtype"] and args["dim"] and len(args["dim"]) == 1
    return {"input": x, "p": 2.0, "dim": args["dim"][0], "eps": float(eps)} if plain else None


def _local_response(node: Node) -> dict[str, Any] | None:
    """x / (k + alpha * mean of squares of `size` channels) ** beta: the arguments, as torch names them.

    torch takes the mean by a pool over an axis of channels after a padding with zeros.
    """
    if node.op != "div" or node.args.get("rounding_mode"):
        return None
    x, value = node.args["self"], node.args["other"]
    found: list[Node] = []
    for op in ("pow", "add", "mul", "avg_pool", "pad", "mul"):
        while isinstance(value, Node) and value.op in RESHAPES:
            value = value.args["self"]
        if not isinstance(value, Node) or not value.op.startswith(op):
            return None
        found.append(value)
        value = value.args["self"]
    power, offset, scale, pool, pad, square = found
    size = pool.args["kernel_size"][0]
    numbers = {"alpha": scale.args["other"], "beta": power.args.get("exponent"), "k": offset.args["other"]}
    fits = (
        square.args["self"] is square.args["other"] is x
        and all(isinstance(number, int | float) for number in numbers.values())
        and offset.args.get("alpha", 1) == 1
        and _is_mean_of_channels(pool, x.shape, size)
        and _pads_channels(pad, size)
    )
    return {"input": x, "size": size} | numbers if fits else None


def _is_mean_of_channels(pool: Node, shape: tuple[int, ...], size: int) -> bool:
    args, axes = pool.args, len(pool.shape) - 2
    plain = not any(args["padding"]) and set(args["stride"]) == {1} and args["divisor_override"] is None
    over = tuple(args["kernel_size"]) == (size, *(1,) * (axes - 1))
    return plain and over and pool.shape[:3] == (shape[0], 1, shape[1])


def _pads_channels(pad: Node, size: int) -> bool:
    widths = list(pad.args["pad"])
    zeros = pad.args.get("mode", "constant") == "constant" and not pad.args.get("value")
    return zeros and not any(widths[:-2]) and widths[-2:] == [size // 2, (size - 1) // 2]
