"""depthwise: any shape, gradients, and wrong arguments."""

from __future__ import annotations

import pytest
import torch
from cases import depthwise as cases
from harness import check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.conv_packed import PackedConv
from fastnets.ops.depthwise import depthwise


@st.composite
def any_case(draw: st.DrawFn) -> cases.Case:
    axes = draw(st.integers(1, 3))
    largest = (60, 30, 12)[axes - 1]

    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, dilation, size = numbers(1, 6), numbers(1, 4), numbers(1, largest)
    padding = []
    for k, d, n in zip(kernel, dilation, size, strict=True):
        before, after = draw(st.integers(0, 7)), draw(st.integers(0, 7))
        padding.append((before, max(after, d * (k - 1) + 1 - n - before)))
    return cases.Case(
        batch=draw(st.integers(0, 2)),
        channels=draw(st.integers(1, 40)),
        size=size,
        kernel=kernel,
        stride=numbers(1, 3),
        padding=tuple(padding),
        dilation=dilation,
        multiplier=draw(st.sampled_from((1, 1, 1, 2, 3))),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(("none", "relu", "silu"))),
    )


@settings(max_examples=100, deadline=None)
@given(case=any_case(), placement=st.sampled_from(("dense", "misaligned", "slices")))
def test_any_shape(case: cases.Case, placement: str) -> None:
    assert check(cases, case, "depthwise", placement) is None


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((9, 11), (3, 3), {"padding": 1, "activation": "relu6"}),
        ((9, 11), (5, 5), {"padding": ((2, 1), (0, 3)), "stride": (2, 1)}),
        ((7, 6, 8), (3, 3, 3), {"padding": 2, "dilation": 2, "activation": "silu"}),
        ((7, 6, 8), (3, 3, 3), {"padding": 1, "stride": 2}),
    ],
)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_gradients(size: tuple[int, ...], kernel: tuple[int, ...], options: dict, multiplier: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size)
    weight, bias = torch.randn(5 * multiplier, 1, *kernel), torch.randn(5 * multiplier)
    results = []
    for dtype, implementation in ((torch.float32, "depthwise"), (torch.float64, "torch")):
        leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = depthwise(*leaves, implementation=implementation, **options)
        grad = torch.cos(torch.arange(y.numel())).view(y.shape).to(dtype)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, grad)])
    for actual, expected in zip(*results, strict=True):
        assert (actual.double() - expected).norm() <= 1e-5 * expected.norm()


def test_gradcheck_of_the_reference() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: depthwise(x, w, padding=1, dilation=2, activation="tanh"), (x, weight))


def test_packed_weights_with_folded_batch_norm() -> None:
    x, weight = torch.randn(2, 24, 9, 10), torch.randn(24, 1, 3, 3)
    scale, shift = torch.rand(24), torch.randn(24)
    packed = PackedConv(weight, shift, padding=1, groups=24, scale=scale, activation="relu")
    assert packed.prepare(x.shape).algorithm == "depthwise"
    plain = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1, groups=24)
    expected = (plain * scale.double()[:, None, None] + shift.double()[:, None, None]).relu()
    for _ in range(2):
        assert (packed(x).double() - expected).norm() <= 1e-6 * expected.norm()


def test_wrong_arguments() -> None:
    x = torch.zeros(1, 6, 5, 5)
    for weight in (torch.zeros(6, 2, 3, 3), torch.zeros(8, 1, 3, 3), torch.zeros(6, 1, 3)):
        with pytest.raises(InputError, match=r"depthwise: weight has shape .*: pass \(C \* multiplier, 1, \*kernel\)"):
            depthwise(x, weight)
    with pytest.raises(InputError, match=r"cannot run: .*needs torch\.float32"):
        depthwise(x.double(), torch.zeros(6, 1, 3, 3).double(), implementation="depthwise")
