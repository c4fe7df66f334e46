"""How convolutions and linear layers run on a GPU: our kernels where they are known to win, else cuDNN and cuBLAS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.engine.gpu_steps import Step, step_of
from fastnets.engine.gpu_weights import flat, flat_pixels, kept, outputs_inside, outputs_inside_transposed, vector_on
from fastnets.engine.graph import Node
from fastnets.engine.kernels import Terms
from fastnets.engine.kernels_conv import Conv, InvertedBottleneck, Linear, Separable, Transposed, Whole, rows
from fastnets.ops.activation import ActivationCall
from fastnets.ops.conv import ConvCall, gpu_choice
from fastnets.ops.conv_transpose import ConvTransposeCall
from fastnets.ops.epilogue import Activation
from fastnets.ops.gpu import triton_kernels
from fastnets.ops.inverted_bottleneck import OP as INVERTED_BOTTLENECK
from fastnets.ops.inverted_bottleneck_packed import InvertedBottleneckCall
from fastnets.ops.layout import channels_last
from fastnets.ops.registry import Op
from fastnets.ops.separable import OP as SEPARABLE
from fastnets.ops.separable import SeparableCall

WIDEST_PAIR = 256
"""Outputs of a fused depthwise and 1x1 convolution: each 128 of them compute the depthwise results anew."""

_CONVS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


@step_of.register
def _conv(kernel: Conv, node: Node, device: torch.device) -> Step:
    terms, window, groups = kernel.terms, kernel.window, kernel.groups
    channels = node.inputs[0].shape[1]
    if kernel.is_pointwise:
        return _product(f"1x1, C={channels}", kernel, node, device, flat, _pixel_rows)
    name, why = gpu_choice(ConvCall(_meta(node.inputs[0]), kernel.weight, None, None, window, groups))
    if name == "torch":
        return _by_cudnn(why, kernel, node, device)
    weight, shift = kept(kernel, terms.scale, node, device, outputs_inside), vector_on(terms.shift, device)
    launch = triton_kernels({"triton_depthwise": "depthwise", "triton_product": "conv"}[name]).launch

    def run(inputs: list[Tensor], out: Tensor) -> Tensor:
        residual = inputs[1] if terms.residual else None
        result: Tensor = launch(ConvCall(inputs[0], weight, shift, residual, window, groups, terms.activation, out))
        return result

    return Step(name.replace("_", " "), why, run)


@step_of.register
def _linear(kernel: Linear, node: Node, device: torch.device) -> Step:
    return _product("linear", kernel, node, device, flat, lambda x: x.reshape(-1, x.shape[-1]))


@step_of.register
def _whole(kernel: Whole, node: Node, device: torch.device) -> Step:
    """Pixels in their order in memory, of x as of the weight."""
    return _product("linear", kernel, node, device, flat_pixels, lambda x: x.movedim(1, -1).flatten(1))


@step_of.register
def _transposed(kernel: Transposed, node: Node, device: torch.device) -> Step:
    x, terms, geometry = node.inputs[0], kernel.terms, kernel.geometry
    weight = kernel.scaled().to(device, x.dtype)
    call = ConvTransposeCall(_meta(x), weight, None, None, **geometry, activation=terms.activation)
    kernels = triton_kernels("conv_transpose")
    why = kernels.can_run(call)
    if why is not None:
        function: Any = _TRANSPOSED[len(x.shape) - 3]
        beside, finish = channels_last(weight), _Finish(terms, device)
        return Step(
            "cuDNN transposed",
            why,
            lambda inputs, out: finish(channels_last(function(inputs[0], beside, **geometry)), inputs[1:], out),
            writes=False,
        )
    call = replace(call, weight=outputs_inside_transposed(weight), bias=vector_on(terms.shift, device))

    def run(inputs: list[Tensor], out: Tensor) -> Tensor:
        residual = inputs[1] if terms.residual else None
        result: Tensor = kernels.launch(replace(call, x=inputs[0], residual=residual, out=out))
        return result

    return Step("triton transposed", "windows lie apart", run)


@step_of.register
def _separable(kernel: Separable, node: Node, device: torch.device) -> Step:
    first, terms = kernel.depthwise.terms, kernel.terms
    call = SeparableCall(
        x=_meta(node.inputs[0]),
        depthwise=kept(kernel.depthwise, None, node, device, outputs_inside),
        pointwise=kept(kernel.pointwise, terms.scale, node, device, outputs_inside),
        bias=vector_on(terms.shift, device),
        middle_scale=vector_on(first.scale, device),
        middle_bias=vector_on(first.shift, device),
        residual=None,
        window=kernel.depthwise.window,
        middle_activation=first.activation,
        activation=terms.activation,
    )
    return _several(SEPARABLE, call, terms, "depthwise, then 1x1")


@step_of.register
def _inverted_bottleneck(kernel: InvertedBottleneck, node: Node, device: torch.device) -> Step:
    first, middle, terms = kernel.expand.terms, kernel.depthwise.terms, kernel.terms
    call = InvertedBottleneckCall(
        x=_meta(node.inputs[0]),
        expand=kept(kernel.expand, first.scale, node, device, outputs_inside),
        depthwise=kept(kernel.depthwise, middle.scale, node, device, outputs_inside),
        project=kept(kernel.project, terms.scale, node, device, outputs_inside),
        bias=vector_on(terms.shift, device),
        expand_bias=vector_on(first.shift, device),
        middle_bias=vector_on(middle.shift, device),
        residual=None,
        window=kernel.depthwise.window,
        expand_activation=first.activation,
        middle_activation=middle.activation,
        activation=terms.activation,
    )
    return _several(INVERTED_BOTTLENECK, call, terms, "1x1, depthwise, then 1x1")


def _several(op: Op[Any], call: Any, terms: Terms, what: str) -> Step:
    """Convolutions in one kernel, or in torch where none of ours takes `call`."""
    why: str | None = "there is no kernel"
    if any(candidate.name == "triton" for candidate in op.implementations):
        why = triton_kernels(op.name).can_run(call)
    by_torch = next(candidate.run for candidate in op.implementations if candidate.name == "torch")
    launch = triton_kernels(op.name).launch if why is None else by_torch

    def run(inputs: list[Tensor], out: Tensor) -> Tensor:
        residual = inputs[1] if terms.residual else None
        result: Tensor = launch(replace(call, x=inputs[0], residual=residual, out=out))
        return result

    return Step(f"{'triton' if why is None else 'torch'} {op.name}", why or what, run)


def _by_cudnn(why: str, kernel: Conv, node: Node, device: torch.device) -> Step:
    window, function = kernel.window, _CONVS[len(node.shape) - 3]
    weight, finish = kept(kernel, kernel.terms.scale, node, device, channels_last), _Finish(kernel.terms, device)
    even = all(before == after for before, after in window.padding)
    padding: Any = [before for before, _ in window.padding] if even else 0
    widths = [width for pair in reversed(window.padding) for width in pair]

    def run(inputs: list[Tensor], out: Tensor | None) -> Tensor:
        x = inputs[0] if even else functional.pad(inputs[0], widths)
        y: Tensor = function(x, weight, None, window.stride, padding, window.dilation, kernel.groups)
        return finish(channels_last(y), inputs[1:], out)

    return Step("cuDNN", why, run, writes=False)


def _product(
    what: str,
    kernel: Conv,
    node: Node,
    device: torch.device,
    lay: Callable[[Tensor], Tensor],
    rows_of: Callable[[Tensor], Tensor],
) -> Step:
    """Rows of x by the weight as columns. cuBLAS itself adds the bias and applies ReLU, if that is all."""
    terms, shape, image = kernel.terms, node.shape, rows_of is _pixel_rows
    columns = kept(kernel, terms.scale, node, device, lay).t()
    relu = terms.activation.name == "relu"
    fused = terms.shift is not None and not terms.residual and (relu or terms.activation.name == "none")
    bias = terms.shift.to(device, columns.dtype) if fused and terms.shift is not None else None
    finish = _Finish(replace(terms, shift=None, activation=Activation()) if fused else terms, device, last=not image)

    def run(inputs: list[Tensor], out: Tensor | None) -> Tensor:
        x = rows_of(inputs[0])
        if bias is None:
            y = x @ columns
        else:
            y = torch._addmm_activation(bias, x, columns) if relu else torch.addmm(bias, x, columns)
        y = y.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if image else y.view(shape)
        return finish(y, inputs[1:], out)

    return Step("cuBLAS", what, run, writes=False)


def _pixel_rows(x: Tensor) -> Tensor:
    """(N, C, *spatial) as (pixels, C)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


class _Finish:
    """What a library leaves of the terms, in one pass: in place, or to where the result belongs.

    last: the channels are the last axis.
    """

    def __init__(self, terms: Terms, device: torch.device, *, last: bool = False) -> None:
        self.terms, self.shift, self.last = terms, vector_on(terms.shift, device), last
        self.nothing = terms.shift is None and not terms.residual and terms.activation.name == "none"
        self.launch = triton_kernels("activation").launch

    def __call__(self, y: Tensor, residual: list[Tensor], out: Tensor | None) -> Tensor:
        target = y if out is None else out
        if self.nothing:
            return y if out is None else out.copy_(y)
        x, to, *more = (rows(t) if self.last else t for t in (y, target, *residual))
        self.launch(ActivationCall(x, self.terms.activation, None, self.shift, more[0] if more else None, to))
        return target


def _meta(node: Node) -> Tensor:
    return torch.empty(node.shape, dtype=node.dtype, device="meta")
