"""The ops as torch operators, fastnets::<op>: what torch.compile, torch.export and autograd see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastnets.ops.epilogue import Activation
from fastnets.ops.gradient import Backward, through
from fastnets.ops.registry import Op

LIBRARY = torch.library.Library("fastnets", "DEF")  # type: ignore[no-untyped-call]

Call = TypeVar("Call")


def register(
    op: Op[Call],
    arguments: str,
    call: Callable[..., Call],
    *,
    result: Callable[[Call], Tensor],
    gradients: Backward | None = None,
) -> Callable[..., Any]:
    """Register fastnets::<op.name>, whose last argument is `str? implementation`, and return it.

    Args:
        arguments: of the schema, without that: "Tensor x, int[] stride".
        call: makes the op's call from arguments of those types, with tuples for lists.
        result: a tensor with the shape, strides and dtype of the result of a call, uninitialised.
        gradients: `setup_context` and `backward` as torch.library.register_autograd takes them; None takes those
            of the op's reference.
    """

    def call_of(flat: tuple[Any, ...]) -> Call:
        return call(*(tuple(a) if isinstance(a, list) else a for a in flat[:-1]))

    return define(
        op.name,
        f"({arguments}, str? implementation) -> Tensor",
        run=lambda *flat: op(call_of(flat), flat[-1]),
        fake=lambda *flat: result(call_of(flat)),
        gradients=gradients or through(lambda *flat: op.reference(call_of(flat))),
    )


def with_activation(call: Callable[..., Call]) -> Callable[..., Call]:
    """What register takes where the last field of `call` is an Activation: its name and parameters end the schema."""
    return lambda *flat: call(*flat[:-2], Activation(*flat[-2:]))


def define(
    name: str,
    schema: str,
    *,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    gradients: Backward | None = None,
) -> Callable[..., Any]:
    """Register fastnets::<name> and return it.

    Args:
        schema: "(Tensor x, int[] stride) -> Tensor".
        run: computes the result, on any device.
        fake: the shape, strides and dtype of the result, without computing it.
        gradients: see register; None where the op has none.
    """
    qualified = f"fastnets::{name}"
    LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    if gradients is not None:
        setup_context, backward = gradients
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.fastnets, name).default
    return operator
