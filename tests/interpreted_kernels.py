"""The values of the Triton kernels, run in Python on the CPU: what test_kernels_values.py starts as a process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from cases import depthwise as depthwise_cases
from fastnets.kernels import depthwise as depthwise_kernels
from harness import in_float64, place, placed, relative_error

from fastnets.ops import gpu
from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.depthwise import depthwise

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative, 2-norm: that of the results' own rounding."""


def converted(call: Any, dtype: torch.dtype) -> Any:
    tensors = {n: v.to(dtype) for n, v in vars(call).items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return type(call)(**{**vars(call), **tensors})


def error_of(op: Any, implementation: str, call: Any, placement: str = "slices") -> float:
    """Against float64, into a slice of a NaN tensor where the op can write into one."""
    call = placed(call, placement)
    chosen = next(i for i in op.implementations if i.name == implementation)
    assert chosen.can_run(call) is None
    expected = op.reference(in_float64(call))
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
        own = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
        y = function(*own, implementation=name)
        weights = torch.cos(torch.arange(y.numel())).view(y.shape).to(leaves[0].dtype).to(dtype)
        results.append(torch.autograd.grad(y, own, weights))
    return [relative_error(a, b) for a, b in zip(*results, strict=True)]


DEPTHWISE = [
    depthwise_cases.Case(1, 3, (9, 11), (3, 3), padding=1, activation="relu6"),
    depthwise_cases.Case(2, 21, (6, 5), (3, 3), stride=2, padding=1, residual=True),
    depthwise_cases.Case(1, 33, (7, 6), (7, 7), padding=3, activation="silu"),
    depthwise_cases.Case(1, 4, (9, 7), (3, 3), padding=((2, 0), (0, 3)), dilation=(2, 3)),
    depthwise_cases.Case(1, 5, (3, 4, 5), (3, 3, 3), padding=1, activation="gelu"),
    depthwise_cases.Case(1, 2, (40,), (31,), padding=15),
    depthwise_cases.Case(0, 16, (9, 9), (3, 3), padding=1),
]


@pytest.mark.parametrize("case", DEPTHWISE, ids=lambda case: case.name)
def test_depthwise(case: depthwise_cases.Case) -> None:
    call = depthwise_cases.make(case)
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) <= 1e-5


@pytest.mark.parametrize("placement", ["channels_first", "misaligned"])
def test_depthwise_anywhere_in_memory(placement: str) -> None:
    call = depthwise_cases.make(DEPTHWISE[1])
    assert error_of(depthwise_cases.OP, "triton_depthwise", call, placement) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_depthwise_in_16_bits(dtype: torch.dtype) -> None:
    call = converted(depthwise_cases.make(DEPTHWISE[1]), dtype)
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) <= TOLERANCE[dtype]


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2, "padding": 3}])
def test_depthwise_gradients(options: dict[str, Any]) -> None:
    x, weight, bias = torch.randn(2, 5, 6, 7), torch.randn(5, 1, 3, 3), torch.randn(5)

    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        return depthwise(*leaves, **options, activation="silu", implementation=implementation)

    assert max(gradient_errors(function, [x, weight, bias], "triton_depthwise")) <= 1e-5


_right = depthwise_kernels._source


@triton.jit
def _wrong(position, k, STRIDE: tl.constexpr, STEP: tl.constexpr, before, size, TRANSPOSED: tl.constexpr):
    return _right(position + 1, k, STRIDE, STEP, before, size, TRANSPOSED)


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads a pixel further: the check of the others sees it."""
    call = depthwise_cases.make(DEPTHWISE[0])
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) <= 1e-5
    monkeypatch.setattr(depthwise_kernels, "_source", _wrong)
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) > 0.1


def test_refusals() -> None:
    call = depthwise_cases.make(depthwise_cases.Case(1, 4, (5, 5), (3, 3), multiplier=2))
    (triton_depthwise,) = (i for i in depthwise_cases.OP.implementations if i.name == "triton_depthwise")
    assert "it needs one to one" in str(triton_depthwise.can_run(call))
    call = depthwise_cases.make(DEPTHWISE[0])
    assert "it needs torch.float32, float16 or bfloat16" in str(gpu.refusal(converted(call, torch.float64)))
    assert isinstance(call, ConvCall)
    elsewhere = ConvCall(**{**vars(call), "bias": torch.empty(3, device="meta")})
    assert "it needs one device" in str(gpu.refusal(elsewhere))
