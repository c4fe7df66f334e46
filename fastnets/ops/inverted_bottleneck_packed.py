"""The arguments of inverted_bottleneck, and PackedInvertedBottleneck: its weights, packed once and run often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import kernel_refusal, out_refusal, result_like
from fastnets.ops.conv_arguments import Padding, Window, check_result, check_vectors, window_of
from fastnets.ops.conv_config import streams
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.layout import KERNEL_DTYPES, array5, array_of, channels_last, floats_of, threads


@dataclass(frozen=True)
class InvertedBottleneckCall:
    """activation(project(middle_activation(depthwise(expand_activation(expand(x) + ...)) + ...)) + bias + residual)."""

    x: Tensor
    expand: Tensor
    depthwise: Tensor
    project: Tensor
    bias: Tensor | None
    expand_bias: Tensor | None
    middle_bias: Tensor | None
    residual: Tensor | None
    window: Window
    expand_activation: Activation = field(default_factory=Activation)
    middle_activation: Activation = field(default_factory=Activation)
    activation: Activation = field(default_factory=Activation)
    out: Tensor | None = None

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(N, Cout, height, width)."""
        spatial = self.window.out_size(self.x.shape[2:], self.depthwise.shape[2:])
        return (self.x.shape[0], self.project.shape[0], *spatial)


class PackedInvertedBottleneck:
    """A 1x1, a depthwise and a 1x1 convolution of images in one kernel, with packed weights.

    Changes to the tensors after the construction are not seen.

    Args:
        expand: (M, Cin, 1, 1), or (M, Cin), float32 or bfloat16 on the CPU.
        depthwise: (M, 1, *kernel).
        project: (Cout, M, 1, 1), or (Cout, M).
        bias: (Cout,), added to the result.
        expand_bias, middle_bias: (M,), added to what `expand` and `depthwise` give.
        stride: of the depthwise convolution: one number, or two.
        padding: zeros on both sides of each axis of what `depthwise` reads: one number, two, or pairs (before, after).
        expand_activation, middle_activation, activation, and their parameters: of the results of the three; see
            fastnets.ops.epilogue.

    Raises:
        InputError: the arguments do not fit together.
    """

    def __init__(
        self,
        expand: Tensor,
        depthwise: Tensor,
        project: Tensor,
        bias: Tensor | None = None,
        *,
        expand_bias: Tensor | None = None,
        middle_bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        expand_activation: str = "none",
        expand_parameters: Sequence[float] = (),
        middle_activation: str = "none",
        middle_parameters: Sequence[float] = (),
        activation: str = "none",
        parameters: Sequence[float] = (),
    ) -> None:
        if expand.dtype not in KERNEL_DTYPES or expand.device.type != "cpu":
            raise InputError(
                f"inverted_bottleneck: expand is {expand.dtype} on {expand.device}: pass float32 or bfloat16 on cpu"
            )
        self._call = InvertedBottleneckCall(
            x=expand.new_empty(0),
            expand=expand.detach(),
            depthwise=depthwise.detach(),
            project=project.detach(),
            bias=bias,
            expand_bias=expand_bias,
            middle_bias=middle_bias,
            residual=None,
            window=window_of(2, stride, padding, 1, "inverted_bottleneck"),
            expand_activation=activation_of("inverted_bottleneck", expand_activation, expand_parameters),
            middle_activation=activation_of("inverted_bottleneck", middle_activation, middle_parameters),
            activation=activation_of("inverted_bottleneck", activation, parameters),
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
            x: (N, Cin, height, width) of the weights' dtype; a copy is made unless the channels of each pixel lie
                together.
            residual: added before the activation; the shape of the result.
            out: where to write: the shape of the result, the channels of each pixel together. It may be a slice
                of the channels of a wider tensor, or a crop of a larger one.

        Raises:
            InputError: a shape, dtype or layout does not fit.
        """
        call = InvertedBottleneckCall(**{**vars(self._call), "x": x, "residual": residual, "out": out})
        check(call)
        reason = refusal(call)
        if reason is not None:
            raise InputError(f"inverted_bottleneck: {reason}")
        return run(call, self._packed)


def check_weights(call: InvertedBottleneckCall) -> None:
    """Raise InputError where the weights and what goes with them do not fit together."""
    depthwise = call.depthwise
    if depthwise.dim() != 4 or depthwise.shape[1] != 1:
        raise InputError(f"inverted_bottleneck: depthwise has shape {tuple(depthwise.shape)}: pass (M, 1, *kernel)")
    middle = len(depthwise)
    for name, axis, wanted in (("expand", 0, f"({middle}, Cin, 1, 1)"), ("project", 1, f"(Cout, {middle}, 1, 1)")):
        weight: Tensor = getattr(call, name)
        if weight.dim() < 2 or weight.shape[axis] != middle or weight.numel() != weight.shape[0] * weight.shape[1]:
            raise InputError(
                f"inverted_bottleneck: {name} has shape {tuple(weight.shape)} and depthwise {tuple(depthwise.shape)}: "
                f"pass {wanted}"
            )
    sizes = {"bias": len(call.project), "expand_bias": middle, "middle_bias": middle}
    check_vectors("inverted_bottleneck", call, sizes)


def check(call: InvertedBottleneckCall) -> None:
    """Raise InputError where the input does not fit the weights."""
    x, cin = call.x, call.expand.shape[1]
    if x.dim() != 4 or x.shape[1] != cin:
        raise InputError(f"inverted_bottleneck: x has shape {tuple(x.shape)}: pass (N, {cin}, height, width)")
    weights = (call.expand, call.depthwise, call.project)
    if not x.is_floating_point() or any(weight.dtype != x.dtype for weight in weights):
        dtypes = ", ".join(str(weight.dtype) for weight in weights)
        raise InputError(
            f"inverted_bottleneck: x is {x.dtype}, and the weights {dtypes}: pass one floating-point dtype"
        )
    check_result("inverted_bottleneck", call, call.depthwise)


def refusal(call: InvertedBottleneckCall) -> str | None:
    """Why the kernel cannot run `call`, or None."""
    return kernel_refusal(call.x) or out_refusal(call.out)


def pack(call: InvertedBottleneckCall) -> _C.PackedInvertedBottleneck:
    """The weights of `call`."""
    expand, project = (weight.detach().contiguous().flatten(1) for weight in (call.expand, call.project))
    return _C.PackedInvertedBottleneck(
        array_of(expand), array_of(call.depthwise.detach().contiguous()), array_of(project), threads()
    )


def run(call: InvertedBottleneckCall, packed: _C.PackedInvertedBottleneck) -> Tensor:
    """The result of `call` by weights that `pack` made of its own."""
    stride, padding = call.window.stride, call.window.padding
    out = result_like(call.x, call.out_shape, call.out)
    first, middle, after = (
        (floats_of(bias), activation.number, activation.alpha, activation.beta)
        for bias, activation in (
            (call.expand_bias, call.expand_activation),
            (call.middle_bias, call.middle_activation),
            (call.bias, call.activation),
        )
    )
    packed.run(
        x=array5(channels_last(call.x)),
        out=array5(out),
        stride=(stride[0], stride[1]),
        pad=(padding[0][0], padding[1][0]),
        before=first,
        between=middle,
        after=after,
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        stream=streams(out.numel(), out.element_size(), threads()),
        nthreads=threads(),
    )
    return out
