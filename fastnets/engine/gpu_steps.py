"""What the kernels of a lowered graph are on a GPU: ours where they are known to win, else cuDNN and cuBLAS.

Values are channels-last. Weights go to the device once, laid out as their kernel reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map, tree_map_only

from fastnets.engine.gpu_weights import flat, flat_pixels, kept, outputs_inside, outputs_inside_transposed, vector_on
from fastnets.engine.graph import Node
from fastnets.engine.kernels import Kernel, OpKernel, Terms, Torch, pixels
from fastnets.engine.kernels_conv import Conv, Linear, Separable, Transposed, Whole, rows
from fastnets.ops.activation import ActivationCall
from fastnets.ops.channel_norm import OP as CHANNEL_NORM
from fastnets.ops.conv import ConvCall, gpu_choice
from fastnets.ops.conv_transpose import ConvTransposeCall
from fastnets.ops.epilogue import Activation
from fastnets.ops.gpu import triton_kernels
from fastnets.ops.layout import channels_last
from fastnets.ops.pad import OP as PAD
from fastnets.ops.pool import OP as POOL
from fastnets.ops.resize import OP as RESIZE
from fastnets.ops.separable import OP as SEPARABLE
from fastnets.ops.separable import SeparableCall

WIDEST_PAIR = 256
"""Outputs of a fused depthwise and 1x1 convolution: each 128 of them compute the depthwise results anew."""
Run = Callable[[list[Any], Any], Any]

_CONVS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
# Operations of torch that lose nothing in 16 bits: they move or compare values, or sum in float32.
_SAFE = ("max_pool", "avg_pool", "adaptive_", "mean", "upsample_", "pad", "constant_pad", "reflection_pad",
         "replication_pad", "softmax", "_softmax", "mul", "add", "matmul", "bmm", "scaled_dot_product")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """How one node runs.

    Args:
        kernel: what runs it.
        why: why that.
        run: takes the values of the inputs and where to write; gives the result.
        writes: run must be told where to write. Else it may be, or gives memory of its own.
    """

    kernel: str
    why: str
    run: Run
    writes: bool = True


def refusal(kernel: Kernel) -> str | None:
    """Why torch runs what has a kernel on the CPU."""
    if isinstance(kernel, OpKernel) and kernel.op in (POOL, RESIZE, PAD, CHANNEL_NORM):
        return "torch's kernels for the GPU take it"
    return None


@singledispatch
def step_of(kernel: Any, node: Node, device: torch.device) -> Step:
    """The step of `node`, whose kernel is `kernel`, with its weights on `device`."""
    raise TypeError(f"{type(kernel).__name__} is no kernel of a step")


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
    kernels = triton_kernels("separable")
    why = kernels.can_run(call)
    launch = kernels.launch if why is None else _torch_of(SEPARABLE)

    def run(inputs: list[Tensor], out: Tensor) -> Tensor:
        residual = inputs[1] if terms.residual else None
        result: Tensor = launch(replace(call, x=inputs[0], residual=residual, out=out))
        return result

    return Step("triton separable" if why is None else "torch separable", why or "depthwise, then 1x1", run)


@step_of.register
def _op(kernel: OpKernel, node: Node, device: torch.device) -> Step:
    """A norm, an activation, or what combines two values."""
    terms, axis, op = kernel.terms, kernel.channel_axis, kernel.op
    assert axis is not None  # layout.py chose one
    given = {f.name: getattr(kernel.call, f.name) for f in fields(kernel.call)}
    own = {n: t.to(device, node.dtype) for n, t in given.items() if isinstance(t, Tensor) and t.numel()}
    values = {
        "scale": vector_on(terms.scale, device),
        "shift": vector_on(terms.shift, device),
        "activation": terms.activation,
    }
    call = replace(kernel.call, **own, **{kernel.takes[n]: v for n, v in values.items() if n in kernel.takes})
    ours = any(candidate.name == "triton" for candidate in op.implementations)
    launch = triton_kernels(op.name).launch if ours else op.reference

    def run(inputs: list[Tensor], out: Tensor | None) -> Tensor:
        images = [pixels(value, axis) for value in inputs]
        tensors = dict(zip(kernel.fields, images, strict=False))
        if terms.residual:
            tensors[kernel.takes["residual"]] = images[-1]
        if ours and out is not None:
            launch(replace(call, **tensors, out=pixels(out, axis)))
            return out
        y: Tensor = launch(replace(call, **tensors))
        y = y.squeeze(-1) if len(node.shape) == 2 else y.movedim(1, axis)
        return y if out is None else out.copy_(y)

    return Step(f"{'triton' if ours else 'torch'} {op.name}", "", run, writes=ours)


@step_of.register
def _torch(kernel: Torch, node: Node, device: torch.device) -> Step:
    if node.op == "clone":
        return Step("torch copy", kernel.reason, lambda inputs, out: out.copy_(inputs[0]))
    if node.op == "getitem":
        return Step("torch getitem", kernel.reason, lambda inputs, out: inputs[0][node.args["index"]], writes=False)
    constants: list[Tensor] = []
    tree_map_only(Tensor, constants.append, node.args)
    safe = node.op.startswith(_SAFE) and not any(t.is_floating_point() for t in constants)
    wide = kernel.dtype != torch.float32 and not safe

    def here(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value.to(device) if isinstance(value, Tensor) else value

    moved = replace(node, args=tree_map(here, node.args))

    def run(inputs: list[Any], out: Tensor | None) -> Any:
        values = iter([_widened(value) for value in inputs] if wide else inputs)
        result = moved.call(lambda _: next(values))
        return result if out is None else out.copy_(result)

    return Step(f"torch {node.op}", kernel.reason, run, writes=False)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value


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


def _torch_of(op: Any) -> Callable[[Any], Any]:
    return next(candidate.run for candidate in op.implementations if candidate.name == "torch")  # type: ignore[no-any-return]


def _meta(node: Node) -> Tensor:
    return torch.empty(node.shape, dtype=node.dtype, device="meta")
