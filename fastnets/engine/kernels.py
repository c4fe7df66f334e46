"""What a lowered node runs: a call of one of fastnets.ops with its tensors left open.

A kernel is told its input and output tensors when a plan is recorded. Terms, which most kernels take into
their epilogue, are kept apart from the calls, so that the passes of fuse.py treat all kernels alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.ops.epilogue import Activation
from fastnets.ops.registry import Op
from fastnets.ops.relayout import rearrange_into


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
    def overwrites(self) -> int | None:
        """Which input's memory the output may lie in: one of which nothing is read after its place is written."""
        return None

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
    def overwrites(self) -> int | None:
        return 0 if self.op.name in ("activation", "combine", "norm") else None

    @property
    def constants(self) -> list[Tensor]:
        return [value for value in vars(self.call).values() if isinstance(value, Tensor) and value.numel()]

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        terms, axis = self.terms, self.channel_axis
        assert axis is not None  # layout.py chose one
        out = out[(..., *(None,) * (inputs[0].dim() - out.dim()))]  # a mean that keeps no spatial axis
        inputs, out = [pixels(t, axis) for t in inputs], pixels(out, axis)
        values: dict[str, Any] = {"scale": terms.scale, "shift": terms.shift, "activation": terms.activation}
        values["residual"] = inputs[len(self.fields)] if terms.residual else None
        changed = {self.takes[name]: value for name, value in values.items() if name in self.takes}
        changed |= dict(zip(self.fields, inputs, strict=False))
        _native(self.op).run(replace(self.call, **changed, out=out))


def pixels(x: Tensor, channel_axis: int) -> Tensor:
    """(N, C, *spatial), of which kernels have one spatial axis at least."""
    return x.unsqueeze(-1) if x.dim() == 2 else x.movedim(channel_axis, 1)


def _native(op: Op[Any]) -> Any:
    return next(candidate for candidate in op.implementations if candidate.name == "native")


@dataclass(eq=False)
class Written(Kernel):
    """Memory of a value that a later kernel writes beside its own result, as an input that is an output."""

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        """Nothing to record."""


@dataclass(eq=False)
class Moments(Written):
    """The moments of a convolution's result, (N, C, 2), which a norm reads."""


@dataclass(eq=False)
class View(Kernel):
    """Another reading of the memory of the first input: slices, reshapes, permutations, by `apply`."""

    apply: Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Rearranged(Kernel):
    """A copy of another reading of its input, whose elements follow each other as those of the result do.

    That reading, which `apply` gives, has all the axes of the result, or these split into several.
    """

    name: ClassVar[str] = "relayout"

    apply: Callable[[Tensor], Tensor] = lambda x: x

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        x = self.apply(inputs[0])
        rearrange_into(x, out.view(x.shape))


@dataclass(eq=False)
class Constant(Kernel):
    """A copy of a constant, which may repeat its elements: a part of a join."""

    name: ClassVar[str] = "relayout"

    value: Tensor

    @property
    def constants(self) -> list[Tensor]:
        return [self.value]

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        rearrange_into(self.value, out)


@dataclass(eq=False)
class Concat(Kernel):
    """Its inputs, which lie beside each other along `axis` in its own memory: producers write there."""

    axis: int


@dataclass(eq=False)
class Torch(Kernel):
    """A step that torch runs; `reason` says why no kernel does."""

    reason: str
