"""What a lowered node runs: a call of one of fastnets.ops with its tensors left open.

A kernel is told its input and output tensors when a plan is recorded. Terms, which most kernels take into
their epilogue, are kept apart from the calls, so that the passes of fuse.py treat all kernels alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.ops.conv_arguments import Window
from fastnets.ops.conv_choice import ConvConfig
from fastnets.ops.conv_packed import PackedConv
from fastnets.ops.conv_transpose import PackedConvTranspose
from fastnets.ops.epilogue import Activation
from fastnets.ops.registry import Op
from fastnets.ops.separable_packed import PackedSeparable


@dataclass(frozen=True)
class Terms:
    """activation(value * scale + shift + residual); the residual is the last input of the node."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: bool = False
    activation: Activation = field(default_factory=Activation)

    @property
    def open(self) -> bool:
        """Whether another scale and shift can still be multiplied in."""
        return not self.residual and self.activation.name == "none"


@dataclass(eq=False)
class Kernel:
    """Base: `accepts` names the terms that it takes."""

    name: ClassVar[str] = ""
    terms: Terms = field(default_factory=Terms, kw_only=True)
    dtype: torch.dtype = field(default=torch.float32, kw_only=True)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset()

    @property
    def in_place(self) -> bool:
        """Whether the output may lie in the memory of the first input."""
        return False

    @property
    def constants(self) -> list[Tensor]:
        """What the call names beside its inputs and output, at addresses of its own."""
        return []

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        """Record the call."""
        raise NotImplementedError

    def flops(self, node: Node) -> int:
        """Floating-point operations of the direct algorithm; 0 where memory is all that counts."""
        return 0

    def choice(self) -> str:
        """How it runs, in a word or two; known after emit."""
        return ""


@dataclass(eq=False)
class OpKernel(Kernel):
    """An op whose call takes all it needs at each call: pools, norms, resize, sums...

    Args:
        op: of fastnets.ops.
        call: its call with None for the tensors named by `fields`, which the inputs become.
        takes: the terms, by the name of the field of the call that each one becomes.
        channel_axis: which axis of the tensors holds what the op calls channels: 1, -1, or None while it does not
            matter, as long as the channels lie together.
    """

    op: Op[Any]
    call: Any
    fields: tuple[str, ...] = ("x",)
    takes: dict[str, str] = field(default_factory=dict)
    channel_axis: int | None = 1

    def choice(self) -> str:
        return self.op.name

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset(self.takes)

    @property
    def in_place(self) -> bool:
        return self.op.name in ("activation", "combine")

    @property
    def constants(self) -> list[Tensor]:
        return [value for value in vars(self.call).values() if isinstance(value, Tensor) and value.numel()]

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        terms, axis = self.terms, self.channel_axis
        assert axis is not None  # layout.py chose one
        out = out[(..., *(None,) * (inputs[0].dim() - out.dim()))]  # a mean that keeps no spatial axis
        inputs, out = [_pixels(t, axis) for t in inputs], _pixels(out, axis)
        values: dict[str, Any] = {"scale": terms.scale, "shift": terms.shift, "activation": terms.activation}
        values["residual"] = inputs[len(self.fields)] if terms.residual else None
        changed = {self.takes[name]: value for name, value in values.items() if name in self.takes}
        changed |= dict(zip(self.fields, inputs, strict=False))
        _native(self.op).run(replace(self.call, **changed, out=out))


def describe(config: ConvConfig) -> str:
    """ "winograd 6x6": the algorithm and its tile."""
    tile = "x".join(str(outputs) for outputs in config.tile if outputs > 1)
    return f"{config.algorithm} {tile}".rstrip()


def _pixels(x: Tensor, channel_axis: int) -> Tensor:
    """(N, C, *spatial), of which kernels have one spatial axis at least."""
    return x.unsqueeze(-1) if x.dim() == 2 else x.movedim(channel_axis, 1)


def _native(op: Op[Any]) -> Any:
    return next(candidate for candidate in op.implementations if candidate.name == "native")


