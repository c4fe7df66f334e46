"""What the checks of the Triton kernels' values share."""

from __future__ import annotations

import os
from typing import Any

import torch
from harness import in_float64, place, placed, relative_error

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative, 2-norm: that of the results' own rounding."""


def converted(call: Any, dtype: torch.dtype) -> Any:
    tensors = {n: v.to(dtype) for n, v in vars(call).items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return type(call)(**{**vars(call), **tensors})


def on_device(call: Any) -> Any:
    tensors = {n: v.to(DEVICE) for n, v in vars(call).items() if isinstance(v, torch.Tensor)}
    return type(call)(**{**vars(call), **tensors})


def error_of(op: Any, implementation: str, call: Any, placement: str = "slices") -> float:
    """Against float64, into a slice of a NaN tensor where the op can write into one."""
    call = placed(on_device(call), placement)
    chosen = next(i for i in op.implementations if i.name == implementation)
    assert chosen.can_run(call) is None
    expected = op.reference(in_float64(call))
    assert expected.numel() == 0 or bool(expected.any()), "zeros are equal to what a kernel does not write"
    if not hasattr(call, "out"):
        return relative_error(chosen.run(call), expected)
    out = place(torch.zeros_like(expected, dtype=call.x.dtype), "slices").fill_(float("nan"))
    chosen.run(type(call)(**{**vars(call), "out": out}))
    base = out._base
    assert base is not None
    assert int((~base.isnan()).sum()) == out.numel(), "written outside of out"
    return relative_error(out, expected)


def gradient_errors(function: Any, leaves: list[torch.Tensor], implementation: str) -> list[float]:
    """Of the gradients of `function(*leaves, implementation=...)`, against float64 in torch."""
    results = []
    for dtype, name in ((leaves[0].dtype, implementation), (torch.float64, "torch")):
        own = [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]
        y = function(*own, implementation=name)
        weights = torch.cos(torch.arange(y.numel(), device=DEVICE)).view(y.shape).to(leaves[0].dtype).to(dtype)
        results.append(torch.autograd.grad(y, own, weights))
    return [relative_error(a, b) for a, b in zip(*results, strict=True)]
