"""pad: borders made of the image itself, by reflection, repetition or wrapping around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, float32_refusal, out_refusal, result_like, spatial_axes
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op

MODES = ("reflect", "replicate", "circular")


@dataclass(frozen=True)
class PadCall:
    """The checked arguments. `padding` is that of the spatial axes in order, before and after: (z0, z1, y0, y1...)."""

    x: Tensor
    padding: tuple[int, ...]
    mode: str
    out: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        added = (before + after for before, after in self.pairs)
        return (*self.x.shape[:2], *(size + more for size, more in zip(self.x.shape[2:], added, strict=True)))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.padding[::2], self.padding[1::2], strict=True))


def pad(x: Tensor, padding: int | Sequence[int], *, mode: str, implementation: str | None = None) -> Tensor:
    """`x` with borders made of its own pixels; differentiable. The values of torch's pad.

    Args:
        x: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        padding: pixels added to every side, or those before and after each spatial axis, the first axis first
            (torch's pad takes the last first).
        mode: "reflect" (without the border pixel itself, fewer pixels than the axis has), "replicate", or "circular"
            (no more pixels than the axis has).
        implementation: "native" (CPU, float32) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    axes = spatial_axes("pad", x)
    amounts = (padding,) * (2 * axes) if isinstance(padding, int) else tuple(int(p) for p in padding)
    if len(amounts) != 2 * axes or min(amounts) < 0:
        raise InputError(f"pad: padding is {padding}: pass one number, or {2 * axes}, each 0 or more")
    if mode not in MODES:
        raise InputError(f"pad: mode is {mode!r}: pass one of {', '.join(MODES)}; zeros are padding of conv and pools")
    for axis, size in enumerate(x.shape[2:]):
        most = {"reflect": size - 1, "circular": size}.get(mode, max(amounts))
        if max(amounts[2 * axis : 2 * axis + 2]) > most or size < 1:
            raise InputError(
                f"pad: padding {amounts[2 * axis : 2 * axis + 2]} of an axis of {size} pixels in mode {mode!r}: pass "
                f"at most {most}"
            )
    result: Tensor = _operator(x, list(amounts), mode, implementation)
    return result


def _refusal(call: PadCall) -> str | None:
    return float32_refusal(call.x) or out_refusal(call.out)


def _run(call: PadCall) -> Tensor:
    """A resize whose positions are given: each pixel of the result is one of `x`."""
    out = result_like(call.x, call.shape, call.out)
    sizes = (1,) * (5 - call.x.dim()) + tuple(call.x.shape[2:])
    pairs = [(0, 0)] * (5 - call.x.dim()) + call.pairs
    positions = [_positions(size, *pair, call.mode).numpy() for size, pair in zip(sizes, pairs, strict=True)]
    _C.resize(
        x=array5(channels_last(call.x)),
        out=array5(out),
        low=positions,
        high=positions,
        weight=None,
        nthreads=threads(),
    )
    return out


def _positions(size: int, before: int, after: int, mode: str) -> Tensor:
    """Which pixel of an axis each pixel of the result is."""
    i = torch.arange(-before, size + after)
    if mode == "replicate":
        return i.clamp(0, size - 1)
    if mode == "circular":
        return i % size
    return (size - 1 - (size - 1 - i.abs()).abs()).contiguous()


def _reference(call: PadCall) -> Tensor:
    last_first = [amount for pair in reversed(call.pairs) for amount in pair]
    return functional.pad(call.x, last_first, mode=call.mode)


OP = Op(
    "pad",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


_operator = register(
    OP,
    "Tensor x, SymInt[] padding, str mode",
    PadCall,
    result=lambda call: result_like(call.x, call.shape, None),
)
