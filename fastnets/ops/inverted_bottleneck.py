"""inverted_bottleneck: 1x1, depthwise and 1x1 convolutions of images, in one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import Padding, Window, window_of
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.gradient import through
from fastnets.ops.inverted_bottleneck_packed import (
    InvertedBottleneckCall,
    PackedInvertedBottleneck,
    check,
    check_weights,
    pack,
    refusal,
    run,
)
from fastnets.ops.layout import empty_channels_last
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op
from fastnets.ops.separable import separable

__all__ = ["OP", "InvertedBottleneckCall", "PackedInvertedBottleneck", "inverted_bottleneck"]


def inverted_bottleneck(
    x: Tensor,
    expand: Tensor,
    depthwise: Tensor,
    project: Tensor,
    bias: Tensor | None = None,
    *,
    expand_bias: Tensor | None = None,
    middle_bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    residual: Tensor | None = None,
    expand_activation: str = "none",
    expand_parameters: Sequence[float] = (),
    middle_activation: str = "none",
    middle_parameters: Sequence[float] = (),
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """The block of MobileNetV2 (arXiv:1801.04381), MnasNet and EfficientNet: a 1x1 convolution to many channels, a
    depthwise one of these, and a 1x1 one to few.

    With y = expand_activation(expand(x) + expand_bias) and z = middle_activation(depthwise(y) + middle_bias), the
    result is activation(project(z) + bias + residual), channels-last; differentiable.

    Args:
        x: (N, Cin, height, width), floating point.
        expand: (M, Cin, 1, 1), or (M, Cin).
        depthwise: (M, 1, *kernel).
        project: (Cout, M, 1, 1), or (Cout, M). All three are packed at every call: use PackedInvertedBottleneck to
            run them more than once.
        bias: (Cout,).
        expand_bias, middle_bias: (M,).
        stride: of the depthwise convolution: one number, or two.
        padding: zeros around y: one number, one an axis, or pairs (before, after).
        residual: added before the activation; the shape of the result.
        expand_activation, middle_activation, activation, and their parameters: see fastnets.ops.epilogue.
        implementation: "fused" (CPU, float32 or bfloat16), "triton" (GPU), "parts" (conv, then separable) or "torch";
            None takes the first that can run, on a GPU "parts" where its L2 cache holds what lies between them.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    call = InvertedBottleneckCall(
        x=x,
        expand=expand,
        depthwise=depthwise,
        project=project,
        bias=bias,
        expand_bias=expand_bias,
        middle_bias=middle_bias,
        residual=residual,
        window=window_of(2, stride, padding, 1, "inverted_bottleneck"),
        expand_activation=activation_of("inverted_bottleneck", expand_activation, expand_parameters),
        middle_activation=activation_of("inverted_bottleneck", middle_activation, middle_parameters),
        activation=activation_of("inverted_bottleneck", activation, parameters),
    )
    check_weights(call)
    check(call)
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def _run_parts(call: InvertedBottleneckCall) -> Tensor:
    """A convolution and a separable pair; differentiable."""
    first, middle, after = call.expand_activation, call.middle_activation, call.activation
    wide = conv(call.x, _on_pixels(call.expand), call.expand_bias, activation=first.name, parameters=first.parameters)
    result = separable(
        wide,
        call.depthwise,
        call.project,
        call.bias,
        middle_bias=call.middle_bias,
        stride=call.window.stride,
        padding=call.window.padding,
        residual=call.residual,
        middle_activation=middle.name,
        middle_parameters=middle.parameters,
        activation=after.name,
        parameters=after.parameters,
    )
    return result if call.out is None else call.out.copy_(result)


def _on_pixels(weight: Tensor) -> Tensor:
    """The weights of a 1x1 convolution with their spatial axes."""
    return weight.reshape(*weight.shape[:2], 1, 1)


def _run_torch(call: InvertedBottleneckCall) -> Tensor:
    dtype = call.x.dtype
    biases = (call.expand_bias, call.middle_bias, call.bias)
    first, middle, last = (None if bias is None else bias.to(dtype) for bias in biases)
    y = call.expand_activation(functional.conv2d(call.x, _on_pixels(call.expand), first))
    y = functional.pad(y, [p for pair in reversed(call.window.padding) for p in pair])
    y = functional.conv2d(y, call.depthwise, middle, call.window.stride, groups=len(call.depthwise))
    y = functional.conv2d(call.middle_activation(y), _on_pixels(call.project), last)
    y = call.activation(y if call.residual is None else y + call.residual)
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if call.out is None else call.out.copy_(y)


def _prefer(call: InvertedBottleneckCall) -> str:
    """On a GPU the parts where its L2 cache keeps what lies between them. By reasoning, not measured yet."""
    x = call.x
    if not x.is_cuda:
        return "fused"
    expanded = len(x) * prod(x.shape[2:]) * len(call.expand) * x.element_size()
    return "parts" if 2 * expanded <= torch.cuda.get_device_properties(x.device).L2_cache_size else "triton"


OP = Op(
    "inverted_bottleneck",
    _run_torch,
    (
        Implementation("fused", refusal, lambda call: run(call, pack(call))),
        triton_implementation("inverted_bottleneck"),
        Implementation("parts", lambda call: None if call.x.is_cuda else refusal(call), _run_parts),
        Implementation("torch", lambda call: None, _run_torch),
    ),
    _prefer,
)


# The operator takes what a schema can hold: lists of numbers; padding as before and after of each axis in turn.

_TENSORS = ("x", "expand", "depthwise", "project", "bias", "expand_bias", "middle_bias", "residual")
_ACTIVATIONS = ("expand_activation", "middle_activation", "activation")


def _flat(call: InvertedBottleneckCall) -> tuple[Any, ...]:
    padding = [p for pair in call.window.padding for p in pair]
    kinds: list[Activation] = [getattr(call, name) for name in _ACTIVATIONS]
    numbers = [value for kind in kinds for value in (kind.name, list(kind.parameters))]
    return (*(getattr(call, name) for name in _TENSORS), call.window.stride, padding, *numbers)


def _call(*flat: Any) -> InvertedBottleneckCall:
    tensors, (stride, padding, *kinds) = flat[: len(_TENSORS)], flat[len(_TENSORS) :]
    named: dict[str, Any] = dict(zip(_TENSORS, tensors, strict=True))
    activations = [Activation(kind, tuple(numbers)) for kind, numbers in zip(kinds[::2], kinds[1::2], strict=True)]
    named |= zip(_ACTIVATIONS, activations, strict=True)
    window = Window(tuple(stride), tuple(zip(padding[::2], padding[1::2], strict=True)), (1, 1))
    return InvertedBottleneckCall(**named, window=window)


_operator = register(
    OP,
    "Tensor x, Tensor expand, Tensor depthwise, Tensor project, Tensor? bias, Tensor? expand_bias, "
    "Tensor? middle_bias, Tensor? residual, int[] stride, int[] padding, str expand_activation, "
    "float[] expand_parameters, str middle_activation, float[] middle_parameters, str activation, "
    "float[] parameters",
    _call,
    result=lambda call: empty_channels_last(call.x, call.out_shape),
    # Those of the three convolutions, which run again: what lies between them was not kept.
    gradients=through(lambda *flat: _run_parts(_call(*flat[:-1]))),
)
