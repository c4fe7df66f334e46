"""Operations that only move values, as slices and joins, whose parts their producers may write in place."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from fastnets.engine.attention import einsum_factors
from fastnets.engine.graph import Graph, Node, Shape
from fastnets.engine.kernels import Concat, Constant, Torch

aten = torch.ops.aten


def rewrite_moves(graph: Graph) -> None:
    """Write operations of a traced graph, which is to be lowered, as others."""
    rewrite = {"roll": _roll, "cat": _constants_apart, "mean": _mean_of_tokens, "addcmul": _sum_of_product}
    rewrite |= {"einsum": _product, "linalg_vector_norm": _length_over_pixels, "sum": _sum_over_pixels}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in rewrite and node.dtype.is_floating_point:
            nodes += rewrite[node.op](node)
        nodes.append(node)
    graph.nodes = nodes


def _become(node: Node, target: Any, args: dict[str, Any]) -> None:
    node.op, node.target, node.args = target._opname, target, args


def _roll(node: Node) -> list[Node]:
    """One axis after the other, the last part before the first."""
    x, shifts, axes = node.args["self"], node.args["shifts"], node.args["dims"]
    if not axes or 0 in x.shape or len(set(axes)) < len(axes):
        return []
    made: list[Node] = []
    for shift, axis in zip(shifts, axes, strict=True):
        size, start = x.shape[axis], -shift % x.shape[axis]
        if start == 0:
            continue
        parts = []
        for begin, end in ((start, size), (0, start)):
            arguments = {"self": x, "dim": axis, "start": begin, "end": end, "step": 1}
            shape = list(x.shape)
            shape[axis] = end - begin
            parts.append(Node("slice", arguments, tuple(shape), x.dtype, node.layer, aten.slice.Tensor))
        x = Node("cat", {"tensors": parts, "dim": axis}, x.shape, x.dtype, node.layer, aten.cat.default)
        made += [*parts, x]
    if not made:
        _become(node, aten.alias.default, {"self": x})
        return []
    _become(node, aten.cat.default, made.pop().args)
    return made


def _constant(value: Tensor) -> Tensor:
    """What torch runs for a node "constant"."""
    return value


def _constants_apart(node: Node) -> list[Node]:
    """The constants of a join, such as a class token, as nodes."""
    made: list[Node] = []
    parts = []
    for part in node.args["tensors"]:
        if isinstance(part, Tensor) and part.dtype == node.dtype and part.shape != (0,):
            made.append(Node("constant", {"value": part}, tuple(part.shape), part.dtype, node.layer, _constant))
            part = made[-1]
        parts.append(part)
    node.args = node.args | {"tensors": parts}
    return made


def _mean_of_tokens(node: Node) -> list[Node]:
    """Over all axes between the first and the last: a mean over the spatial axes of another view."""
    x, axes, dims = node.args["self"], len(node.args["self"].shape), node.args.get("dim")
    if axes < 3 or not dims or {d % axes for d in dims} != set(range(1, axes - 1)) or node.args.get("dtype"):
        return []
    order = [0, axes - 1, *range(1, axes - 1)]
    shape = tuple(x.shape[axis] for axis in order)
    view = Node("permute", {"self": x, "dims": order}, shape, x.dtype, node.layer, aten.permute.default)
    arguments = {"self": view, "dim": list(range(2, axes)), "keepdim": False, "dtype": None}
    if not node.args["keepdim"]:
        node.args = arguments
        return [view]
    mean = Node("mean", arguments, shape[:2], x.dtype, node.layer, aten.mean.dim)
    _become(node, aten.view.default, {"self": mean, "size": list(node.shape)})
    return [view, mean]


def _length_over_pixels(node: Node) -> list[Node]:
    """The root of a sum of squares over the spatial axes, wherever the channels are: the sum is a mean."""
    x, axes, args = node.args["self"], len(node.args["self"].shape), node.args
    dims = sorted(d % axes for d in args["dim"] or ())
    if args["ord"] != 2 or args["dtype"] or axes < 3 or dims not in (list(range(1, axes - 1)), list(range(2, axes))):
        return []
    count = prod(x.shape[d] for d in dims)
    squares = Node("mul", {"self": x, "other": x}, x.shape, x.dtype, node.layer, aten.mul.Tensor)
    arguments = {"self": squares, "dim": dims, "keepdim": args["keepdim"], "dtype": None}
    mean = Node("mean", arguments, node.shape, x.dtype, node.layer, aten.mean.dim)
    views = _mean_of_tokens(mean)
    total = Node("mul", {"self": mean, "other": float(count)}, node.shape, x.dtype, node.layer, aten.mul.Tensor)
    _become(node, aten.sqrt.default, {"self": total})
    return [squares, *views, mean, total]


def _sum_over_pixels(node: Node) -> list[Node]:
    """Over spatial axes that stay: so many times the mean."""
    x, axes, args = node.args["self"], len(node.args["self"].shape), node.args
    over = {d % axes for d in args.get("dim") or ()}
    if not over or not over <= set(range(2, axes)) or not args["keepdim"] or args["dtype"] or 0 in x.shape:
        return []
    mean = Node("mean", args, node.shape, x.dtype, node.layer, aten.mean.dim)
    _become(node, aten.mul.Tensor, {"self": mean, "other": float(prod(x.shape[d] for d in over))})
    return [mean]


def _sum_of_product(node: Node) -> list[Node]:
    """self + value * tensor1 * tensor2."""
    x, a, b, value = (node.args[name] for name in ("self", "tensor1", "tensor2", "value"))
    a, b = (b, a) if isinstance(b, Node) and not isinstance(a, Node) else (a, b)
    if value != 1 or not isinstance(a, Node):
        return []
    shape = tuple(torch.broadcast_shapes(a.shape, b.shape))  # type: ignore[no-untyped-call]
    product = Node("mul", {"self": a, "other": b}, shape, node.dtype, node.layer, aten.mul.Tensor)
    _become(node, aten.add.Tensor, {"self": product, "other": x, "alpha": 1})
    return [product]


def _product(node: Node) -> list[Node]:
    made: list[Node] = []
    factors = einsum_factors(node, made)
    if factors is None:
        return []
    _become(node, aten.matmul.default, {"self": factors[0], "other": factors[1]})
    return made


def join_borders(graph: Graph) -> None:
    """Let borders of one number, which no convolution took as its padding, lie beside the value in joins."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in ("pad", "constant_pad_nd") and isinstance(node.kernel, Torch):
            nodes += _joined(node)
        nodes.append(node)
    graph.nodes = nodes


