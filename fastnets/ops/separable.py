"""separable: a depthwise convolution and a 1x1 convolution of its results, in one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import Padding, Window, window_of
from fastnets.ops.depthwise import depthwise as depthwise_conv
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.gradient import through
from fastnets.ops.layout import empty_channels_last
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op
from fastnets.ops.separable_packed import PackedSeparable, SeparableCall, check, check_weights, pack, refusal, run

__all__ = ["OP", "PackedSeparable", "SeparableCall", "separable"]


def separable(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    middle_scale: Tensor | None = None,
    middle_bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    residual: Tensor | None = None,
    middle_activation: str = "none",
    middle_parameters: Sequence[float] = (),
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """A depthwise convolution, then a 1x1 convolution, as in Xception and MobileNet (arXiv:1610.02357, 1704.04861).

    activation(pointwise(middle_activation(depthwise(x) * middle_scale + middle_bias)) + bias + residual),
    channels-last; differentiable.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        depthwise: (M, 1, *kernel), M a multiple of C.
        pointwise: (Cout, M, 1, ...), or (Cout, M). Both are packed at every call: use PackedSeparable to run them
            more than once.
        bias: (Cout,).
        middle_scale, middle_bias: (M,).
        stride, dilation: of the depthwise convolution: one number, or one a spatial axis.
        padding: zeros on both sides of each axis: one number, one an axis, or pairs (before, after).
        residual: added before the activation; the shape of the result.
        middle_activation, middle_parameters, activation, parameters: see fastnets.ops.epilogue.
        implementation: "fused" (CPU, float32 or bfloat16), "parts" (two calls of conv), "triton" (GPU) or "torch";
            None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    call = SeparableCall(
        x=x,
        depthwise=depthwise,
        pointwise=pointwise,
        bias=bias,
        middle_scale=middle_scale,
        middle_bias=middle_bias,
        residual=residual,
        window=window_of(x.dim() - 2, stride, padding, dilation, "separable"),
        middle_activation=activation_of("separable", middle_activation, middle_parameters),
        activation=activation_of("separable", activation, parameters),
    )
    check_weights(call)
    check(call)
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def _run_parts(call: SeparableCall) -> Tensor:
    """Two convolutions; differentiable."""
    weight = call.depthwise
    if call.middle_scale is not None:
        weight = weight * call.middle_scale.view(-1, *(1,) * (weight.dim() - 1)).to(weight.dtype)
    window, middle, after = call.window, call.middle_activation, call.activation
    between = depthwise_conv(
        call.x,
        weight,
        call.middle_bias,
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        activation=middle.name,
        parameters=middle.parameters,
    )
    result = conv(
        between,
        _pointwise(call),
        call.bias,
        residual=call.residual,
        activation=after.name,
        parameters=after.parameters,
    )
    return result if call.out is None else call.out.copy_(result)


def _pointwise(call: SeparableCall) -> Tensor:
    """The weights of the 1x1 convolution with their spatial axes."""
    return call.pointwise.reshape(*call.pointwise.shape[:2], *(1,) * (call.x.dim() - 2))


def _run_torch(call: SeparableCall) -> Tensor:
    window, axes = call.window, call.x.dim() - 2
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    x = functional.pad(call.x, [p for pair in reversed(window.padding) for p in pair])
    y = function(x, call.depthwise, None, window.stride, 0, window.dilation, call.x.shape[1])
    if call.middle_scale is not None:
        y = y * call.middle_scale.view(-1, *(1,) * axes).to(y.dtype)
    if call.middle_bias is not None:
        y = y + call.middle_bias.view(-1, *(1,) * axes).to(y.dtype)
    bias = None if call.bias is None else call.bias.to(y.dtype)
    y = function(call.middle_activation(y), _pointwise(call), bias)
    y = call.activation(y if call.residual is None else y + call.residual)
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if call.out is None else call.out.copy_(y)


OP = Op(
    "separable",
    _run_torch,
    (
        Implementation("fused", refusal, lambda call: run(call, pack(call))),
        Implementation("parts", refusal, _run_parts),
        triton_implementation("separable"),
        Implementation("torch", lambda call: None, _run_torch),
    ),
)


# The operator takes what a schema can hold: lists of numbers; padding as before and after of each axis in turn.

_TENSORS = ("x", "depthwise", "pointwise", "bias", "middle_scale", "middle_bias", "residual")


def _flat(call: SeparableCall) -> tuple[Any, ...]:
    w, middle, after = call.window, call.middle_activation, call.activation
    padding = [p for pair in w.padding for p in pair]
    kinds = (middle.name, list(middle.parameters), after.name, list(after.parameters))
    return (*(getattr(call, name) for name in _TENSORS), w.stride, padding, w.dilation, *kinds)


def _call(*flat: Any) -> SeparableCall:
    tensors, rest = flat[: len(_TENSORS)], flat[len(_TENSORS) :]
    stride, padding, dilation, middle, middle_parameters, activation, parameters = rest
    window = Window(tuple(stride), tuple(zip(padding[::2], padding[1::2], strict=True)), tuple(dilation))
    between, after = Activation(middle, tuple(middle_parameters)), Activation(activation, tuple(parameters))
    named: dict[str, Any] = dict(zip(_TENSORS, tensors, strict=True))
    return SeparableCall(**named, window=window, middle_activation=between, activation=after)


_operator = register(
    OP,
    "Tensor x, Tensor depthwise, Tensor pointwise, Tensor? bias, Tensor? middle_scale, Tensor? middle_bias, "
    "Tensor? residual, int[] stride, int[] padding, int[] dilation, str middle_activation, "
    "float[] middle_parameters, str activation, float[] parameters",
    _call,
    result=lambda call: empty_channels_last(call.x, call.out_shape),
    # Those of the two convolutions, which run again: what lies between them was not kept.
    gradients=through(lambda *flat: _run_parts(_call(*flat[:-1]))),
)
