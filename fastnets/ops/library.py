"""The ops as torch operators, fastnets::<op>: what torch.compile, torch.export and autograd see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("fastnets", "DEF")  # type: ignore[no-untyped-call]


def define(
    name: str,
    schema: str,
    *,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register fastnets::<name> and return it.

    Args:
        schema: "(Tensor x, int[] stride) -> Tensor".
        run: computes the result, on any device.
        fake: the shape, strides and dtype of the result, without computing it.
        backward: `backward(ctx, grad)` as torch.library.register_autograd takes it; with `setup_context`.
    """
    qualified = f"fastnets::{name}"
    LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.fastnets, name).default
    return operator
