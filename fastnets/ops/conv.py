"""conv: convolution in 1, 2 and 3 dimensions with its epilogue. PackedConv is the form for repeated calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.ops.conv_arguments import ConvCall, Padding, Window, check, window_of
from fastnets.ops.conv_choice import choose
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.conv_packed import PackedConv, pack, refusal, run
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.gpu import triton_gradients, triton_implementation
from fastnets.ops.layout import empty_channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op

__all__ = ["OP", "ConvCall", "ConvConfig", "PackedConv", "conv", "gpu_choice"]


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(conv(x, weight) + bias + residual), channels-last; differentiable.

    Args:
        x: (N, Cin, *spatial), 1 to 3 spatial axes, floating point.
        weight: (Cout, Cin / groups, *kernel). It is packed at every call: use PackedConv to run it more than once.
        bias: (Cout,), of the same dtype or float32.
        stride, dilation: one number, or one a spatial axis.
        padding: zeros on both sides of each axis: one number, one an axis, or pairs (before, after).
        residual: added before the activation; the shape of the result.
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "winograd", "planar", "narrow", "depthwise", "grouped", "product" (CPU, float32 or
            bfloat16), "direct" (CPU with tiles, bfloat16), "strassen" (CPU, float32), "triton_depthwise",
            "triton_product" (GPU) or "torch"; None takes the fastest.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    window = window_of(x.dim() - 2, stride, padding, dilation)
    kind = activation_of("conv", activation, parameters)
    call = ConvCall(x, weight, bias, residual, window, groups, kind)
    check(call)
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def _run_with(algorithm: str, call: ConvCall) -> Tensor:
    config = call.config or choose(call.shape, threads(), algorithm)
    return run(call, (pack(call, config), config))


def _prefer(call: ConvCall) -> str:
    if call.x.device.type != "cpu":
        return _prefer_on_gpu(call)
    return (call.config or choose(call.shape, threads())).algorithm


def _prefer_on_gpu(call: ConvCall) -> str:
    return gpu_choice(call)[0]


def gpu_choice(call: ConvCall) -> tuple[str, str]:
    """What runs `call` on a GPU, and why: ours where cuDNN is known to be weak."""
    channels, dilation = call.x.shape[1], max(call.window.dilation)
    if call.groups == channels == call.weight.shape[0]:
        return "triton_depthwise", "depthwise"
    if call.groups > 1:
        return "triton_product", f"{call.groups} groups"
    if dilation > 1:
        return "triton_product", f"dilation {dilation}"
    if call.x.dim() == 5 and channels <= 64:
        return "triton_product", f"3D, C={channels}"
    return "torch", f"dense, C={channels}"


def _run_torch(call: ConvCall) -> Tensor:
    window = call.window
    padding: Any = [before for before, _ in window.padding]
    x = call.x
    if any(before != after for before, after in window.padding):
        x = functional.pad(x, [p for pair in reversed(window.padding) for p in pair])
        padding = [0] * len(window.padding)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[x.dim() - 3]
    bias = None if call.bias is None else call.bias.to(x.dtype)
    y = function(x, call.weight, bias, window.stride, padding, window.dilation, call.groups)
    y = call.activation(y if call.residual is None else y + call.residual)
    if call.out is not None:
        return call.out.copy_(y)
    return y.movedim(1, -1).contiguous().movedim(-1, 1)


OP = Op(
    "conv",
    _run_torch,
    (
        Implementation("winograd", lambda call: refusal(call, "winograd"), lambda c: _run_with("winograd", c)),
        Implementation("planar", lambda call: refusal(call, "planar"), lambda c: _run_with("planar", c)),
        Implementation("narrow", lambda call: refusal(call, "narrow"), lambda c: _run_with("narrow", c)),
        Implementation("depthwise", lambda call: refusal(call, "depthwise"), lambda c: _run_with("depthwise", c)),
        Implementation("grouped", lambda call: refusal(call, "grouped"), lambda c: _run_with("grouped", c)),
        Implementation("strassen", lambda call: refusal(call, "strassen"), lambda c: _run_with("strassen", c)),
        Implementation("direct", lambda call: refusal(call, "direct"), lambda c: _run_with("direct", c)),
        Implementation("product", lambda call: refusal(call, "product"), lambda c: _run_with("product", c)),
        triton_implementation("depthwise", "triton_depthwise"),
        triton_implementation("conv", "triton_product"),
        Implementation("torch", lambda call: None, _run_torch),
    ),
    _prefer,
)


# The operator takes what a schema can hold: lists of numbers; padding as before and after of each axis in turn.


def _flat(call: ConvCall) -> tuple[Any, ...]:
    w, kind = call.window, call.activation
    padding = [p for pair in w.padding for p in pair]
    tensors = (call.x, call.weight, call.bias, call.residual)
    return (*tensors, w.stride, padding, w.dilation, call.groups, kind.name, list(kind.parameters))


def _call(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    parameters: Sequence[float],
) -> ConvCall:
    window = Window(tuple(stride), tuple(zip(padding[::2], padding[1::2], strict=True)), tuple(dilation))
    return ConvCall(x, weight, bias, residual, window, groups, Activation(activation, tuple(parameters)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, residual, *rest = inputs
    ctx.save_for_backward(x, weight, bias, residual)
    ctx.rest = rest


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    call = _call(*ctx.saved_tensors, *ctx.rest[:-1])
    grad = _before_activation(call, grad)
    need_x, need_weight, need_bias, need_residual, *_ = ctx.needs_input_grad
    grad_x, grad_weight = _gradients(call, grad, (need_x, need_weight), ctx.rest[-1])
    return (
        grad_x,
        grad_weight,
        grad.sum(dim=(0, *range(2, grad.dim()))) if need_bias and call.bias is not None else None,
        grad if need_residual and call.residual is not None else None,
        *(None,) * len(ctx.rest),
    )


def _gradients(
    call: ConvCall, grad: Tensor, needed: tuple[bool, bool], implementation: str | None
) -> tuple[Tensor | None, Tensor | None]:
    """Of x and weight, those that are needed: by our kernels where there are some.

    Those by Triton are no torch operators: where gradients are recorded or traced, torch's are taken.
    """
    plain = type(grad) is Tensor and not torch.is_grad_enabled()
    kernels = triton_gradients(OP.choose(call, implementation).name) if plain else None
    if kernels is not None:
        of_x, of_weight = kernels
        return of_x(call, grad) if needed[0] else None, of_weight(call, grad) if needed[1] else None
    native = needed[0] and _data_gradient_refusal(call, grad) is None
    grad_x, grad_weight = _torch_gradients(call, grad, (needed[0] and not native, needed[1]))
    return _data_gradient(call, grad) if native else grad_x, grad_weight


def _before_activation(call: ConvCall, grad: Tensor) -> Tensor:
    """The gradient with respect to what goes into the activation, which is computed again."""
    if call.activation.name == "none":
        return grad
    twice = torch.is_grad_enabled()  # gradients of gradients are recorded
    before: Tensor = _operator(*_flat(replace(call, activation=Activation())), None)
    with torch.enable_grad():
        before = before if before.requires_grad else before.requires_grad_()
        return torch.autograd.grad(call.activation(before), before, grad, create_graph=twice)[0]


def _data_gradient_refusal(call: ConvCall, grad: Tensor) -> str | None:
    window, kernel = call.window, call.weight.shape[2:]
    if any(s != 1 for s in window.stride):
        return f"stride is {window.stride}; it needs 1"
    if any(max(p) > d * (k - 1) for p, d, k in zip(window.padding, window.dilation, kernel, strict=True)):
        return "padding reaches further than the kernel"
    return refusal(replace(call, x=grad), "product") if call.x.numel() else "x is empty"


def _data_gradient(call: ConvCall, grad: Tensor) -> Tensor:
    """The convolution of the gradient with the mirrored kernel, inputs and outputs exchanged within each group."""
    weight, groups = call.weight, call.groups
    outputs, inputs, *kernel = weight.shape
    exchanged = weight.reshape(groups, outputs // groups, inputs, *kernel).transpose(1, 2)
    mirrored = exchanged.reshape(groups * inputs, outputs // groups, *kernel).flip(list(range(2, weight.dim())))
    window = call.window
    rows = zip(window.padding, window.dilation, kernel, strict=True)
    padding = tuple((d * (k - 1) - before, d * (k - 1) - after) for (before, after), d, k in rows)
    mirror = ConvCall(grad, mirrored, None, None, replace(window, padding=padding), groups)
    result: Tensor = _operator(*_flat(mirror), None)
    return result


def _torch_gradients(call: ConvCall, grad: Tensor, needed: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and weight, those that are needed, from torch."""
    if not any(needed):
        return None, None
    window, axes = call.window, call.x.dim() - 2
    x = functional.pad(call.x, [p for pair in reversed(window.padding) for p in pair])
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward.default(
        grad,
        x,
        call.weight,
        None,
        list(window.stride),
        [0] * axes,
        list(window.dilation),
        False,
        [0] * axes,
        call.groups,
        [*needed, False],
    )
    if grad_x is not None:
        rows = zip(window.padding, call.x.shape[2:], strict=True)
        grad_x = grad_x[(slice(None), slice(None), *(slice(before, before + n) for (before, _), n in rows))]
    return grad_x, grad_weight


_operator = register(
    OP,
    "Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, int[] padding, int[] dilation, "
    "int groups, str activation, float[] parameters",
    _call,
    result=lambda call: empty_channels_last(call.x, call.out_shape),
    gradients=(_setup_context, _backward),
)
