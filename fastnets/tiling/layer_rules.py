"""Rules of the layers: convolutions, pooling, padding, resizing, normalisation, products."""

from __future__ import annotations

from collections.abc import Callable

from .rules import Break, Deps, Map, Read, as_list, consume_all, rule, same_dims
from .trace import Shape, Step

ShapeOf = Callable[[int], Shape]


def _windows(step: Step, shape_of: ShapeOf, maps: list[Map]) -> Deps:
    """The last len(maps) dimensions follow their maps, the ones before are kept."""
    index = step.inputs[0]
    rank = len(shape_of(index))
    first = rank - len(maps)
    dims = [[Read(index, d)] for d in range(first)]
    dims += [[Read(index, first + k, m)] for k, m in enumerate(maps)]
    return Deps(dims)


def _window(kernel: int, stride: int, padding: int, dilation: int = 1) -> Map:
    return Map(num=stride, lo=-padding, hi=-padding + (kernel - 1) * dilation)


@rule("conv1d", "conv2d", "conv3d")
def _conv(step: Step, shape_of: ShapeOf) -> Deps:
    kernel = shape_of(step.args["weight"].index)[2:]
    n = len(kernel)
    stride, dilation = as_list(step.args["stride"], n), as_list(step.args["dilation"], n)
    given = step.args["padding"]
    if given == "same":  # torch puts the odd pixel on the right
        padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    else:
        padding = [0] * n if given == "valid" else as_list(given, n)
    deps = _windows(step, shape_of, [_window(*w) for w in zip(kernel, stride, padding, dilation, strict=True)])
    return _mix_channels(deps, step, shape_of, n)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(step: Step, shape_of: ShapeOf) -> Deps:
    kernel = shape_of(step.args["weight"].index)[2:]
    n = len(kernel)
    stride, dilation = as_list(step.args["stride"], n), as_list(step.args["dilation"], n)
    padding = as_list(step.args["padding"], n)
    # Output j is fed by inputs i with j = i·stride − padding + tap·dilation.
    maps = [
        Map(num=1, den=s, lo=p - (k - 1) * d + s - 1, hi=p)
        for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)
    ]
    return _mix_channels(_windows(step, shape_of, maps), step, shape_of, n)


def _mix_channels(deps: Deps, step: Step, shape_of: ShapeOf, n: int) -> Deps:
    channel = len(shape_of(step.inputs[0])) - n - 1
    deps.dims[channel] = []
    deps.breaks.append(Break(step.inputs[0], channel, "a convolution over channels that are space"))
    return deps


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
@rule("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _pool(step: Step, shape_of: ShapeOf) -> Deps:
    n = int(step.op[step.op.index("pool") + 4])
    kernel = as_list(step.args["kernel_size"], n)
    stride = as_list(step.args["stride"] or kernel, n)
    padding, dilation = as_list(step.args["padding"], n), as_list(step.args.get("dilation", 1), n)
    deps = _windows(step, shape_of, [_window(*w) for w in zip(kernel, stride, padding, dilation, strict=True)])
    if step.op.endswith("_with_indices"):
        first = len(step.shape) - n
        deps.breaks += [
            Break(step.inputs[0], first + k, "its indices are positions in the whole image") for k in range(n)
        ]
    return deps


@rule(*(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)))
def _adaptive_pool(step: Step, shape_of: ShapeOf) -> Deps:
    index, n = step.inputs[0], len(as_list(step.args["output_size"], 1))
    deps = same_dims(step, shape_of)
    for d in range(len(step.shape) - n, len(step.shape)):
        if step.shape[d] != shape_of(index)[d]:
            deps.dims[d] = []
            deps.breaks.append(Break(index, d, "global pooling: its window grows with the image"))
    return deps


