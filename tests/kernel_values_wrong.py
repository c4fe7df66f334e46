"""Kernels that are broken on purpose: the checks of the other kernel_values*.py see each of them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from cases import conv as conv_cases
from cases import conv_transpose as transposed_cases
from cases import depthwise as depthwise_cases
from cases import inverted_bottleneck as inverted_cases
from cases import norm as norm_cases
from cases import roi_align as roi_cases
from cases import separable as separable_cases
from fastnets.kernels import (
    conv,
    conv_transpose,
    conv_weight,
    depthwise,
    inverted_bottleneck,
    norm,
    norm_gradient,
    roi_align,
    separable,
)
from kernel_harness import INTERPRETED, error_of, gradient_errors

from fastnets.ops.conv import conv as conv_op
from fastnets.ops.norm import group_norm

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel keeps the functions it was compiled with")

_source, _activate, _derivative = depthwise.source, separable.activate, norm_gradient.derivative
_store, _neighbours = conv.store, roi_align._neighbours


@triton.jit
def _further(position, k, STRIDE: tl.constexpr, STEP: tl.constexpr, before, size, TRANSPOSED: tl.constexpr):
    """Reads the next pixel."""
    return _source(position + 1, k, STRIDE, STEP, before, size, TRANSPOSED)


@triton.jit
def _padded(position, k, STRIDE: tl.constexpr, STEP: tl.constexpr, before, size, TRANSPOSED: tl.constexpr):
    """Takes the edge for a pixel of the image: one row or column too much is zero."""
    at, inside = _source(position, k, STRIDE, STEP, before, size, TRANSPOSED)
    return at, inside & (at < size - 1)


@triton.jit
def _inexact(acc, bias, residual, out, r_at, o_at, c, mask, alpha, beta, KIND: tl.constexpr, CHANNELS: tl.constexpr):
    """A relative error of 1e-4: 1 / 80 of the rounding to bfloat16."""
    _store(acc * 1.0001, bias, residual, out, r_at, o_at, c, mask, alpha, beta, KIND, CHANNELS)


@triton.jit
def _shifted(x, KIND: tl.constexpr, alpha, beta):
    """Of what is a little too large."""
    return _activate(x + 0.001, KIND, alpha, beta)


@triton.jit
def _steeper(x, KIND: tl.constexpr, alpha, beta):
    return _derivative(x, KIND, alpha, beta) + 0.001


@triton.jit
def _swapped(position, size):
    """The weights of the two pixels of a sample the wrong way round."""
    low, high, first, second = _neighbours(position, size)
    return low, high, second, first


def _conv_gradients() -> float:
    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        return conv_op(*leaves, padding=1, implementation=implementation)

    return max(gradient_errors(function, [torch.randn(1, 5, 5, 6), torch.randn(6, 5, 3, 3)], "triton_product"))


def _norm_gradients() -> float:
    def function(x: torch.Tensor, implementation: str) -> torch.Tensor:
        return group_norm(x, 3, activation="silu", implementation=implementation)

    return max(gradient_errors(function, [torch.randn(2, 6, 5, 4)], "triton"))


def _error(cases: Any, implementation: str, case: Any) -> Callable[[], float]:
    return lambda: error_of(cases.OP, implementation, cases.make(case))


DEPTHWISE = _error(depthwise_cases, "triton_depthwise", depthwise_cases.Case(1, 3, (9, 11), (3, 3), padding=1))
CONV = _error(conv_cases, "triton_product", conv_cases.Case(1, 5, 7, (5, 6), (3, 3), padding=1))
TRANSPOSED = _error(transposed_cases, "triton", transposed_cases.Case((1, 3, 4, 3), 5))
SEPARABLE = _error(separable_cases, "triton", separable_cases.Case(1, 5, 6, (6, 7), middle_activation="silu"))
INVERTED = _error(inverted_cases, "triton", inverted_cases.Case(1, 3, 12, 5, (7, 6)))
NORM = _error(norm_cases, "triton", norm_cases.Case((2, 6, 5, 7)))
ROI_ALIGN = _error(roi_cases, "triton", roi_cases.Case((2, 5, 13, 17), 5, (2, 3), 0.25, 2))


@pytest.mark.parametrize(
    ("module", "name", "wrong", "error"),
    [
        (depthwise, "source", _further, DEPTHWISE),
        (depthwise, "source", _padded, DEPTHWISE),
        (depthwise, "activate", _shifted, DEPTHWISE),
        (conv, "source", _further, CONV),
        (conv, "store", _inexact, CONV),
        (conv, "source", _padded, _conv_gradients),
        (conv_weight, "source", _further, _conv_gradients),
        (conv_transpose, "store", _inexact, TRANSPOSED),
        (separable, "source", _padded, SEPARABLE),
        (separable, "activate", _shifted, SEPARABLE),
        (inverted_bottleneck, "activate", _shifted, INVERTED),
        (inverted_bottleneck, "store", _inexact, INVERTED),
        (norm, "store", _inexact, NORM),
        (norm_gradient, "derivative", _steeper, _norm_gradients),
        (roi_align, "_neighbours", _swapped, ROI_ALIGN),
    ],
)
def test_a_wrong_kernel_is_found(
    module: ModuleType, name: str, wrong: object, error: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error() <= 1e-5
    monkeypatch.setattr(module, name, wrong)
    assert error() > 3e-5
