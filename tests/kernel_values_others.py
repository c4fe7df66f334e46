"""As kernel_values.py, of the kernels that are no convolutions."""

from __future__ import annotations

import math

import pytest
import torch
from cases import activation as activation_cases
from cases import nms as nms_cases
from cases import norm as norm_cases
from cases import roi_align as roi_cases
from cases import window_accumulate as window_cases
from harness import in_float64, place, relative_error
from kernel_harness import DEVICE, TOLERANCE, converted, error_of, gradient_errors, on_device

from fastnets.ops.epilogue import ACTIVATIONS
from fastnets.ops.norm import group_norm
from fastnets.ops.resize_argmax import OP as RESIZE_ARGMAX
from fastnets.ops.resize_argmax import ResizeArgmaxCall
from fastnets.ops.window_accumulate import reference as windows_reference
from fastnets.ops.window_accumulate import window_accumulate

NORM = [
    norm_cases.Case((2, 21, 9, 7), affine=False),
    norm_cases.Case((1, 70, 12, 13), mean=-3e4),
    norm_cases.Case((1, 5, 4, 5, 6), mean=1000, residual=True, activation="elu"),
    norm_cases.Case((2, 24, 9, 7), groups=8, activation="relu"),
    norm_cases.Case((1, 24, 5, 7), groups=1, mean=1000),
    norm_cases.Case((2, 12, 9, 7), groups=3, given="image", residual=True),
    norm_cases.Case((3, 70, 5, 4), given="batch", mean=1000, activation="relu6"),
    norm_cases.Case((1, 2, 130, 150)),
]


@pytest.mark.parametrize("case", NORM, ids=lambda case: case.name)
def test_norm(case: norm_cases.Case) -> None:
    assert error_of(norm_cases.OP, "triton", norm_cases.make(case)) <= 2e-6


def test_norm_in_16_bits() -> None:
    call = converted(norm_cases.make(NORM[3]), torch.bfloat16)
    assert error_of(norm_cases.OP, "triton", call) <= TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_norm_gradients(activation: str) -> None:
    leaves = [torch.randn(2, 6, 5, 4), torch.rand(6) + 0.5, torch.randn(6), torch.randn(2, 6, 5, 4)]

    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        x, weight, bias, residual = leaves
        return group_norm(x, 3, weight, bias, residual=residual, activation=activation, implementation=implementation)

    assert max(gradient_errors(function, leaves, "triton")) <= 1e-5


POINTWISE = [
    activation_cases.Case((2, 21, 9, 7), "relu", terms=True),
    activation_cases.Case((1, 130, 3, 2, 5), "silu", terms=True, wide=True),
    activation_cases.Case((3, 7, 5), "leaky", (0.2,)),
    activation_cases.Case((0, 3, 4), "relu"),
]


@pytest.mark.parametrize("case", POINTWISE, ids=lambda case: case.name)
def test_activation(case: activation_cases.Case) -> None:
    assert error_of(activation_cases.OP, "triton", activation_cases.make(case)) <= 1e-6


def test_activation_in_16_bits_in_place() -> None:
    call = on_device(converted(activation_cases.make(POINTWISE[0]), torch.bfloat16))
    expected = activation_cases.OP.reference(in_float64(call))
    out = activation_cases.OP(type(call)(**{**vars(call), "out": call.x}), "triton")
    assert out is call.x
    assert relative_error(out, expected) <= TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize(
    ("shape", "size", "align_corners"),
    [
        ((2, 5, 4, 7), (9, 13), False),
        ((1, 40, 6, 5), (6, 11), True),
        ((1, 3, 3, 4, 5), (5, 4, 9), False),
        ((2, 21, 9, 8), (9, 8), False),
        ((1, 1, 7), (9,), False),
    ],
)
def test_resize_argmax(shape: tuple[int, ...], size: tuple[int, ...], align_corners: bool) -> None:
    x = place(torch.randn(shape, device=DEVICE), "slices")
    chosen = RESIZE_ARGMAX.choose(ResizeArgmaxCall(x, size, align_corners), "triton")
    actual = chosen.run(ResizeArgmaxCall(x, size, align_corners))
    assert actual.dtype == torch.uint8
    assert torch.equal(actual, RESIZE_ARGMAX.reference(ResizeArgmaxCall(x.double(), size, align_corners)))


ROI = [
    roi_cases.Case((2, 20, 13, 17), 5, (2, 2), 0.25, samples, aligned)
    for samples, aligned in ((0, False), (2, False), (0, True))
]


@pytest.mark.parametrize("case", [*ROI, roi_cases.Case((1, 5, 8, 8), 0, (7, 7))], ids=lambda case: case.name)
def test_roi_align(case: roi_cases.Case) -> None:
    assert error_of(roi_cases.OP, "triton", roi_cases.make(case)) <= 1e-5


@pytest.mark.parametrize("case", nms_cases.CASES, ids=lambda case: case.name)
def test_nms(case: nms_cases.Case) -> None:
    call = on_device(nms_cases.make(case))
    assert torch.equal(nms_cases.OP(call, "triton"), nms_cases.OP.reference(in_float64(call)))


WINDOWS = [case for case in window_cases.CASES if case.channels * math.prod(case.size) < 4000]


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: case.name)
def test_window_accumulate(case: window_cases.Case) -> None:
    a = window_cases.make(case)
    expected = windows_reference(a.out, a.windows, a.starts, a.weights, floor=a.floor)
    assert a.out._base is not None
    frame = a.out._base.to(DEVICE)  # whole, and so are its strides
    out = frame.as_strided(a.out.shape, a.out.stride(), a.out.storage_offset())
    outside = int(frame.isnan().sum())
    window_accumulate(out, a.windows.to(DEVICE), a.starts, a.weights, floor=a.floor, implementation="triton")
    assert relative_error(out.cpu(), expected) <= 1e-6
    assert int(frame.isnan().sum()) == outside
