"""Runs every implementation of an op over its cases against the float64 reference.

A module tests/cases/<op>.py takes part by defining

    OP: fastnets.ops.registry.Op
    CASES: a list of frozen dataclasses with a `name`
    make(case, seed) -> the op's call: a frozen dataclass whose Tensor fields are the tensors
    tolerance(case, implementation) -> the largest relative error (2-norm) that it may have

and, where the call has a field `out`, `out_shape(call)`; and, where kernels take more than float32, `DTYPES`. Then
tests/test_ops.py needs no edit.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

BF16_TOLERANCE = 1e-2  # of any op: inputs are rounded before the reference sees them, so this is the op's own error
PLACEMENTS = ("dense", "misaligned", "slices", "channels_first")


def modules() -> list[ModuleType]:
    """The modules of tests/cases that have an op."""
    names = sorted(path.stem for path in (Path(__file__).parent / "cases").glob("*.py"))
    found = [importlib.import_module(f"cases.{name}") for name in names]
    return [module for module in found if hasattr(module, "OP")]


def place(x: Tensor, placement: str) -> Tensor:
    """The same values elsewhere in memory; what lies around them is NaN."""
    if x.dim() < 3:
        placement = "misaligned" if placement == "misaligned" else "dense"
    if placement == "dense":
        return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 2 else x.contiguous()
    if placement == "channels_first":
        return x.contiguous()
    if placement == "misaligned":
        frame = torch.full((x.numel() + 1,), float("nan"), dtype=x.dtype, device=x.device)
        shape = (len(x), *x.shape[2:], x.shape[1]) if x.dim() > 2 else x.shape
        view = frame[1:].view(shape)
        view = view.movedim(-1, 1) if x.dim() > 2 else view
    else:  # a channel slice, and a crop, of a wider tensor
        batch, channels, *spatial = x.shape
        frame = torch.full(
            (batch, *(s + 2 for s in spatial), channels + 7), float("nan"), dtype=x.dtype, device=x.device
        )
        view = frame.movedim(-1, 1)[(slice(None), slice(3, 3 + channels), *(slice(1, 1 + s) for s in spatial))]
    return view.copy_(x)


def placed(call: Any, placement: str) -> Any:
    """The call with each of its tensors placed."""
    tensors = {f.name: getattr(call, f.name) for f in fields(call)}
    return replace(call, **{n: place(t, placement) for n, t in tensors.items() if isinstance(t, Tensor)})


def in_dtype(call: Any, dtype: torch.dtype) -> Any:
    """The call with its tensors rounded to `dtype`, but for vectors beside x: the terms of channels stay."""
    tensors = {f.name: getattr(call, f.name) for f in fields(call)}
    rounded = {n: t.to(dtype) for n, t in tensors.items() if isinstance(t, Tensor) and (t.dim() > 1 or n == "x")}
    return replace(call, **rounded)


def in_float64(call: Any) -> Any:
    """The call with float64 tensors and no `out`."""
    tensors = {f.name: getattr(call, f.name) for f in fields(call) if f.name != "out"}
    changed: dict[str, Any] = {n: t.double() for n, t in tensors.items() if isinstance(t, Tensor)}
    if any(f.name == "out" for f in fields(call)):
        changed["out"] = None
    return replace(call, **changed)


def limit_of_sums(op: Any, make: Callable[[Any], Any], case: Any, limit: float) -> float:
    """`limit`, of what the results are before the last activation: that may leave little of them."""
    if case.activation == "none":
        return limit
    both = (replace(case, activation="none"), case)
    sums, left = (float(op.reference(in_float64(make(c))).norm()) for c in both)
    return limit * max(1.0, sums / max(left, 1e-30))


@contextmanager
def poisoned() -> Iterator[None]:
    """torch fills what it allocates with NaN, so that an element that no kernel writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual - expected‖ / ‖expected‖; 0 for empty tensors, NaN if anything is."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    scale = expected.double().norm().clamp(min=1e-30)
    return float((actual.double() - expected.double()).norm() / scale)


@lru_cache(maxsize=1)  # implementations and placements of a case follow each other
def _call_and_expected(module: ModuleType, case: Any, dtype: torch.dtype) -> tuple[Any, Tensor]:
    call = module.make(case, seed=0)
    call = call if dtype == torch.float32 else in_dtype(call, dtype)
    return call, module.OP.reference(in_float64(call))


def check(
    module: ModuleType, case: Any, implementation: str, placement: str, dtype: torch.dtype = torch.float32
) -> str | None:
    """Compare with the reference; the sentence by which the implementation refuses, if it does."""
    call, expected = _call_and_expected(module, case, dtype)
    call = placed(call, placement)
    chosen = next(i for i in module.OP.implementations if i.name == implementation)
    refusal = chosen.can_run(call)
    if refusal is not None:
        return str(refusal)
    limit = module.tolerance(case, implementation) if dtype == torch.float32 else BF16_TOLERANCE
    with poisoned():
        results = []
        for count in (1, 2):
            with thread_count(count):
                results.append(chosen.run(call))
        error = relative_error(results[0], expected)
        assert error <= limit, f"relative error {error:.2e} > {limit:.0e}"
        assert results[0].dtype == dtype or dtype == torch.float32
        if implementation != "torch":
            assert torch.equal(results[0], results[1]), "results differ between 1 and 2 threads"
        if hasattr(call, "out"):
            _check_out(chosen.run, call, expected, limit, dtype)
    return None


def _check_out(run: Any, call: Any, expected: Tensor, limit: float, dtype: torch.dtype) -> None:
    """`out` is a slice of a wider NaN tensor: the slice is right, and what surrounds it is still NaN."""
    out = place(torch.zeros_like(expected, dtype=dtype), "slices").fill_(float("nan"))
    base = out._base
    assert base is not None
    result = run(replace(call, out=out))
    assert result.data_ptr() == out.data_ptr()
    error = relative_error(out, expected)
    assert error <= limit, f"into a slice: relative error {error:.2e} > {limit:.0e}"
    assert int((~base.isnan()).sum()) == out.numel(), "written outside of out"
