"""Shapes of real networks, by which test_kernels_compile.py has every kernel compiled; on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fastnets.kernels import (
    activation,
    conv,
    conv_transpose,
    conv_weight,
    depthwise,
    depthwise_weight,
    inverted_bottleneck,
    nms,
    norm,
    norm_gradient,
    resize_argmax,
    roi_align,
    separable,
    window_accumulate,
)

from fastnets.ops.activation import ActivationCall
from fastnets.ops.conv_arguments import ConvCall, window_of
from fastnets.ops.conv_transpose import ConvTransposeCall
from fastnets.ops.epilogue import Activation
from fastnets.ops.inverted_bottleneck_packed import InvertedBottleneckCall
from fastnets.ops.nms import NmsCall
from fastnets.ops.norm import NormCall
from fastnets.ops.resize_argmax import ResizeArgmaxCall
from fastnets.ops.roi_align import RoiAlignCall
from fastnets.ops.separable_packed import SeparableCall

BF16, FP32 = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Shape:
    """`run` launches kernels. `products` names those that need tensor cores, `wide` those that need 16-byte loads."""

    name: str
    run: Callable[[], Any]
    products: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()


def empty(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    """(N, C, *spatial), channels-last, without data."""
    batch, channels, *spatial = shape
    return torch.empty((batch, *spatial, channels), dtype=dtype, device="meta").movedim(-1, 1)


def conv_call(
    shape: tuple[int, ...],
    outputs: int,
    kernel: tuple[int, ...],
    *,
    groups: int = 1,
    stride: int = 1,
    dilation: int = 1,
    residual: bool = False,
    dtype: torch.dtype = BF16,
) -> ConvCall:
    x = empty(*shape, dtype=dtype)
    weight = torch.empty((outputs, shape[1] // groups, *kernel), dtype=dtype, device="meta")
    window = window_of(len(kernel), stride, tuple(dilation * (k // 2) for k in kernel), dilation)
    call = ConvCall(x, weight, weight.new_empty(outputs), None, window, groups, Activation("relu"))
    return ConvCall(**{**vars(call), "residual": empty(*call.out_shape, dtype=dtype)}) if residual else call


def _depthwise(call: ConvCall, *, backward: bool) -> None:
    assert depthwise.can_run(call) is None
    y = depthwise.launch(call)
    if backward:
        depthwise.data_gradient(call, y)
        depthwise_weight.weight_gradient(call, y)


def _depthwise_shape(
    channels: int, size: tuple[int, ...], kernel: int, *, backward: bool = False, **options: Any
) -> Shape:
    call = conv_call((4, channels, *size), channels, (kernel,) * len(size), groups=channels, **options)
    text = "-".join(f"{key}{value}" for key, value in options.items())
    name = f"depthwise-{channels}-{'x'.join(map(str, size))}-k{kernel}-{text}"
    return Shape(name, lambda: _depthwise(call, backward=backward), wide=("_rows", "_sums") if backward else ("_rows",))


def _conv(call: ConvCall, *, backward: bool) -> None:
    assert conv.can_run(call) is None
    y = conv.launch(call)
    if backward:
        conv.data_gradient(call, y)
        conv_weight.weight_gradient(call, y)


def _conv_shape(
    inputs: int, outputs: int, size: tuple[int, ...], kernel: int = 3, *, backward: bool = False, **options: Any
) -> Shape:
    call = conv_call((2, inputs, *size), outputs, (kernel,) * len(size), **options)
    text = "-".join(f"{key}{value}" for key, value in options.items())
    names = ("_product", "_weights") if backward else ("_product",)
    products = () if options.get("dtype") == FP32 else names
    return Shape(
        f"conv-{inputs}-{outputs}-{'x'.join(map(str, size))}-{text}", lambda: _conv(call, backward=backward), products
    )


def _separable_shape(inputs: int, outputs: int, size: tuple[int, ...], dtype: torch.dtype = BF16) -> Shape:
    middle = conv_call((8, inputs, *size), inputs, (3,) * len(size), groups=inputs, dtype=dtype)
    vector = middle.weight.new_empty(inputs)
    call = SeparableCall(
        x=middle.x,
        depthwise=middle.weight,
        pointwise=middle.weight.new_empty((outputs, inputs)),
        bias=middle.weight.new_empty(outputs),
        middle_scale=vector,
        middle_bias=vector,
        residual=None,
        window=middle.window,
        middle_activation=Activation("relu6"),
    )
    products = () if dtype == FP32 else ("_fused",)
    name = f"separable-{inputs}-{outputs}-{dtype}"
    return Shape(name, lambda: separable.launch(call), products, wide=("_fused",))


def _inverted_shape(
    inputs: int, middle: int, outputs: int, size: int, kernel: int = 3, *, stride: int = 1, dtype: torch.dtype = BF16
) -> Shape:
    wide = conv_call((8, middle, size, size), middle, (kernel, kernel), groups=middle, stride=stride, dtype=dtype)
    weight, x = wide.weight, empty(8, inputs, size, size, dtype=dtype)
    call = InvertedBottleneckCall(
        x=x,
        expand=weight.new_empty((middle, inputs)),
        depthwise=weight,
        project=weight.new_empty((outputs, middle)),
        bias=weight.new_empty(outputs),
        expand_bias=weight.new_empty(middle),
        middle_bias=weight.new_empty(middle),
        residual=x if inputs == outputs else None,
        window=wide.window,
        expand_activation=Activation("relu6"),
        middle_activation=Activation("relu6"),
    )
    assert inverted_bottleneck.can_run(call) is None
    products = () if dtype == FP32 else ("_block",)
    name = f"inverted-{inputs}-{middle}-{outputs}-{size}-k{kernel}-s{stride}-{dtype}"
    return Shape(name, lambda: inverted_bottleneck.launch(call), products, wide=("_block",))


def _norm(call: NormCall, *, backward: bool) -> None:
    assert norm.can_run(call) is None
    y = norm.launch(call)
    if backward:
        norm_gradient.gradients(call, y)


def _norm_shape(shape: tuple[int, ...], groups: int, dtype: torch.dtype = BF16, *, backward: bool = False) -> Shape:
    x, vector = empty(*shape, dtype=dtype), torch.empty(shape[1], dtype=dtype, device="meta")
    call = NormCall(x, groups, vector, vector, residual=x, activation=Activation("leaky", (0.01,)))
    name = f"norm-{'x'.join(map(str, shape))}-g{groups}-{dtype}"
    wide = ("_moments", "_apply", *(("_sums",) if backward else ()))
    return Shape(name, lambda: _norm(call, backward=backward), wide=wide)


def _activation_shape(*shape: int) -> Shape:
    x, shift = empty(*shape), torch.empty(shape[1], device="meta")
    call = ActivationCall(x, Activation("relu"), None, shift, x, x)
    return Shape(f"activation-{shape[1]}", lambda: activation.launch(call), wide=("_pointwise",))


def _transposed_shape(inputs: int, outputs: int, size: tuple[int, ...], dtype: torch.dtype = BF16) -> Shape:
    axes = len(size)
    weight = torch.empty((inputs, outputs, *(2,) * axes), dtype=dtype, device="meta")
    numbers = ((2,) * axes, (0,) * axes, (0,) * axes, (1,) * axes)
    call = ConvTransposeCall(empty(2, inputs, *size, dtype=dtype), weight, weight.new_empty(outputs), None, *numbers)
    assert conv_transpose.can_run(call) is None
    products = () if dtype == FP32 else ("_taps",)
    name = f"transposed-{inputs}-{outputs}-{dtype}"
    return Shape(name, lambda: conv_transpose.launch(call), products, wide=("_taps",))


def _boxes(count: int) -> NmsCall:
    boxes = torch.empty((count, 4), device="meta")
    return NmsCall(boxes, boxes.new_empty(count), 0.5, boxes.new_empty(count))


def _roi_align() -> None:
    call = RoiAlignCall(empty(2, 256, 200, 304), torch.empty((512, 5), dtype=BF16, device="meta"), (7, 7), 0.25)
    roi_align.launch(call)


def _accumulate(*, last: bool) -> None:
    out, windows = empty(1, 16, 160, 160, 160, dtype=FP32), empty(2, 16, 96, 96, 96, dtype=FP32)
    if not last:
        out, windows = out.contiguous(), windows.contiguous()
    starts = torch.tensor([[0, 0, 32, 48], [0, 64, 32, 16]])
    vectors = [torch.empty(96, device="meta")] * 3
    window_accumulate.launch(out, windows, starts, vectors, 0.1, last=last)


SHAPES = [
    _depthwise_shape(64, (112, 112), 3, residual=True, backward=True),
    _depthwise_shape(24, (56, 56), 3, stride=2, backward=True),
    _depthwise_shape(128, (56, 56), 5, dilation=2),
    _depthwise_shape(96, (56, 56), 7, dtype=FP32),
    _depthwise_shape(64, (64, 64), 31),
    _depthwise_shape(32, (64, 64, 64), 3),
    _conv_shape(64, 64, (128, 128), dilation=4, backward=True),
    _conv_shape(21, 21, (64, 64, 64), dilation=2),
    _conv_shape(1, 32, (64, 64, 64)),
    _conv_shape(32, 32, (64, 64, 64)),
    _conv_shape(256, 256, (56, 56), groups=32),
    _conv_shape(64, 128, (56, 56), stride=2, dtype=FP32, backward=True),
    _separable_shape(728, 728, (19, 19)),
    _separable_shape(32, 64, (112, 112)),
    _separable_shape(64, 64, (56, 56), FP32),
    _inverted_shape(16, 96, 24, 112, stride=2),
    _inverted_shape(24, 144, 24, 56),
    _inverted_shape(24, 144, 40, 56, 5, stride=2),
    _inverted_shape(96, 576, 96, 14),
    _inverted_shape(24, 144, 24, 56, dtype=FP32),
    _norm_shape((2, 32, 96, 96, 96), 32, backward=True),
    _norm_shape((4, 320, 56, 56), 32, FP32),
    _activation_shape(32, 256, 56, 56),
    _activation_shape(32, 24, 56, 56),
    _transposed_shape(128, 24, (24, 24, 24)),
    _transposed_shape(256, 128, (28, 28), FP32),
    Shape("resize_argmax", lambda: resize_argmax.launch(ResizeArgmaxCall(empty(1, 16, 128, 128, 128), (512,) * 3))),
    Shape("argmax", lambda: resize_argmax.launch(ResizeArgmaxCall(empty(1, 21, 512, 512), (512, 512)))),
    Shape("nms", lambda: nms.flags(_boxes(2000))),
    Shape("roi_align", _roi_align, wide=("_bins",)),
    Shape("accumulate-channels-last", lambda: _accumulate(last=True), wide=("_add",)),
    Shape("accumulate-channels-first", lambda: _accumulate(last=False), wide=("_add",)),
]
