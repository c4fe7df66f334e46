"""Rules for pooling, resizing, normalization and sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnets.engine.attention import Attention
from fastnets.engine.graph import Node
from fastnets.engine.kernels import OpKernel, Terms
from fastnets.engine.lower import Context, Lowered, rule
from fastnets.engine.rules_pointwise import pointwise
from fastnets.ops.channel_norm import OP as CHANNEL_NORM
from fastnets.ops.channel_norm import ChannelNormCall
from fastnets.ops.norm import OP as NORM
from fastnets.ops.norm import NormCall
from fastnets.ops.pad import MODES, PadCall
from fastnets.ops.pad import OP as PAD
from fastnets.ops.pool import OP as POOL
from fastnets.ops.pool import PoolCall
from fastnets.ops.resize import OP as RESIZE
from fastnets.ops.resize import ResizeCall

_NONE = torch.empty(0)


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


@rule(*(f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)))
def pooling(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["self"]
    axes = int(node.op[-2])
    if len(x.shape) != axes + 2:
        return f"the input has {len(x.shape)} axes; the kernel needs a batch axis"
    window = _sizes(args["kernel_size"], axes)
    call = PoolCall(
        x=_NONE,
        average=node.op.startswith("avg"),
        window=window,
        stride=_sizes(args["stride"] or window, axes),
        padding=_sizes(args["padding"], axes),
        dilation=_sizes(args.get("dilation", 1), axes),
        ceil_mode=args["ceil_mode"],
        count_include_pad=args.get("count_include_pad", True),
        divisor=args.get("divisor_override") or 0,
    )
    return OpKernel(POOL, call), [x]


@rule(*(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)))
def adaptive(node: Node, context: Context) -> Lowered | str:
    x = node.args["self"]
    axes = int(node.op[-2])
    if len(x.shape) != axes + 2:
        return f"the input has {len(x.shape)} axes; the kernel needs a batch axis"
    sizes, wanted = x.shape[2:], _sizes(node.args["output_size"], axes)
    if 0 in sizes + wanted:
        return "the image has no pixels"
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        ones, zeros = (1,) * axes, (0,) * axes
        return OpKernel(POOL, PoolCall(_NONE, "avg" in node.op, ones, ones, zeros, ones, adaptive=wanted)), [x]
    if sizes == wanted:
        return pointwise(Terms()), [x]
    return _apart(x, tuple(size // out for size, out in zip(sizes, wanted, strict=True)), "avg" in node.op)


def _apart(x: Node, window: tuple[int, ...], average: bool) -> Lowered:
    """A pool whose windows lie beside each other."""
    axes = len(window)
    call = PoolCall(_NONE, average, window, window, (0,) * axes, (1,) * axes)
    return OpKernel(POOL, call), [x]


@rule("mean")
def mean(node: Node, context: Context) -> Lowered | str:
    x, dims = node.args["self"], node.args.get("dim")
    axes = len(x.shape)
    spatial, over = set(range(2, axes)), {d % axes for d in dims or ()}
    if not over or not (over == spatial or (over < spatial and node.args["keepdim"])):
        return "the kernel takes the mean over all spatial axes, or keeps those that it takes it over"
    return _apart(x, tuple(x.shape[d] if d in over else 1 for d in range(2, axes)), average=True)


@rule(
    *(f"upsample_{name}" for name in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d"))
)
def upsample(node: Node, context: Context) -> Lowered | str:
    args = node.args
    x = args["input" if "input" in args else "self"]
    axes = len(x.shape) - 2
    scale = args.get("scale_factors")
    if scale is None and any(name.startswith("scales") and args[name] is not None for name in args):
        scale = [value for name, value in args.items() if name.startswith("scales")]
    call = ResizeCall(
        x=_NONE,
        size=node.shape[2:],
        scale=None if scale is None else tuple(float(s) for s in _sizes(scale, axes)),
        mode="nearest" if "nearest" in node.op else "linear",
        align_corners=bool(args.get("align_corners", False)),
    )
    return OpKernel(RESIZE, call), [x]


@rule("pad", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def border(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["self"]
    names = {"reflection": "reflect", "replication": "replicate"}
    mode = args["mode"] if node.op == "pad" else names[node.op.split("_")[0]]
    widths, axes = list(args["pad" if node.op == "pad" else "padding"]), len(x.shape) - 2
    if mode not in MODES:
        return f"there is no kernel for padding in mode {mode}"
    if not 1 <= axes <= 3 or len(widths) != 2 * axes or min(widths) < 0:
        return "the kernel pads all spatial axes of (N, C, *spatial), and crops none"
    pairs = [(widths[2 * axis], widths[2 * axis + 1]) for axis in reversed(range(axes))]
    return OpKernel(PAD, PadCall(_NONE, tuple(width for pair in pairs for width in pair), mode)), [x]


def _vectors(*values: Any) -> bool:
    return all(value is None or isinstance(value, Tensor) for value in values)


_NORM_TERMS = {"scale": "weight", "shift": "bias", "residual": "residual", "activation": "activation"}


@rule("instance_norm", "group_norm")
def group_norm(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["input"]
    if not _vectors(args["weight"], args["bias"]) or len(x.shape) < 3:
        return "the kernel needs constant weights and a spatial axis"
    if node.op == "instance_norm" and not args["use_input_stats"]:
        return batch_norm(node, context)
    groups = x.shape[1] if node.op == "instance_norm" else args["num_groups"]
    call = NormCall(_NONE, groups, eps=args["eps"])
    return OpKernel(NORM, call, takes=_NORM_TERMS, terms=Terms(args["weight"], args["bias"])), [x]


@rule("_native_batch_norm_legit_no_training", "batch_norm")
def batch_norm(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["input"]
    mean, variance = args["running_mean"], args["running_var"]
    if args.get("training") or not isinstance(mean, Tensor) or not _vectors(args["weight"], args["bias"]):
        return "the statistics are those of the batch"
    inverse = (variance.double() + args["eps"]).rsqrt()
    scale = inverse if args["weight"] is None else inverse * args["weight"].double()
    shift = -mean.double() * scale if args["bias"] is None else args["bias"].double() - mean.double() * scale
    return pointwise(Terms(scale.float(), shift.float())), [x]


@rule("layer_norm")
def layer_norm(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["input"]
    if len(args["normalized_shape"]) != 1 or not _vectors(args["weight"], args["bias"]) or not 2 <= len(x.shape) <= 5:
        return "the kernel is a norm over the last axis, with constant weights"
    call = ChannelNormCall(_NONE, "layer", (float(args["eps"]),))
    takes = {"scale": "weight", "shift": "bias", "activation": "activation"}
    axis = 1 if len(x.shape) == 2 else -1
    terms = Terms(args["weight"], args["bias"])
    return OpKernel(CHANNEL_NORM, call, takes=takes, channel_axis=axis, terms=terms), [x]


@rule("local_response_norm")
def local_response(node: Node, context: Context) -> Lowered | str:
    args, x = node.args, node.args["input"]
    if not 3 <= len(x.shape) <= 5:
        return f"the input has {len(x.shape)} axes; the kernel takes 3 to 5"
    numbers = tuple(float(args[name]) for name in ("size", "alpha", "beta", "k"))
    call = ChannelNormCall(_NONE, "local_response", numbers)
    return OpKernel(CHANNEL_NORM, call, takes={"activation": "activation"}), [x]


@rule("normalize")
def normalize(node: Node, context: Context) -> Lowered | str:
    x, axes = node.args["input"], len(node.shape)
    axis = node.args["dim"] % axes
    if axis not in (1, axes - 1) or not 2 <= axes <= 5:
        return "the kernel normalizes channels, or the last axis"
    call = ChannelNormCall(_NONE, "unit", (float(node.args["eps"]),))
    return OpKernel(CHANNEL_NORM, call, channel_axis=1 if axis == 1 else -1), [x]


@rule("softmax", "_softmax")
def softmax(node: Node, context: Context) -> Lowered | str:
    x, axes = node.args["self"], len(node.shape)
    axis = node.args["dim"] % axes
    if axis not in (1, axes - 1) or not 2 <= axes <= 5:
        return "the kernel is a softmax over channels, or over the last axis"
    call = ChannelNormCall(_NONE, "softmax")
    return OpKernel(CHANNEL_NORM, call, channel_axis=1 if axis == 1 else -1), [x]


@rule("attention")
def attention(node: Node, context: Context) -> Lowered | str:
    args = node.args
    scale = torch.as_tensor(args["scale"], dtype=torch.float32).expand(args["batch"][-1])
    added = [(tuple(shape), None if isinstance(term, Node) else _dense(term)) for shape, term in args["added"]]
    nodes = [term for _, term in args["added"] if isinstance(term, Node)]
    kernel = Attention(scale, tuple(args["batch"]), added)
    return kernel, [args["query"], args["key"], args["value"], *nodes]


def _dense(constant: Tensor) -> Tensor:
    return constant.detach().float().contiguous()
