"""conv_transpose: transposed convolution in 1 to 3 dimensions with its epilogue; PackedConvTranspose runs it often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops import conv_transpose_winograd as winograd
from fastnets.ops.arguments import (
    check_out,
    delivered,
    kernel_refusal,
    out_refusal,
    per_axis,
    result_like,
    spatial_axes,
    three,
)
from fastnets.ops.conv_config import ConvConfig, Packing, streams
from fastnets.ops.epilogue import Activation, activation_of
from fastnets.ops.gpu import triton_implementation
from fastnets.ops.layout import array5, array_of, channels_last, floats_of, threads
from fastnets.ops.library import register, with_activation
from fastnets.ops.registry import Implementation, Op

Sizes = int | Sequence[int]
_NONE = Activation()


@dataclass(frozen=True)
class ConvTransposeCall:
    """The checked arguments; one number a spatial axis. packed: the weight for the kernel; scale as PackedConv's."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    residual: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    activation: Activation = _NONE
    out: Tensor | None = None
    packed: _C.PackedProduct | None = None
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        geometry = zip(
            self.x.shape[2:], self.weight.shape[2:], self.stride, self.padding, self.output_padding, self.dilation,
            strict=True,
        )  # fmt: skip
        sizes = ((size - 1) * s - 2 * p + d * (k - 1) + extra + 1 for size, k, s, p, extra, d in geometry)
        return (len(self.x), self.weight.shape[1] * self.groups, *sizes)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    residual: Tensor | None = None,
    activation: str = "none",
    parameters: Sequence[float] = (),
    implementation: str | None = None,
) -> Tensor:
    """activation(conv_transpose(x, weight) + bias + residual), channels-last; differentiable.

    Args:
        x: (N, Cin, *spatial), 1 to 3 spatial axes, floating point.
        weight: (Cin, Cout / groups, *kernel). It is packed at every call: use PackedConvTranspose to run it often.
        bias: (Cout,).
        stride, padding, output_padding, dilation, groups: as torch's conv_transpose; one number, or one an axis.
        residual: added before the activation; the shape of the result.
        activation, parameters: see fastnets.ops.epilogue.
        implementation: "native" (CPU, float32 or bfloat16), "winograd" (the same, of kernel 4, stride 2 and padding 1),
            "triton" (GPU) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    kind = activation_of("conv_transpose", activation, parameters)
    call = _checked(x, weight, bias, residual, stride, padding, output_padding, dilation, groups, kind)
    result: Tensor = _operator(
        *(x, weight, bias, residual, list(call.stride), list(call.padding), list(call.output_padding)),
        *(list(call.dilation), groups, kind.name, list(kind.parameters), implementation),
    )
    return result


class PackedConvTranspose:
    """A transposed convolution whose weight, float32 or bfloat16 on the CPU, is packed once; without gradients.

    Later changes of `weight` have no effect. Arguments as those of conv_transpose, and:

    Args:
        scale: (Cout,), what the sums are multiplied by before the bias.
        border: (Cout, 3 an axis), added to the results at the first, inner and last positions of each axis; 0 at the
            inner ones. Only Winograd's algorithm takes it (conv_transpose_winograd.refusal).
        direct: never by Winograd's algorithm: the products of each pixel are summed apart.
        packs: where packed weights are kept, to share them with others of the same weight and groups.

    Raises:
        InputError: the arguments do not fit together.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        activation: str = "none",
        parameters: Sequence[float] = (),
        scale: Tensor | None = None,
        border: Tensor | None = None,
        direct: bool = False,
        packs: dict[Packing | None, Any] | None = None,
    ) -> None:
        reason = kernel_refusal(weight)
        if reason is not None:
            raise InputError(f"conv_transpose: weight and bias cannot be packed: {reason}")
        if border is not None and border.shape != (weight.shape[1] * groups, *(3,) * (weight.dim() - 2)):
            raise InputError(
                f"conv_transpose: border has shape {tuple(border.shape)}: pass Cout and 3 for each of the "
                f"{weight.dim() - 2} axes"
            )
        self._weight, self._bias, self._groups = weight, bias, groups
        self._scale, self._border, self._direct = scale, border, direct
        self._geometry = stride, padding, output_padding, dilation
        self._activation = activation_of("conv_transpose", activation, parameters)
        self.config: ConvConfig | None = None  # how the last input ran: by Winograd's algorithm, or None: by products
        self._chosen: dict[tuple[tuple[int, ...], int], ConvConfig | None] = {}
        self._packs: dict[Packing | None, Any] = {} if packs is None else packs  # None: for products

    def __call__(self, x: Tensor, *, residual: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """The result on `x`, of the weight's dtype, written into `out` if given: a tensor or a channel slice of one."""
        call = _checked(x, self._weight, self._bias, residual, *self._geometry, self._groups, self._activation)
        check_out("conv_transpose", out, call.shape)
        call = replace(call, out=out, scale=self._scale)
        key = tuple(x.shape), threads()
        if key not in self._chosen:
            self._chosen[key] = self._choose(call)
        config = self.config = self._chosen[key]
        if config is None:
            if None not in self._packs:
                self._packs[None] = _pack(self._weight, self._groups)
            result: Tensor = OP(replace(call, packed=self._packs[None]), "native")
            return result
        reason = _refusal(call)
        if reason is not None:
            raise InputError(f"conv_transpose: winograd cannot run: {reason}")
        if config.packing not in self._packs:
            self._packs[config.packing] = winograd.pack(self._weight, config)
        return winograd.run(call, self._packs[config.packing], config, self._border)

    def _choose(self, call: ConvTransposeCall) -> ConvConfig | None:
        """How Winograd's algorithm runs `call`, where it is faster than products or there is a border; else None."""
        reason = "direct asks for products" if self._direct else winograd.refusal(call)
        if reason is not None:
            if self._border is not None:
                raise InputError(f"conv_transpose: border needs winograd, which cannot run: {reason}")
            return None
        cost, config = winograd.choose(call)
        return config if cost < winograd.products_cost(call) or self._border is not None else None


def _checked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int,
    activation: Activation,
) -> ConvTransposeCall:
    op = "conv_transpose"
    axes = spatial_axes(op, x)
    if weight.dim() != x.dim() or len(weight) != x.shape[1] or groups < 1 or len(weight) % groups:
        raise InputError(
            f"{op}: weight has shape {tuple(weight.shape)} with groups {groups}: pass ({x.shape[1]}, Cout / groups, "
            f"*kernel) with {axes} kernel axes, and groups that divide {x.shape[1]}"
        )
    call = ConvTransposeCall(
        x,
        weight,
        bias,
        residual,
        per_axis(op, "stride", stride, axes, 1),
        per_axis(op, "padding", padding, axes, 0),
        per_axis(op, "output_padding", output_padding, axes, 0),
        per_axis(op, "dilation", dilation, axes, 1),
        groups,
        activation,
    )
    if bias is not None and bias.shape != call.shape[1:2]:
        raise InputError(f"{op}: bias has shape {tuple(bias.shape)}: pass ({call.shape[1]},)")
    if any(e >= max(s, d) for e, s, d in zip(call.output_padding, call.stride, call.dilation, strict=True)):
        raise InputError(
            f"{op}: output_padding is {call.output_padding}: pass less than the stride {call.stride} or the dilation "
            f"{call.dilation}"
        )
    if min(call.shape[2:]) < 1 or min(x.shape[2:]) < 1:
        raise InputError(
            f"{op}: the result on x {tuple(x.shape)} has shape {call.shape}: pass a larger x or less padding"
        )
    if residual is not None and residual.shape != call.shape:
        raise InputError(f"{op}: residual has shape {tuple(residual.shape)}: pass {call.shape}")
    return call


