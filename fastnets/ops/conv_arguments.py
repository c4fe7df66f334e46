"""The arguments of a convolution: their forms, checks and derived sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.conv_config import Axes, ConvConfig, ConvShape
from fastnets.ops.epilogue import Activation

Padding = int | Sequence[int] | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """How the kernel moves: one entry a spatial axis; `padding` holds the zeros before and after."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def out_size(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """The spatial size of the output."""
        rows = zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + before + after - d * (k - 1) - 1) // s + 1 for n, k, s, (before, after), d in rows)


@dataclass(frozen=True)
class ConvCall:
    """The checked arguments of one convolution."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    residual: Tensor | None
    window: Window
    groups: int
    activation: Activation = field(default_factory=Activation)
    out: Tensor | None = None
    config: ConvConfig | None = None

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(N, Cout, *spatial)."""
        spatial = self.window.out_size(self.x.shape[2:], self.weight.shape[2:])
        return (self.x.shape[0], self.weight.shape[0], *spatial)

    @property
    def shape(self) -> ConvShape:
        """What the choice of a kernel depends on."""
        batch, cout, *out = self.out_shape
        window = self.window
        return ConvShape(
            batch=batch,
            cin=self.x.shape[1],
            cout=cout,
            groups=self.groups,
            out=three(out),
            kernel=three(self.weight.shape[2:]),
            stride=three(window.stride),
            dilation=three(window.dilation),
            itemsize=self.x.element_size(),
        )


def three(values: Sequence[int], missing: int = 1) -> Axes:
    """One to three values a spatial axis as three, the missing first ones `missing`."""
    z, y, x = [missing] * (3 - len(values)) + list(values)
    return z, y, x


def window_of(
    axes: int, stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int], op: str = "conv"
) -> Window:
    """The window of the arguments as callers give them: numbers, or one a spatial axis, or pairs for `padding`.

    Raises:
        InputError: a value is out of range, or there are more or fewer than axes.
    """
    strides = _per_axis(op, "stride", stride, axes, 1)
    dilations = _per_axis(op, "dilation", dilation, axes, 1)
    if isinstance(padding, int) or all(isinstance(p, int) for p in padding):
        numbers = _per_axis(op, "padding", padding, axes, 0)  # type: ignore[arg-type]
        return Window(strides, tuple((p, p) for p in numbers), dilations)
    before = _per_axis(op, "padding", [p[0] for p in padding], axes, 0)  # type: ignore[index]
    after = _per_axis(op, "padding", [p[1] for p in padding], axes, 0)  # type: ignore[index]
    return Window(strides, tuple(zip(before, after, strict=True)), dilations)


def _per_axis(op: str, name: str, value: int | Sequence[int], axes: int, lowest: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or min(values) < lowest:
        raise InputError(f"{op}: {name} is {value}: pass {lowest} or more, one number or {axes}, one a spatial axis")
    return values


def check(call: ConvCall) -> None:
    """Raise InputError where the tensors do not fit together."""
    x, weight, groups = call.x, call.weight, call.groups
    axes = x.dim() - 2
    if not 1 <= axes <= 3 or weight.dim() != x.dim():
        raise InputError(
            f"conv: x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: pass (N, C, *spatial) and "
            "(Cout, C / groups, *kernel) with the same 1 to 3 spatial axes"
        )
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != x.shape[1]:
        raise InputError(
            f"conv: weight {tuple(weight.shape)} in {groups} groups does not fit x {tuple(x.shape)}: pass weight "
            "(Cout, C / groups, *kernel) with Cout a multiple of groups"
        )
    if weight.shape[1] == 0:
        raise InputError(f"conv: weight {tuple(weight.shape)} has no input channels: pass one or more")
    if not x.is_floating_point() or weight.dtype != x.dtype:
        raise InputError(f"conv: x is {x.dtype} and weight {weight.dtype}: pass one floating-point dtype")
    check_vectors("conv", call, {"bias": weight.shape[0]})
    check_result("conv", call, weight)


class WindowCall(Protocol):
    """What the calls of convolutions have in common."""

    @property
    def x(self) -> Tensor: ...
    @property
    def residual(self) -> Tensor | None: ...
    @property
    def out(self) -> Tensor | None: ...
    @property
    def window(self) -> Window: ...
    @property
    def out_shape(self) -> tuple[int, ...]: ...


def check_vectors(op: str, call: WindowCall, sizes: dict[str, int]) -> None:
    """Raise InputError where one of these tensors of `call` does not have its size."""
    for name, size in sizes.items():
        vector: Tensor | None = getattr(call, name)
        if vector is not None and vector.shape != (size,):
            raise InputError(f"{op}: {name} has shape {tuple(vector.shape)}: pass ({size},)")


def check_result(op: str, call: WindowCall, weight: Tensor) -> None:
    """Raise InputError where `weight`, of the window, leaves no result, or what goes with the result does not fit."""
    x, shape = call.x, call.out_shape
    if min(shape[2:]) < 1:
        raise InputError(
            f"{op}: the kernel {tuple(weight.shape[2:])} with dilation {call.window.dilation} is larger than the "
            f"padded input {tuple(x.shape[2:])}: pad by more, or pass a larger input"
        )
    for name, tensor in (("residual", call.residual), ("out", call.out)):
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != x.dtype):
            raise InputError(f"{op}: {name} is {tuple(tensor.shape)}, {tensor.dtype}: pass {shape}, {x.dtype}")
    recorded = any(isinstance(value, Tensor) and value.requires_grad for value in vars(call).values())
    if call.out is not None and torch.is_grad_enabled() and recorded:
        raise InputError(f"{op}: out was given and gradients are recorded: leave it, or call under torch.no_grad()")
