"""Rules for activations, sums, products and joins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.engine.kernels import Concat, Constant, OpKernel, Rearranged, Terms, pixels
from fastnets.engine.lower import Context, Lowered, rule
from fastnets.ops.activation import OP as ACTIVATION
from fastnets.ops.activation import ActivationCall
from fastnets.ops.combine import OP as COMBINE
from fastnets.ops.combine import CombineCall
from fastnets.ops.epilogue import Activation
from fastnets.ops.layout import channels_last

_ALL = {"scale": "scale", "shift": "shift", "residual": "residual", "activation": "activation"}


def pointwise(terms: Terms, *, channel_axis: int | None = None) -> OpKernel:
    """activation(x * scale + shift + residual) as a step of its own."""
    call = ActivationCall(torch.empty(0), Activation())
    axis = channel_axis if terms.scale is None and terms.shift is None else 1
    return OpKernel(ACTIVATION, call, takes=_ALL, channel_axis=axis, terms=terms)


def _activation(node: Node, name: str, *parameters: float) -> Lowered | str:
    if not 2 <= len(node.shape) <= 5:
        return f"the input has {len(node.shape)} axes; the kernel takes 2 to 5"
    values = tuple(float(p) for p in parameters)
    return pointwise(Terms(activation=Activation(name, values))), [node.args["self"]]


@rule("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh")
def plain(node: Node, context: Context) -> Lowered | str:
    return _activation(node, node.op)


@rule("leaky_relu")
def leaky_relu(node: Node, context: Context) -> Lowered | str:
    return _activation(node, "leaky", node.args["negative_slope"])


@rule("elu")
def elu(node: Node, context: Context) -> Lowered | str:
    if node.args["scale"] != 1 or node.args["input_scale"] != 1:
        return "the kernel has no scales of elu other than 1"
    return _activation(node, "elu", node.args["alpha"])


@rule("gelu")
def gelu(node: Node, context: Context) -> Lowered | str:
    return _activation(node, "gelu_tanh" if node.args["approximate"] == "tanh" else "gelu")


@rule("hardtanh", "clamp")
def clamp(node: Node, context: Context) -> Lowered | str:
    low = node.args.get("min_val", node.args.get("min"))
    high = node.args.get("max_val", node.args.get("max"))
    if isinstance(low, Node) or isinstance(high, Node):
        return "the limits are computed by the network"
    infinity = float("inf")
    limits = (-infinity if low is None else float(low), infinity if high is None else float(high))
    return _activation(node, "relu6") if limits == (0.0, 6.0) else _activation(node, "clamp", *limits)


@rule("clamp_min")
def clamp_min(node: Node, context: Context) -> Lowered | str:
    return _activation(node, "clamp", node.args["min"], float("inf"))


@rule("prelu", "_prelu_kernel")
def prelu(node: Node, context: Context) -> Lowered | str:
    weight = node.args["weight"]
    if not isinstance(weight, Tensor) or len(node.shape) < 3:
        return "the kernel needs constant weights and a spatial axis"
    if weight.numel() == 1:
        return _activation(node, "leaky", float(weight))
    other = weight.detach().reshape(1, -1, *(1,) * (len(node.shape) - 2))
    call = CombineCall(torch.empty(0), other, "prelu")
    return OpKernel(COMBINE, call, takes={"activation": "activation"}), [node.args["self"]]


def _channel_vector(value: Any, shape: tuple[int, ...]) -> Tensor | None:
    """A constant that is one number a channel of `shape`, or a single number, as (C,)."""
    channels = shape[1] if len(shape) > 1 else 0
    if isinstance(value, (int, float)):
        return torch.full((channels,), float(value))
    fits = value.dim() <= len(shape) and value.is_floating_point()
    padded = (1,) * (len(shape) - value.dim()) + tuple(value.shape)
    only_channels = all(size == 1 for axis, size in enumerate(padded) if axis != 1)
    if not fits or not only_channels or (len(padded) > 1 and padded[1] not in (1, channels)):
        return None
    vector: Tensor = value.detach().float().reshape(-1).expand(channels).contiguous()
    return vector


def _with_constant(kind: str, x: Node, constant: Any) -> Lowered | str:
    """x + constant or x * constant."""
    if not 2 <= len(x.shape) <= 5:
        return f"the input has {len(x.shape)} axes; the kernel takes 2 to 5"
    vector = _channel_vector(constant, x.shape)
    if vector is not None:
        return pointwise(Terms(scale=vector) if kind == "multiply" else Terms(shift=vector)), [x]
    shape = (1,) * (len(x.shape) - constant.dim()) + tuple(constant.shape)
    if not constant.is_floating_point() or not _repeats(shape, x.shape):
        return "the constant has other axes than the input, or is no floating-point number"
    axis = -1 if len(shape) == 3 or set(shape[:-1]) == {1} else 1  # as the elements of x lie most of the time
    other = channels_last(pixels(constant.detach().float().view(shape), axis))
    call = CombineCall(torch.empty(0), other, kind)
    return OpKernel(COMBINE, call, takes={"activation": "activation"}, channel_axis=axis), [x]


def _repeats(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return len(small) == len(large) and all(s in (1, n) for s, n in zip(small, large, strict=True))


def _join(node: Node, kind: str, a: Node, b: Node) -> Lowered | str:
    if a.shape != node.shape and kind in ("add", "multiply"):
        a, b = b, a
    if a.shape != node.shape or not _repeats(b.shape, a.shape):
        return "the inputs are repeated in a way that the kernel has not"
    if not 2 <= len(node.shape) <= 5:
        return f"the inputs have {len(node.shape)} axes; the kernel takes 2 to 5"
    if a.shape == b.shape and kind == "add":
        return pointwise(Terms(residual=True)), [a, b]
    call = CombineCall(torch.empty(0), torch.empty(0), kind)
    return OpKernel(COMBINE, call, ("x", "other"), {"activation": "activation"}, None), [a, b]


@rule("add")
def add(node: Node, context: Context) -> Lowered | str:
    a, b, alpha = node.args["self"], node.args["other"], node.args.get("alpha", 1)
    if isinstance(a, Node) and isinstance(b, Node):
        return _join(node, "add", a, b) if alpha == 1 else "alpha is not 1"
    x, constant = (a, b * alpha) if isinstance(a, Node) else (b, a)
    return _with_constant("add", x, constant) if x.shape == node.shape and alpha == 1 else "the input is repeated"


@rule("sub")
def sub(node: Node, context: Context) -> Lowered | str:
    a, b, alpha = node.args["self"], node.args["other"], node.args.get("alpha", 1)
    if isinstance(a, Node) and isinstance(b, Node):
        return _join(node, "subtract", a, b) if alpha == 1 else "alpha is not 1"
    if not isinstance(a, Node) or a.shape != node.shape:
        return "the first value is a constant, or is repeated"
    return _with_constant("add", a, -alpha * b)


@rule("mul")
def mul(node: Node, context: Context) -> Lowered | str:
    a, b = node.args["self"], node.args["other"]
    if isinstance(a, Node) and isinstance(b, Node):
        return _join(node, "multiply", a, b)
    x, constant = (a, b) if isinstance(a, Node) else (b, a)
    return _with_constant("multiply", x, constant) if x.shape == node.shape else "the input is repeated"


@rule("div")
def div(node: Node, context: Context) -> Lowered | str:
    a, b = node.args["self"], node.args["other"]
    if node.args.get("rounding_mode"):
        return "the quotient is rounded"
    if isinstance(a, Node) and isinstance(b, Node):
        return _join(node, "divide", a, b)
    if not isinstance(a, Node) or a.shape != node.shape:
        return "the first value is a constant, or is repeated"
    return _with_constant("multiply", a, 1 / b)


@rule("pixel_shuffle")
def pixel_shuffle(node: Node, context: Context) -> Lowered | str:
    factor, x = node.args["upscale_factor"], node.args["self"]
    if len(x.shape) != 4:
        return f"the input has {len(x.shape)} axes; the kernel takes (N, C, y, x)"
    split = (-1, node.shape[1], factor, factor, *x.shape[2:])
    return Rearranged(lambda value: value.view(split).permute(0, 1, 4, 2, 5, 3)), [x]


@rule("pixel_unshuffle")
def pixel_unshuffle(node: Node, context: Context) -> Lowered | str:
    factor, x = node.args["downscale_factor"], node.args["self"]
    if len(x.shape) != 4:
        return f"the input has {len(x.shape)} axes; the kernel takes (N, C, y, x)"
    split = (-1, x.shape[1], node.shape[2], factor, node.shape[3], factor)
    return Rearranged(lambda value: value.view(split).permute(0, 1, 3, 5, 2, 4)), [x]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(node: Node, context: Context) -> Lowered | str:
    groups, x = node.args["groups"], node.args["self"]
    split = (-1, groups, x.shape[1] // groups, *x.shape[2:])
    return Rearranged(lambda value: value.view(split).transpose(1, 2)), [x]


@rule("constant")
def constant(node: Node, context: Context) -> Lowered | str:
    return Constant(node.args["value"].detach()), []


@rule("cat")
def cat(node: Node, context: Context) -> Lowered | str:
    pieces = [piece for piece in node.args["tensors"] if not (isinstance(piece, Node) and piece.shape == (0,))]
    if not all(isinstance(piece, Node) and len(piece.shape) == len(node.shape) for piece in pieces):
        return "a constant is among the inputs"
    return Concat(node.args["dim"] % len(node.shape)), pieces