def _refusal(call: ConvTransposeCall) -> str | None:
    return kernel_refusal(call.x, call.weight, call.residual, call.out) or out_refusal(call.out)


def _pack(weight: Tensor, groups: int) -> _C.PackedProduct:
    flat = weight.detach().contiguous().view(groups, len(weight) // groups, weight.shape[1], -1)
    return _C.PackedProduct(array_of(flat))


def _run(call: ConvTransposeCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    packed = call.packed or _pack(call.weight, call.groups)
    packed.run(
        x=array5(channels_last(call.x)),
        out=array5(out),
        kernel=three(call.weight.shape[2:], 1),
        stride=three(call.stride, 1),
        pad=three(call.padding, 0),
        dilation=three(call.dilation, 1),
        scale=floats_of(call.scale),
        shift=floats_of(call.bias),
        residual=None if call.residual is None else array5(channels_last(call.residual)),
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        stream=streams(out.numel(), out.element_size(), threads()),
        nthreads=threads(),
    )
    return out


def _run_winograd(call: ConvTransposeCall) -> Tensor:
    config = winograd.choose(call)[1]
    return winograd.run(call, winograd.pack(call.weight, config), config, None)


def _reference(call: ConvTransposeCall) -> Tensor:
    functions = functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d
    bias = None if call.bias is None else call.bias.to(call.x.dtype)
    y = functions[call.x.dim() - 3](
        *(call.x, call.weight, bias if call.scale is None else None, call.stride, call.padding, call.output_padding),
        *(call.groups, call.dilation),
    )
    if call.scale is not None:
        over_pixels = (slice(None), *(None,) * (y.dim() - 2))
        y = y * call.scale[over_pixels] + (0 if bias is None else bias[over_pixels])
    return call.activation(y if call.residual is None else y + call.residual)


OP = Op(
    "conv_transpose",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("winograd", lambda call: _refusal(call) or winograd.refusal(call), _run_winograd),
        triton_implementation("conv_transpose"),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, int[] padding, int[] output_padding, "
    "int[] dilation, int groups, str activation, float[] parameters",
    with_activation(ConvTransposeCall),
    result=lambda call: result_like(call.x, call.shape, None),
)
