"""The values of the Triton kernels: with TRITON_INTERPRET=1 in Python on the CPU, else on a GPU.

test_kernels_values.py starts the first as a process, bench/gpu.sh the second.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from cases import activation as activation_cases
from cases import conv as conv_cases
from cases import conv_transpose as transposed_cases
from cases import depthwise as depthwise_cases
from cases import nms as nms_cases
from cases import norm as norm_cases
from cases import roi_align as roi_cases
from cases import separable as separable_cases
from cases import window_accumulate as window_cases
from fastnets.kernels import depthwise as depthwise_kernels
from harness import in_float64, place, placed, relative_error

from fastnets.ops import gpu
from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.depthwise import depthwise
from fastnets.ops.epilogue import ACTIVATIONS
from fastnets.ops.norm import group_norm
from fastnets.ops.resize_argmax import OP as RESIZE_ARGMAX
from fastnets.ops.resize_argmax import ResizeArgmaxCall
from fastnets.ops.separable import separable
from fastnets.ops.window_accumulate import reference as windows_reference
from fastnets.ops.window_accumulate import window_accumulate

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


DEPTHWISE = [
    depthwise_cases.Case(1, 3, (9, 11), (3, 3), padding=1, activation="relu6"),
    depthwise_cases.Case(2, 21, (6, 5), (3, 3), stride=2, padding=1, residual=True),
    depthwise_cases.Case(1, 33, (5, 3), (7, 7), padding=3, activation="silu"),
    depthwise_cases.Case(1, 4, (9, 7), (3, 3), padding=((2, 0), (0, 3)), dilation=(2, 3)),
    depthwise_cases.Case(1, 5, (2, 3, 4), (3, 3, 3), padding=1, activation="gelu"),
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
    x, weight, bias = torch.randn(1, 5, 4, 5), torch.randn(5, 1, 3, 3), torch.randn(5)

    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        return depthwise(*leaves, **options, activation="silu", implementation=implementation)

    assert max(gradient_errors(function, [x, weight, bias], "triton_depthwise")) <= 1e-5


_right = depthwise_kernels.source


@triton.jit
def _wrong(position, k, STRIDE: tl.constexpr, STEP: tl.constexpr, before, size, TRANSPOSED: tl.constexpr):
    return _right(position + 1, k, STRIDE, STEP, before, size, TRANSPOSED)


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel keeps the functions that it was compiled with")
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads a pixel further: the check of the others sees it."""
    call = depthwise_cases.make(DEPTHWISE[0])
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) <= 1e-5
    monkeypatch.setattr(depthwise_kernels, "source", _wrong)
    assert error_of(depthwise_cases.OP, "triton_depthwise", call) > 0.1


CONV = [
    conv_cases.Case(1, 21, 33, (9, 7), (3, 3), padding=1, residual=True, activation="relu"),
    conv_cases.Case(2, 3, 5, (9, 8), (5, 4), stride=2, padding=((1, 2), (3, 0))),
    conv_cases.Case(1, 16, 24, (7, 9), (3, 3), padding=4, dilation=4, activation="silu"),
    conv_cases.Case(1, 24, 40, (5, 6), (3, 3), padding=1, groups=2, stride=(2, 1)),
    conv_cases.Case(1, 16, 8, (5, 6), (3, 3), padding=1, groups=8, residual=True),
    conv_cases.Case(1, 1, 16, (5, 6, 4), (3, 3, 3), padding=1),
    conv_cases.Case(1, 32, 17, (3, 4, 5), (3, 3, 3), padding=2, dilation=2),
    conv_cases.Case(0, 16, 8, (9, 9), (3, 3), padding=1),
]


@pytest.mark.parametrize("case", CONV, ids=lambda case: case.name)
def test_conv(case: conv_cases.Case) -> None:
    assert error_of(conv_cases.OP, "triton_product", conv_cases.make(case)) <= 1e-5


PRODUCTS = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
"""The interpreter has no products of bfloat16."""


