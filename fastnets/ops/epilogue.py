"""What the kernels do to their results before they store them: activation(value + bias + residual)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.errors import InputError


@dataclass(frozen=True)
class _Kind:
    """The function in torch, and the values of its parameters where the caller gives none."""

    function: Callable[..., Tensor]
    defaults: tuple[float, ...] = ()


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


# In the order of `enum class Activation` in csrc/common/epilogue.h.
_KINDS = {
    "none": _Kind(lambda x: x),
    "relu": _Kind(torch.relu),
    "relu6": _Kind(functional.relu6),
    "clamp": _Kind(torch.clamp, (-1.0, 1.0)),
    "leaky": _Kind(functional.leaky_relu, (0.01,)),
    "elu": _Kind(functional.elu, (1.0,)),
    "silu": _Kind(functional.silu),
    "hardswish": _Kind(functional.hardswish),
    "hardsigmoid": _Kind(functional.hardsigmoid),
    "sigmoid": _Kind(torch.sigmoid),
    "tanh": _Kind(torch.tanh),
    "gelu": _Kind(functional.gelu),
    "gelu_tanh": _Kind(_gelu_tanh),
}
ACTIVATIONS = tuple(_KINDS)


@dataclass(frozen=True)
class Activation:
    """An activation and its parameters: `leaky` the slope, `elu` alpha, `clamp` the lowest and highest value."""

    name: str = "none"
    parameters: tuple[float, ...] = ()

    @property
    def number(self) -> int:
        """The value of the C++ enumeration."""
        return ACTIVATIONS.index(self.name)

    @property
    def alpha(self) -> float:
        """The first parameter, or 0."""
        return self.parameters[0] if self.parameters else 0.0

    @property
    def beta(self) -> float:
        """The second parameter, or 0."""
        return self.parameters[1] if len(self.parameters) > 1 else 0.0

    @property
    def clamps(self) -> bool:
        """Whether it is a lower and an upper bound, or neither."""
        return self.name in ("none", "relu", "relu6", "clamp")

    def __call__(self, x: Tensor) -> Tensor:
        """The activation in torch: any dtype, differentiable."""
        return _KINDS[self.name].function(x, *self.parameters)


def activation_of(op: str, name: str, parameters: Sequence[float] = ()) -> Activation:
    """The activation `name` with `parameters`, or with its defaults where none are given.

    Raises:
        InputError: there is none of that name, or it takes another number of parameters.
    """
    if name not in _KINDS:
        raise InputError(f"{op}: activation is {name!r}: pass one of {', '.join(ACTIVATIONS)}")
    defaults = _KINDS[name].defaults
    if parameters and len(parameters) != len(defaults):
        raise InputError(
            f"{op}: activation {name!r} came with {len(parameters)} parameters: pass {len(defaults)}, or none for "
            f"the defaults {defaults}"
        )
    return Activation(name, tuple(float(p) for p in parameters) if parameters else defaults)