@dataclass(eq=False)
class Conv(Kernel):
    """A convolution; `weight` is packed once for all shapes that a network is run at (`packs`)."""

    name: ClassVar[str] = "conv"

    weight: Tensor
    window: Window
    groups: int
    packs: dict[Any, Any]
    packed: PackedConv | None = field(default=None, init=False)
    config: ConvConfig | None = field(default=None, init=False)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.weight.shape[1] == 1 and self.weight.shape[0] == self.groups

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 convolution that reads each pixel once."""
        plain = all(s == 1 for s in self.window.stride) and not any(map(sum, self.window.padding))
        return self.groups == 1 and prod(self.weight.shape[2:]) == 1 and plain

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        residual = inputs[1] if self.terms.residual else None
        self.run(inputs[0], residual, out)

    def run(self, x: Tensor, residual: Tensor | None, out: Tensor) -> None:
        packed = self.make()
        self.config = packed.prepare(x.shape)
        packed(x, residual=residual, out=out)

    def make(self) -> PackedConv:
        if self.packed is None:
            terms = self.terms
            self.packed = PackedConv(
                self.weight.to(self.dtype),
                terms.shift,
                stride=self.window.stride,
                padding=self.window.padding,
                dilation=self.window.dilation,
                groups=self.groups,
                activation=terms.activation.name,
                parameters=terms.activation.parameters,
                scale=terms.scale,
                packs=self.packs,
            )
        return self.packed

    def flops(self, node: Node) -> int:
        return 2 * prod(node.shape) * prod(self.weight.shape[1:])

    def choice(self) -> str:
        return "" if self.config is None else describe(self.config)


@dataclass(eq=False)
class Linear(Conv):
    """A matrix product over the last axis: a 1x1 convolution whose pixels are the rows."""

    name: ClassVar[str] = "linear"

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        x, *more = [_rows(t) for t in inputs]
        self.run(x, more[0] if self.terms.residual else None, _rows(out))


def _rows(x: Tensor) -> Tensor:
    """(..., C) as (N, C, 1), or (1, C, rows) where more than one axis comes before the channels."""
    return x.unsqueeze(-1) if x.dim() == 2 else x.view(-1, x.shape[-1]).t().unsqueeze(0)


@dataclass(eq=False)
class Whole(Conv):
    """A linear layer on a flattened image: a convolution with one output pixel. `weight` has the image's size."""

    name: ClassVar[str] = "linear"

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        axes = (...,) + (None,) * (inputs[0].dim() - 2)
        residual = inputs[1][axes] if self.terms.residual else None
        self.run(inputs[0], residual, out[axes])


@dataclass(eq=False)
class Transposed(Kernel):
    """A transposed convolution."""

    name: ClassVar[str] = "conv_transpose"

    weight: Tensor
    geometry: dict[str, Any]
    packed: PackedConvTranspose | None = field(default=None, init=False)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        if self.packed is None:
            terms = self.terms
            self.packed = PackedConvTranspose(
                self._scaled().to(self.dtype),
                terms.shift,
                activation=terms.activation.name,
                parameters=terms.activation.parameters,
                **self.geometry,
            )
        self.packed(inputs[0], residual=inputs[1] if self.terms.residual else None, out=out)

    def _scaled(self) -> Tensor:
        """The weight (Cin, Cout / groups, *kernel) times the scale (Cout,)."""
        if self.terms.scale is None:
            return self.weight.detach()
        groups = self.geometry["groups"]
        weight = self.weight.detach()
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        scale = self.terms.scale.view(groups, 1, -1, *(1,) * (weight.dim() - 2))
        return (grouped * scale).view(weight.shape)

    def flops(self, node: Node) -> int:
        return 2 * prod(node.inputs[0].shape) * prod(self.weight.shape[1:])


@dataclass(eq=False)
class Separable(Kernel):
    """A depthwise convolution and the 1x1 convolution of its results, in one kernel."""

    name: ClassVar[str] = "separable"

    depthwise: Conv
    pointwise: Conv
    packed: PackedSeparable | None = field(default=None, init=False)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        if self.packed is None:
            first, terms, window = self.depthwise.terms, self.terms, self.depthwise.window
            pointwise = self.pointwise.weight.detach()
            if terms.scale is not None:
                pointwise = pointwise * terms.scale.view(-1, *(1,) * (pointwise.dim() - 1))
            self.packed = PackedSeparable(
                self.depthwise.weight.to(self.dtype),
                pointwise.to(self.dtype),
                terms.shift,
                middle_scale=first.scale,
                middle_bias=first.shift,
                stride=window.stride,
                padding=window.padding,
                dilation=window.dilation,
                middle_activation=first.activation.name,
                middle_parameters=first.activation.parameters,
                activation=terms.activation.name,
                parameters=terms.activation.parameters,
            )
        self.packed(inputs[0], residual=inputs[1] if self.terms.residual else None, out=out)

    def flops(self, node: Node) -> int:
        pixels = node.shape[0] * prod(node.shape[2:])
        middle = len(self.depthwise.weight)
        return 2 * pixels * middle * (prod(self.depthwise.weight.shape[2:]) + node.shape[1])


@dataclass(eq=False)
class View(Kernel):
    """Another reading of the memory of the first input: slices, reshapes, permutations, by `apply`."""

    apply: Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Concat(Kernel):
    """Its inputs, which lie beside each other along `axis` in its own memory: producers write there."""

    axis: int


@dataclass(eq=False)
class Torch(Kernel):
    """A step that torch runs; `reason` says why no kernel does."""

    reason: str
