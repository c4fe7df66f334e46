"""Rules for convolutions and linear layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.engine.kernels import Kernel, Terms
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Linear, Separable, Transposed
from fastnets.engine.kernels_matmul import Matmul
from fastnets.engine.lower import Context, Lowered, rule
from fastnets.ops.conv_arguments import Window
from fastnets.ops.epilogue import Activation


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Zeros before and after, an axis; "same" puts the odd one after, as torch does."""
    if value == "valid":
        return ((0, 0),) * len(kernel)
    if value == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _per_axis(value, len(kernel)))


@rule("conv1d", "conv2d", "conv3d", "convolution")
def conv(node: Node, context: Context) -> Lowered | str:
    args = node.args
    if args.get("transposed"):
        return conv_transpose(node, context)
    weight, bias = args["weight"], args["bias"]
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        return "the weights are computed by the network"
    x, axes = args["input"], weight.dim() - 2
    if len(x.shape) != axes + 2:
        return f"the input has {len(x.shape)} axes; the kernel needs a batch axis"
    dilation = _per_axis(args["dilation"], axes)
    padding = _padding(args["padding"], tuple(weight.shape[2:]), dilation)
    window = Window(_per_axis(args["stride"], axes), padding, dilation)
    kernel = Conv(weight, window, args["groups"], context.packs_of(weight, args["groups"]), terms=Terms(shift=bias))
    return kernel, [x]


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(node: Node, context: Context) -> Lowered | str:
    args = node.args
    weight, bias = args["weight"], args["bias"]
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        return "the weights are computed by the network"
    x, axes = args["input"], weight.dim() - 2
    if len(x.shape) != axes + 2:
        return f"the input has {len(x.shape)} axes; the kernel needs a batch axis"
    names = ("stride", "padding", "output_padding", "dilation")
    geometry: dict[str, Any] = {name: _per_axis(args[name], axes) for name in names}
    geometry["groups"] = args["groups"]
    kernel: Kernel = Transposed(weight, geometry, context.packs_of(weight, args["groups"]), terms=Terms(shift=bias))
    return kernel, [x]


@rule("linear")
def linear(node: Node, context: Context) -> Lowered | str:
    x, weight, bias = node.args["input"], node.args["weight"], node.args["bias"]
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        return "the weights are computed by the network"
    if len(x.shape) < 2:
        return "the input has one axis; the kernel needs a batch axis"
    window = Window((1,), ((0, 0),), (1,))
    kernel = Linear(weight.unsqueeze(-1), window, 1, context.packs_of(weight, 1), terms=Terms(shift=bias))
    return kernel, [x]


@rule("matmul", "bmm")
def matmul(node: Node, context: Context) -> Lowered | str:
    """By a constant matrix: a linear layer."""
    a, b = node.args["self"], node.args["other" if node.op == "matmul" else "mat2"]
    if isinstance(a, Node) and isinstance(b, Tensor) and b.dim() == 2 <= len(a.shape):
        window = Window((1,), ((0, 0),), (1,))
        packs = context.packs_of(b, 0)  # not those of a linear layer by the same matrix, which it transposes
        return Linear(b.t().unsqueeze(-1), window, 1, packs), [a]
    batch = tuple(node.shape[:-2]) or (1,)
    if min(len(a.shape), len(b.shape)) < 2 or len(batch) > 3:
        return "the factors have more than three axes of batch, or one axis in all"
    if 0 in (*a.shape, *b.shape):
        return "a factor is empty"
    inputs = [factor for factor in (a, b) if isinstance(factor, Node)]
    constant = next((factor for factor in (a, b) if isinstance(factor, Tensor)), None)
    held = None if constant is None else constant.detach().contiguous()
    return Matmul(batch, held, isinstance(a, Tensor)), inputs


def _window(args: dict[str, Any]) -> Window:
    """That of our own operators: zeros before and after each axis in one list."""
    flat = args["padding"]
    padding = tuple(zip(flat[::2], flat[1::2], strict=True))
    return Window(tuple(args["stride"]), padding, tuple(args["dilation"]))


@rule("fastnets::conv")
def own_conv(node: Node, context: Context) -> Lowered | str:
    args = node.args
    weight, bias, residual = args["weight"], args["bias"], args["residual"]
    if not isinstance(weight, Tensor) or isinstance(bias, Node) or isinstance(residual, Tensor):
        return "the weights are computed by the network"
    activation = Activation(args["activation"], tuple(args["parameters"]))
    terms = Terms(shift=bias, residual=residual is not None, activation=activation)
    kernel = Conv(weight, _window(args), args["groups"], context.packs_of(weight, args["groups"]), terms=terms)
    return kernel, [args["x"], *([] if residual is None else [residual])]


@rule("fastnets::separable")
def own_separable(node: Node, context: Context) -> Lowered | str:
    args = node.args
    names = ("depthwise", "pointwise", "bias", "middle_scale", "middle_bias")
    residual = args["residual"]
    if any(isinstance(args[name], Node) for name in names) or isinstance(residual, Tensor):
        return "the weights are computed by the network"
    depthwise, pointwise = args["depthwise"], args["pointwise"]
    axes = depthwise.dim() - 2
    between = Activation(args["middle_activation"], tuple(args["middle_parameters"]))
    after = Activation(args["activation"], tuple(args["parameters"]))
    middle = Terms(args["middle_scale"], args["middle_bias"], activation=between)
    terms = Terms(shift=args["bias"], residual=residual is not None, activation=after)
    plain = Window((1,) * axes, ((0, 0),) * axes, (1,) * axes)
    groups = args["x"].shape[1]
    first = Conv(depthwise, _window(args), groups, context.packs_of(depthwise, groups), terms=middle)
    kernel = Separable(first, Conv(pointwise, plain, 1, context.packs_of(pointwise, 1)), terms=terms)
    return kernel, [args["x"], *([] if residual is None else [residual])]


@rule("fastnets::inverted_bottleneck")
def own_inverted_bottleneck(node: Node, context: Context) -> Lowered | str:
    args = node.args
    names = ("expand", "depthwise", "project", "bias", "expand_bias", "middle_bias")
    residual = args["residual"]
    if any(isinstance(args[name], Node) for name in names) or isinstance(residual, Tensor):
        return "the weights are computed by the network"
    expand, depthwise, project = (args[name] for name in names[:3])
    first, middle, after = (
        Activation(args[f"{name}activation"], tuple(args[f"{name}parameters"])) for name in ("expand_", "middle_", "")
    )
    plain = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
    window = _window(args | {"dilation": (1, 1)})
    wide = Conv(expand, plain, 1, {}, terms=Terms(shift=args["expand_bias"], activation=first))
    deep = Conv(depthwise, window, len(depthwise), {}, terms=Terms(shift=args["middle_bias"], activation=middle))
    terms = Terms(shift=args["bias"], residual=residual is not None, activation=after)
    kernel = InvertedBottleneck(wide, deep, Conv(project, plain, 1, {}), terms=terms)
    return kernel, [args["x"], *([] if residual is None else [residual])]
