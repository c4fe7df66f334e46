"""The values of the Triton kernels of convolutions: with TRITON_INTERPRET=1 in Python on the CPU, else on a GPU.

test_kernels_values.py starts the first as a process, bench/gpu.sh the second.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import conv as conv_cases
from cases import conv_transpose as transposed_cases
from cases import depthwise as depthwise_cases
from cases import inverted_bottleneck as inverted_cases
from cases import separable as separable_cases
from harness import relative_error
from kernel_harness import DEVICE, INTERPRETED, TOLERANCE, converted, error_of, gradient_errors, on_device

from fastnets.ops import gpu
from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.depthwise import depthwise
from fastnets.ops.inverted_bottleneck import inverted_bottleneck
from fastnets.ops.separable import separable

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


INVERTED = [
    inverted_cases.Case(2, 5, 24, 7, (9, 11), activations=("relu6", "relu6", "none")),
    inverted_cases.Case(1, 20, 70, 20, (10, 7), (5, 5), padding=2, residual=True, activations=("silu", "silu", "none")),
    inverted_cases.Case(
        1, 7, 40, 70, (18, 19), stride=2, padding=((1, 2), (0, 1)), activations=("gelu", "none", "relu")
    ),
    inverted_cases.Case(1, 8, 20, 12, (12, 9), (1, 3), stride=(3, 2), padding=(0, 4), biases=False),
    inverted_cases.Case(0, 16, 32, 8, (9, 9)),
]


@pytest.mark.parametrize("case", INVERTED, ids=lambda case: case.name)
def test_inverted_bottleneck(case: inverted_cases.Case) -> None:
    assert error_of(inverted_cases.OP, "triton", inverted_cases.make(case)) <= 1e-5


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_inverted_bottleneck_in_16_bits(dtype: torch.dtype) -> None:
    call = converted(inverted_cases.make(INVERTED[1]), dtype)
    assert error_of(inverted_cases.OP, "triton", call) <= TOLERANCE[dtype]


def test_inverted_bottleneck_gradients() -> None:
    """The convolutions run again: what lies between them was not kept."""
    leaves = [torch.randn(*shape) for shape in ((1, 4, 7, 6), (9, 4), (9, 1, 3, 3), (5, 9), (5,), (9,), (1, 5, 4, 3))]

    def function(*leaves: torch.Tensor, implementation: str) -> torch.Tensor:
        *first, expand_bias, residual = leaves
        options: dict[str, Any] = {"expand_activation": "silu", "middle_activation": "silu", "stride": 2, "padding": 1}
        return inverted_bottleneck(
            *first, expand_bias=expand_bias, residual=residual, implementation=implementation, **options
        )

    assert max(gradient_errors(function, leaves, "triton")) <= 1e-5


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


def test_refusals() -> None:
    call = on_device(depthwise_cases.make(depthwise_cases.Case(1, 4, (5, 5), (3, 3), multiplier=2)))
    (triton_depthwise,) = (i for i in depthwise_cases.OP.implementations if i.name == "triton_depthwise")
    assert "it needs one to one" in str(triton_depthwise.can_run(call))
    call = on_device(depthwise_cases.make(DEPTHWISE[0]))
    assert "it needs torch.float32, float16 or bfloat16" in str(gpu.refusal(converted(call, torch.float64)))
    assert isinstance(call, ConvCall)
    elsewhere = ConvCall(**{**vars(call), "bias": torch.empty(3, device="meta")})
    assert "it needs one device" in str(gpu.refusal(elsewhere))
