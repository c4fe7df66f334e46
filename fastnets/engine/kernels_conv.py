"""The kernels with weights: convolutions, linear layers, separable pairs. Weights are packed when first recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Literal

from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.engine.kernels import Kernel
from fastnets.ops.conv_arguments import Window
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.conv_packed import PackedConv
from fastnets.ops.conv_transpose import PackedConvTranspose
from fastnets.ops.inverted_bottleneck_packed import PackedInvertedBottleneck
from fastnets.ops.separable_packed import PackedSeparable


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
    moments: bool = field(default=False, init=False)  # the last input is where those of the result go
    # Those of windows of 2 results are the node's value ("only"), or go into the last input ("too").
    maxima: Literal["only", "too"] | None = field(default=None, init=False)
    direct: bool = field(default=False, init=False)  # see quotients.py

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    @property
    def overwrites(self) -> int | None:
        return 1 if self.terms.residual else None

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.weight.shape[1] == 1 and self.weight.shape[0] == self.groups

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 convolution that reads each pixel once."""
        plain = all(s == 1 for s in self.window.stride) and not any(map(sum, self.window.padding))
        return self.groups == 1 and prod(self.weight.shape[2:]) == 1 and plain

    def takes_any_order(self, shape: tuple[int, ...]) -> bool:
        """Whether it reads inputs of `shape` however their elements lie."""
        return self.make().prepare(shape).algorithm == "planar"

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        residual = inputs[1] if self.terms.residual else None
        if self.maxima == "only":
            self.run(inputs[0], residual, None, maxima=out)
        elif self.maxima == "too":
            self.run(inputs[0], residual, out, maxima=inputs[-1])
        else:
            self.run(inputs[0], residual, out, moments=inputs[-1] if self.moments else None)

    def run(self, x: Tensor, residual: Tensor | None, out: Tensor | None, **also: Tensor | None) -> None:
        packed = self.make()
        self.config = packed.prepare(x.shape)
        packed(x, residual=residual, out=out, **also)

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
                direct=self.direct,
                packs=self.packs,
            )
        return self.packed

    def flops(self, node: Node) -> int:
        results = prod(node.shape)
        if self.maxima == "only":
            results = prod(node.shape[:2]) * prod(self.window.out_size(node.inputs[0].shape[2:], self.weight.shape[2:]))
        return 2 * results * prod(self.weight.shape[1:])

    def choice(self) -> str:
        return "" if self.config is None else describe(self.config)


@dataclass(eq=False)
class Linear(Conv):
    """A matrix product over the last axis: a 1x1 convolution whose pixels are the rows."""

    name: ClassVar[str] = "linear"

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        x, *more = [rows(t) for t in inputs]
        self.run(x, more[0] if self.terms.residual else None, rows(out))


def rows(x: Tensor) -> Tensor:
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
    """A transposed convolution; `weight` is packed once for all shapes that a network is run at (`packs`)."""

    name: ClassVar[str] = "conv_transpose"

    weight: Tensor
    geometry: dict[str, Any]
    packs: dict[Any, Any]
    border: Tensor | None = None  # see PackedConvTranspose
    packed: PackedConvTranspose | None = field(default=None, init=False)
    direct: bool = field(default=False, init=False)  # see quotients.py

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        if self.packed is None:
            terms = self.terms
            self.packed = PackedConvTranspose(
                self.weight.detach().to(self.dtype),
                terms.shift,
                activation=terms.activation.name,
                parameters=terms.activation.parameters,
                scale=terms.scale,
                border=self.border,
                direct=self.direct,
                packs=self.packs,
                **self.geometry,
            )
        self.packed(inputs[0], residual=inputs[1] if self.terms.residual else None, out=out)

    def scaled(self) -> Tensor:
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

    def choice(self) -> str:
        return "" if self.packed is None or self.packed.config is None else describe(self.packed.config)


@dataclass(eq=False)
class Separable(Kernel):
    """A depthwise convolution and the 1x1 convolution of its results, in one kernel."""

    name: ClassVar[str] = "separable"

    depthwise: Conv
    pointwise: Conv
    packed: PackedSeparable | None = field(default=None, init=False)
    direct: bool = field(default=False, init=False)  # see quotients.py

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        if self.packed is None:
            first, terms, window = self.depthwise.terms, self.terms, self.depthwise.window
            self.packed = PackedSeparable(
                self.depthwise.weight.to(self.dtype),
                scaled(self.pointwise.weight, terms.scale).to(self.dtype),
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
                strassen=False if self.direct else None,
            )
        self.packed(inputs[0], residual=inputs[1] if self.terms.residual else None, out=out)

    def flops(self, node: Node) -> int:
        pixels = node.shape[0] * prod(node.shape[2:])
        middle = len(self.depthwise.weight)
        return 2 * pixels * middle * (prod(self.depthwise.weight.shape[2:]) + node.shape[1])


@dataclass(eq=False)
class InvertedBottleneck(Kernel):
    """A 1x1 convolution of images, a depthwise one of its results and a 1x1 one of those, in one kernel."""

    name: ClassVar[str] = "inverted_bottleneck"

    expand: Conv
    depthwise: Conv
    project: Conv
    packed: PackedInvertedBottleneck | None = field(default=None, init=False)

    @property
    def accepts(self) -> frozenset[str]:
        return frozenset({"scale", "shift", "residual", "activation"})

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        if self.packed is None:
            first, middle, terms = self.expand.terms, self.depthwise.terms, self.terms
            self.packed = PackedInvertedBottleneck(
                scaled(self.expand.weight, first.scale).to(self.dtype),
                scaled(self.depthwise.weight, middle.scale).to(self.dtype),
                scaled(self.project.weight, terms.scale).to(self.dtype),
                terms.shift,
                expand_bias=first.shift,
                middle_bias=middle.shift,
                stride=self.depthwise.window.stride,
                padding=self.depthwise.window.padding,
                expand_activation=first.activation.name,
                expand_parameters=first.activation.parameters,
                middle_activation=middle.activation.name,
                middle_parameters=middle.activation.parameters,
                activation=terms.activation.name,
                parameters=terms.activation.parameters,
            )
        self.packed(inputs[0], residual=inputs[1] if self.terms.residual else None, out=out)

    def flops(self, node: Node) -> int:
        middle = len(self.depthwise.weight)
        after = prod(self.depthwise.weight.shape[2:]) + node.shape[1]
        expanded = prod(node.inputs[0].shape)  # of each middle channel
        return 2 * middle * (expanded + node.shape[0] * prod(node.shape[2:]) * after)


def scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    """A weight (Cout, ...) with its output channels scaled."""
    weight = weight.detach()
    return weight if scale is None else weight * scale.view(-1, *(1,) * (weight.dim() - 1))


def describe(config: ConvConfig) -> str:
    """ "winograd 6x6": the algorithm and its tile."""
    tile = "x".join(str(outputs) for outputs in config.tile if outputs > 1)
    return f"{config.algorithm} {tile}".rstrip()
