"""matmul: products of matrices that are both values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import at_least_float32, kernel_refusal
from fastnets.ops.layout import matrices5, threads, together
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class MatmulCall:
    """The checked arguments, of 3 to 5 axes, with one batch."""

    a: Tensor
    b: Tensor
    out: Tensor | None = None


def matmul(a: Tensor, b: Tensor, *, implementation: str | None = None) -> Tensor:
    """a b; differentiable.

    Args:
        a: (*batch, rows, depth), floating point.
        b: (*batch, depth, columns); batches broadcast, to at most three axes.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Returns:
        (*batch, rows, columns).

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    for name, x in (("a", a), ("b", b)):
        if not 2 <= x.dim() <= 5 or not x.is_floating_point() or x.dtype != a.dtype:
            raise InputError(
                f"matmul: {name} is {x.dtype} of shape {tuple(x.shape)}: pass matrices, with at most three axes of "
                "batch, of one floating-point dtype"
            )
    try:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    except RuntimeError:
        batch = None
    if batch is None or a.shape[-1] != b.shape[-2]:
        raise InputError(
            f"matmul: b has shape {tuple(b.shape)}: pass (*batch, {a.shape[-1]}, columns) for a of {tuple(a.shape)}"
        )
    if not a.shape[-1]:
        raise InputError("matmul: a has no columns: pass one or more")
    batch = batch or (1,)
    result: Tensor = _operator(a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:]), implementation)
    return result if a.dim() > 2 or b.dim() > 2 else result[0]


def takes_flipped(a: Tensor, b: Tensor) -> bool:
    """Whether the kernel takes the transposed product as the tensors lie: b^T a^T."""
    return not together(a, -1) and together(a, -2) and together(b, -2)


def run_matmul(call: MatmulCall) -> Tensor:
    """By the kernel, into `out` or a new tensor."""
    out = _result(call) if call.out is None else call.out
    a, b, y = call.a, call.b, out
    if takes_flipped(a, b):
        a, b, y = b.mT, a.mT, y.mT
    a = a if together(a, -1) else a.contiguous()
    b = b if together(b, -1) or together(b, -2) else b.contiguous()
    target = y if together(y, -1) else torch.empty_like(y, memory_format=torch.contiguous_format)
    _C.matmul(a=matrices5(a), b=matrices5(b), out=matrices5(target), nthreads=threads())
    if target is not y:
        y.copy_(target)
    return out


def _result(call: MatmulCall) -> Tensor:
    return call.a.new_empty((*call.a.shape[:-1], call.b.shape[-1]))


def _reference(call: MatmulCall) -> Tensor:
    product = at_least_float32(call.a) @ at_least_float32(call.b)
    return product.to(call.a.dtype)


OP = Op(
    "matmul",
    _reference,
    (
        Implementation("native", lambda call: kernel_refusal(call.a, call.b, call.out), run_matmul),
        Implementation(
            "torch",
            lambda call: None,
            lambda call: (_result(call) if call.out is None else call.out).copy_(_reference(call)),
        ),
    ),
)


_operator = register(OP, "Tensor a, Tensor b", MatmulCall, result=_result)