def _joined(node: Node) -> list[Node]:
    args, x = node.args, node.inputs[0]
    widths, value = list(args["pad"]), args.get("value") or 0.0
    plain = args.get("mode", "constant") == "constant" and node.dtype == x.dtype == torch.float32
    if not plain or min(widths) < 0 or prod(x.shape) == 0 or not isinstance(value, int | float):
        return []
    made: list[Node] = []
    for axis, before, after in zip(range(len(x.shape) - 1, -1, -1), widths[::2], widths[1::2], strict=False):
        if before == after == 0:
            continue
        shape = (*x.shape[:axis], x.shape[axis] + before + after, *x.shape[axis + 1 :])
        sides = [_border(x, axis, width, value) if width else None for width in (before, after)]
        made += [side for side in sides if side is not None]
        parts = [part for part in (sides[0], x, sides[1]) if part is not None]
        x = Node("cat", {}, shape, x.dtype, node.layer, kernel=Concat(axis), inputs=parts)
        made.append(x)
    last = made.pop()
    node.op, node.kernel, node.inputs = "cat", last.kernel, last.inputs
    return made


def _border(x: Node, axis: int, width: int, value: float) -> Node:
    shape: Shape = (*x.shape[:axis], width, *x.shape[axis + 1 :])
    kernel = Constant(torch.full((1,), value).expand(shape))
    return Node("constant", {}, shape, x.dtype, x.layer, kernel=kernel)
