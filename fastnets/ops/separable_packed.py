"""The arguments of separable, and PackedSeparable: its weights, packed once and run on any number of inputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.machine import cache_bytes
from fastnets.ops.arguments import kernel_refusal, out_refusal, result_like
from fastnets.ops.conv_arguments import Padding, Window, check_result, check_vectors, three, window_of
from fastnets.ops.conv_config import ConvShape, streams
from fastnets.ops.conv_cost import product_cost, strassen_block, strassen_cost
from fastnets.ops.conv_refusals import strassen_refusal
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.layout import KERNEL_DTYPES, array5, array_of, channels_last, floats_of, threads

# A block's panel of depthwise results: a quarter of a core's L2, beside which the weights stream through.
_PANEL_BYTES = cache_bytes(2) // 4
_LEAST_PIXELS, _MOST_PIXELS = 32, 112


@dataclass(frozen=True)
class SeparableCall:
    """activation(pointwise(middle_activation(depthwise(x) * middle_scale + middle_bias)) + bias + residual)."""

    x: Tensor
    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor | None
    middle_scale: Tensor | None
    middle_bias: Tensor | None
    residual: Tensor | None
    window: Window
    middle_activation: Activation = field(default_factory=Activation)
    activation: Activation = field(default_factory=Activation)
    out: Tensor | None = None
    block: int | None = None
    strassen: bool | None = None

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(N, Cout, *spatial)."""
        spatial = self.window.out_size(self.x.shape[2:], self.depthwise.shape[2:])
        return (self.x.shape[0], self.pointwise.shape[0], *spatial)