@pytest.mark.parametrize("dtype", PRODUCTS)
@pytest.mark.parametrize("case", CONV[1:3], ids=lambda case: case.name)
def test_conv_in_16_bits(case: conv_cases.Case, dtype: torch.dtype) -> None:
    assert error_of(conv_cases.OP, "triton_product", converted(conv_cases.make(case), dtype)) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        ((5, 6), {"padding": 1, "activation": "tanh"}),
        ((20, 17), {"stride": 2, "padding": (1, 0)}),
        ((12, 8), {"dilation": 2, "padding": 3, "groups": 2}),
    ],
)
def test_conv_gradients(channels: tuple[int, int], options: dict[str, Any]) -> None:
    inputs, outputs = channels
    weight = torch.randn(outputs, inputs // options.get("groups", 1), 3, 3)

    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        return conv(*leaves, **options, implementation=implementation)

    assert max(gradient_errors(function, [torch.randn(1, inputs, 5, 6), weight], "triton_product")) <= 1e-5


SEPARABLE = [
    separable_cases.Case(2, 21, 24, (6, 7), middle=True, middle_activation="relu6", activation="relu6"),
    separable_cases.Case(1, 40, 72, (7, 6), stride=2, middle=True, middle_activation="silu", residual=True),
    separable_cases.Case(1, 16, 20, (9, 8), (5, 5), padding=4, dilation=2, activation="leaky"),
    separable_cases.Case(1, 18, 7, (4, 3, 5), (3, 3, 3), middle_activation="relu"),
    separable_cases.Case(0, 16, 8, (9, 9)),
]


@pytest.mark.parametrize("case", SEPARABLE, ids=lambda case: case.name)
def test_separable(case: separable_cases.Case) -> None:
    assert error_of(separable_cases.OP, "triton", separable_cases.make(case)) <= 1e-5


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_separable_in_16_bits(dtype: torch.dtype) -> None:
    call = converted(separable_cases.make(SEPARABLE[0]), dtype)
    assert error_of(separable_cases.OP, "triton", call) <= TOLERANCE[dtype]


def test_separable_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two convolutions run again, by their own kernels, and so do their gradients."""
    monkeypatch.setenv("FASTNETS_FORCE_IMPL", "conv=triton_product")
    leaves = [torch.randn(1, 6, 4, 5), torch.randn(6, 1, 3, 3), torch.randn(7, 6)]
    results = []
    for dtype, name in ((torch.float32, "triton"), (torch.float64, "torch")):
        own = [leaf.to(DEVICE, dtype).requires_grad_() for leaf in leaves]
        if dtype == torch.float64:
            monkeypatch.delenv("FASTNETS_FORCE_IMPL")
        y = separable(*own, padding=1, middle_activation="relu", implementation=name)
        results.append(torch.autograd.grad(y.sin().sum(), own))
    assert max(relative_error(a, b) for a, b in zip(*results, strict=True)) <= 1e-5


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


TRANSPOSED = [
    transposed_cases.Case((2, 20, 5, 3), 17, residual=True, activation="relu"),
    transposed_cases.Case((1, 3, 2, 3, 4), 5),
    transposed_cases.Case((2, 17, 7), 33, activation="silu"),
    transposed_cases.Case((1, 6, 3, 2), 5, kernel=4, stride=4),
    transposed_cases.Case((0, 4, 6, 6), 5),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=lambda case: case.name)
def test_conv_transpose(case: transposed_cases.Case) -> None:
    assert error_of(transposed_cases.OP, "triton", transposed_cases.make(case)) <= 2e-6


def test_conv_transpose_refuses_overlaps() -> None:
    call = on_device(transposed_cases.make(transposed_cases.Case((1, 20, 7, 8), 12, kernel=4, padding=1)))
    (kernel,) = (i for i in transposed_cases.OP.implementations if i.name == "triton")
    assert "it needs a kernel of the size of the stride" in str(kernel.can_run(call))


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
    roi_cases.Case((2, 20, 13, 17), 3, (2, 3), 0.25, samples, aligned)
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


def test_refusals() -> None:
    call = on_device(depthwise_cases.make(depthwise_cases.Case(1, 4, (5, 5), (3, 3), multiplier=2)))
    (triton_depthwise,) = (i for i in depthwise_cases.OP.implementations if i.name == "triton_depthwise")
    assert "it needs one to one" in str(triton_depthwise.can_run(call))
    call = on_device(depthwise_cases.make(DEPTHWISE[0]))
    assert "it needs torch.float32, float16 or bfloat16" in str(gpu.refusal(converted(call, torch.float64)))
    assert isinstance(call, ConvCall)
    elsewhere = ConvCall(**{**vars(call), "bias": torch.empty(3, device="meta")})
    assert "it needs one device" in str(gpu.refusal(elsewhere))