@rule("pad", "constant_pad_nd", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def _pad(step: Step, shape_of: ShapeOf) -> Deps:
    deps = same_dims(step, shape_of)
    index, rank = step.inputs[0], len(step.shape)
    amounts = as_list(step.args["padding"] if "padding" in step.args else step.args["pad"], 1)
    mode = step.args.get("mode") or step.op
    for k in range(len(amounts) // 2):
        d = rank - 1 - k
        left, right = amounts[2 * k], amounts[2 * k + 1]
        mirror = mode not in ("constant", "constant_pad_nd")
        deps.dims[d] = [
            Read(index, d, Map(lo=-left, hi=-left, mirror_lo=left if mirror else 0, mirror_hi=right if mirror else 0))
        ]
        if mode == "circular" and (left or right):
            deps.breaks.append(Break(index, d, "circular padding joins opposite borders"))
    return deps


# Taps below and above the source position: how far each kind of interpolation reaches.
_TAPS = {"nearest": (0, 0), "_nearest_exact": (0, 0), "linear": (0, 1), "bilinear": (0, 1), "trilinear": (0, 1)}
_TAPS |= {"bicubic": (-1, 2)}
_RESIZES = [f"upsample_{kind}{n}d" for kind in _TAPS if kind.startswith("n") for n in (1, 2, 3)]
_RESIZES += ["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"]
_RESIZES += [f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)]


@rule(*_RESIZES)
def _resize(step: Step, shape_of: ShapeOf) -> Deps:
    kind = step.op.removeprefix("upsample_").removeprefix("_upsample")[:-2]
    index, n = step.inputs[0], int(step.op[-2])
    deps = same_dims(step, shape_of, "input" if "input" in step.args else "self")
    for d in range(len(step.shape) - n, len(step.shape)):
        old, new = shape_of(index)[d], step.shape[d]
        if old == new:
            continue
        deps.dims[d] = [Read(index, d, _resize_map(kind, old, new))]
        if new % old and old % new:
            deps.breaks.append(Break(index, d, f"resizes {old} to {new}: not a whole factor"))
        elif step.args.get("align_corners"):
            deps.breaks.append(Break(index, d, "align_corners=True: its positions depend on the image's size"))
    return deps


def _resize_map(kind: str, old: int, new: int) -> Map:
    """Source position (j + ½)·old/new − ½ (nearest: j·old/new), and the taps around its floor."""
    if new % old == 0:
        num, den = 1, new // old
    elif old % new == 0:
        num, den = old // new, 1
    else:
        num, den = old, new
    if kind == "nearest":
        return Map(num, den)
    if kind == "_nearest_exact":
        return Map(2 * num, 2 * den, num, num)
    below, above = _TAPS[kind]
    offset = num - den
    return Map(2 * num, 2 * den, offset + 2 * den * below, offset + 2 * den * above)


@rule("pixel_shuffle")
def _pixel_shuffle(step: Step, shape_of: ShapeOf) -> Deps:
    return _windows(step, shape_of, [Map(den=int(step.args["upscale_factor"]))] * 2)


@rule("pixel_unshuffle")
def _pixel_unshuffle(step: Step, shape_of: ShapeOf) -> Deps:
    r = int(step.args["downscale_factor"])
    return _windows(step, shape_of, [Map(num=r, lo=0, hi=r - 1)] * 2)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm", "group_norm")
def _norm(step: Step, shape_of: ShapeOf) -> Deps:
    deps = same_dims(step, shape_of, "input")
    index, rank = step.inputs[0], len(step.shape)
    over_space = {
        "instance_norm": bool(step.args.get("use_input_stats")),
        "group_norm": True,
        "batch_norm": bool(step.args.get("training")),
    }.get(step.op, False)
    if over_space:
        reason = f"{step.op.replace('_', ' ')} takes statistics over space"
        deps.breaks += [Break(index, d, reason) for d in range(rank) if d != 1]
    return deps


@rule("layer_norm", "rms_norm")
def _layer_norm(step: Step, shape_of: ShapeOf) -> Deps:
    deps = same_dims(step, shape_of, "input")
    for d in range(len(step.shape) - len(as_list(step.args["normalized_shape"], 1)), len(step.shape)):
        deps.breaks.append(Break(step.inputs[0], d, f"{step.op} takes statistics over space"))
    return deps


@rule("linear")
def _linear(step: Step, shape_of: ShapeOf) -> Deps:
    deps = same_dims(step, shape_of, "input")
    last = len(step.shape) - 1
    deps.dims[last] = []
    deps.breaks.append(Break(step.inputs[0], last, "a linear layer over space fixes the image's size"))
    return deps


@rule("matmul", "bmm", "mm")
def _matmul(step: Step, shape_of: ShapeOf) -> Deps:
    a, b = step.inputs
    rank, rank_a, rank_b = len(step.shape), len(shape_of(a)), len(shape_of(b))
    if min(rank_a, rank_b) < 2:
        return consume_all(step, shape_of, "a product with a vector over space")
    dims: list[list[Read]] = [[] for _ in step.shape]
    for index, size, kept in ((a, rank_a, rank_a - 2), (b, rank_b, rank_b - 1)):
        for d in [*range(size - 2), kept]:
            out = d + rank - size
            if shape_of(index)[d] == step.shape[out]:
                dims[out].append(Read(index, d))
    reason = f"{step.op} sums over space (attention)"
    return Deps(dims, [Break(a, rank_a - 1, reason), Break(b, rank_b - 2, reason)])


@rule("scaled_dot_product_attention")
def _attention(step: Step, shape_of: ShapeOf) -> Deps:
    return consume_all(step, shape_of, "attention over space")