class PackedSeparable:
    """A depthwise and a 1x1 convolution in one kernel, with packed weights.

    Changes to the tensors after the construction are not seen.

    Args:
        depthwise: (M, 1, *kernel) float32 or bfloat16 on the CPU, 1 to 3 spatial axes; M is a multiple of the
            input channels.
        pointwise: (Cout, M, 1, ...), or (Cout, M).
        bias: (Cout,), added to the result.
        middle_scale, middle_bias: (M,), applied to the depthwise results: a folded batch norm.
        stride, dilation: of the depthwise convolution: one number, or one a spatial axis.
        padding: zeros on both sides of each axis: one number, one an axis, or pairs (before, after).
        middle_activation, middle_parameters: of the depthwise results; see fastnets.ops.epilogue.
        activation, parameters: of the result.
        block: pixels that the two convolutions work on at a time; None fits them into the cache.
        strassen: whether the 1x1 convolution runs by Strassen's algorithm, in float32; None takes the cheaper way.

    Raises:
        InputError: the arguments do not fit together.
    """

    def __init__(
        self,
        depthwise: Tensor,
        pointwise: Tensor,
        bias: Tensor | None = None,
        *,
        middle_scale: Tensor | None = None,
        middle_bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        middle_activation: str = "none",
        middle_parameters: Sequence[float] = (),
        activation: str = "none",
        parameters: Sequence[float] = (),
        block: int | None = None,
        strassen: bool | None = None,
    ) -> None:
        if depthwise.dtype not in KERNEL_DTYPES or depthwise.device.type != "cpu":
            raise InputError(
                f"separable: depthwise is {depthwise.dtype} on {depthwise.device}: pass float32 or bfloat16 on cpu"
            )
        self._call = SeparableCall(
            x=depthwise.new_empty(0),
            depthwise=depthwise.detach(),
            pointwise=pointwise.detach(),
            bias=bias,
            middle_scale=middle_scale,
            middle_bias=middle_bias,
            residual=None,
            window=window_of(depthwise.dim() - 2, stride, padding, dilation, "separable"),
            middle_activation=activation_of("separable", middle_activation, middle_parameters),
            activation=activation_of("separable", activation, parameters),
            block=block,
            strassen=strassen,
        )
        check_weights(self._call)
        self._packed = pack(self._call)

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return self._packed.bytes

    def __call__(self, x: Tensor, *, residual: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """The result for `x`, channels-last.

        Args:
            x: (N, C, *spatial) of the weights' dtype; a copy is made unless the channels of each pixel lie together.
            residual: added before the activation; the shape of the result.
            out: where to write: the shape of the result, the channels of each pixel together. It may be a slice
                of the channels of a wider tensor, or a crop of a larger one.

        Raises:
            InputError: a shape, dtype or layout does not fit.
        """
        call = SeparableCall(**{**vars(self._call), "x": x, "residual": residual, "out": out})
        check(call)
        reason = refusal(call)
        if reason is not None:
            raise InputError(f"separable: {reason}")
        return run(call, self._packed)


def check_weights(call: SeparableCall) -> None:
    """Raise InputError where the weights and what goes with them do not fit together."""
    depthwise, pointwise = call.depthwise, call.pointwise
    if depthwise.dim() not in (3, 4, 5) or depthwise.shape[1] != 1:
        raise InputError(f"separable: depthwise has shape {tuple(depthwise.shape)}: pass (M, 1, *kernel)")
    middle = len(depthwise)
    if pointwise.dim() < 2 or pointwise.shape[1] != middle or pointwise.numel() != len(pointwise) * middle:
        raise InputError(
            f"separable: pointwise has shape {tuple(pointwise.shape)} and depthwise {tuple(depthwise.shape)}: pass "
            f"(Cout, {middle}, 1, ...)"
        )
    check_vectors("separable", call, {"bias": len(pointwise), "middle_scale": middle, "middle_bias": middle})
    if call.block is not None and call.block < 1:
        raise InputError(f"separable: block is {call.block}: pass 1 or more, or None")


def check(call: SeparableCall) -> None:
    """Raise InputError where the input does not fit the weights."""
    x, depthwise = call.x, call.depthwise
    if x.dim() != depthwise.dim() or len(depthwise) % max(1, x.shape[1]):
        raise InputError(
            f"separable: x has shape {tuple(x.shape)} and depthwise {tuple(depthwise.shape)}: pass (N, C, *spatial) "
            f"with C a divisor of {len(depthwise)}"
        )
    if not x.is_floating_point() or depthwise.dtype != x.dtype or call.pointwise.dtype != x.dtype:
        raise InputError(
            f"separable: x is {x.dtype}, depthwise {depthwise.dtype} and pointwise {call.pointwise.dtype}: pass one "
            "floating-point dtype"
        )
    check_result("separable", call, depthwise)


def refusal(call: SeparableCall) -> str | None:
    """Why the kernel cannot run `call`, or None."""
    if call.strassen and call.x.dtype != torch.float32:
        return f"x is {call.x.dtype}; Strassen's algorithm needs torch.float32"
    return kernel_refusal(call.x) or out_refusal(call.out)


def pack(call: SeparableCall) -> _C.PackedSeparable:
    """The weights of `call`."""
    pointwise = call.pointwise.detach().contiguous().flatten(1)
    return _C.PackedSeparable(array5(call.depthwise.detach().contiguous()), array_of(pointwise), threads())


@functools.lru_cache(maxsize=256)
def _strassen_pays(shape: ConvShape) -> bool:
    return strassen_refusal(shape) is None and strassen_cost(shape) < product_cost(shape)


def _choose(call: SeparableCall) -> tuple[int, bool]:
    """Pixels of a block, and whether the 1x1 convolution runs by Strassen's algorithm."""
    batch, cout, *size = call.out_shape
    middle, itemsize, one = len(call.depthwise), call.x.element_size(), (1, 1, 1)
    shape = ConvShape(batch, middle, cout, 1, (1, 1, math.prod(size)), one, one, one, itemsize)
    strassen = _strassen_pays(shape) if call.strassen is None else call.strassen
    fitting = _PANEL_BYTES // (itemsize * middle)
    return strassen_block(shape) if strassen else min(_MOST_PIXELS, max(_LEAST_PIXELS, fitting)), strassen


def run(call: SeparableCall, packed: _C.PackedSeparable) -> Tensor:
    """The result of `call` by weights that `pack` made of its own."""
    window, middle, after = call.window, call.middle_activation, call.activation
    out = result_like(call.x, call.out_shape, call.out)
    block, strassen = _choose(call)
    packed.run(
        x=array5(channels_last(call.x)),
        out=array5(out),
        stride=three(window.stride),
        pad=three([before for before, _ in window.padding], missing=0),
        dilation=three(window.dilation),
        between=(floats_of(call.middle_scale), floats_of(call.middle_bias), middle.number, middle.alpha, middle.beta),
        after=(None, floats_of(call.bias), after.number, after.alpha, after.beta),
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        block=call.block or block,
        strassen=strassen,
        stream=streams(out.numel(), out.element_size(), threads()),
        nthreads=threads(),
    )
    return out
