"""Operations that torch writes as several: recognised by their graph, so that they run as one kernel."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

from fastnets.engine.graph import Graph, Node

RESHAPES = ("view", "reshape", "unsqueeze", "squeeze", "_unsafe_view")


def recognize(graph: Graph) -> None:
    """Give the last node of every pattern the operation that the pattern is; the others may be dead then."""
    for node in graph.nodes:
        arguments = _local_response(node)
        if arguments is not None:
            node.op, node.args, node.target = "local_response_norm", arguments, functional.local_response_norm


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
