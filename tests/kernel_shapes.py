"""Shapes of real networks, by which test_kernels_compile.py has every kernel compiled; on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fastnets.kernels import depthwise, depthwise_weight

from fastnets.ops.conv_arguments import ConvCall, window_of
from fastnets.ops.epilogue import Activation

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


def _depthwise(call: ConvCall) -> None:
    assert depthwise.can_run(call) is None
    y = depthwise.launch(call)
    depthwise.data_gradient(call, y)
    depthwise_weight.weight_gradient(call, y)


def _depthwise_shape(channels: int, size: tuple[int, ...], kernel: int, **options: Any) -> Shape:
    call = conv_call((4, channels, *size), channels, (kernel,) * len(size), groups=channels, **options)
    text = "-".join(f"{key}{value}" for key, value in options.items())
    name = f"depthwise-{channels}-{'x'.join(map(str, size))}-k{kernel}-{text}"
    return Shape(name, lambda: _depthwise(call), wide=("_rows", "_sums"))


SHAPES = [
    _depthwise_shape(64, (112, 112), 3, residual=True),
    _depthwise_shape(24, (56, 56), 3, stride=2),
    _depthwise_shape(128, (56, 56), 5, dilation=2),
    _depthwise_shape(96, (56, 56), 7, dtype=FP32),
    _depthwise_shape(64, (64, 64), 31),
    _depthwise_shape(32, (64, 64, 64), 3),
]
