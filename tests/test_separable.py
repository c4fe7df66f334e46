"""separable: any shape, gradients, and wrong arguments."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from cases import separable as cases
from harness import check, in_float64, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.separable import OP, PackedSeparable, separable


@st.composite
def any_case(draw: st.DrawFn) -> cases.Case:
    axes = draw(st.integers(1, 3))
    largest = (60, 30, 10)[axes - 1]

    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, dilation, size = numbers(1, 5), numbers(1, 3), numbers(1, largest)
    padding = []
    for k, d, n in zip(kernel, dilation, size, strict=True):
        before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
        padding.append((before, max(after, d * (k - 1) + 1 - n - before)))
    activations = st.sampled_from(("none", "relu", "silu"))
    stride = numbers(1, 3)
    if draw(st.integers(0, 3)) == 0:  # a scale of each pixel
        kernel, stride, padding = (1,) * axes, (1,) * axes, [(0, 0)] * axes
    return cases.Case(
        batch=draw(st.integers(0, 2)),
        cin=draw(st.integers(1, 40)),
        cout=draw(st.integers(1, 70)),
        size=size,
        kernel=kernel,
        stride=stride,
        padding=tuple(padding),
        dilation=dilation,
        multiplier=draw(st.sampled_from((1, 1, 1, 2))),
        middle=draw(st.booleans()),
        middle_activation=draw(activations),
        residual=draw(st.booleans()),
        activation=draw(activations),
        block=draw(st.sampled_from((None, 1, 20, 50))),
    )


@settings(max_examples=100, deadline=None)
@given(case=any_case(), placement=st.sampled_from(("dense", "misaligned", "slices")))
def test_any_shape(case: cases.Case, placement: str) -> None:
    assert check(cases, case, "fused", placement) is None


TENSORS = ("x", "depthwise", "pointwise", "bias", "middle_scale", "middle_bias", "residual")


@pytest.mark.parametrize(
    "case",
    [
        cases.Case(2, 5, 7, (9, 11), middle=True, middle_activation="silu", residual=True, activation="tanh"),
        cases.Case(1, 6, 20, (9, 11), stride=2, middle_activation="relu6", activation="relu"),
        cases.Case(1, 5, 18, (6, 7, 8), (3, 3, 3), padding=2, dilation=2),
    ],
    ids=lambda case: case.name,
)
def test_gradients(case: cases.Case) -> None:
    results = []
    for call, implementation in ((cases.make(case), "fused"), (in_float64(cases.make(case)), "torch")):
        tensors = {name: getattr(call, name) for name in TENSORS}
        leaves = {name: t.requires_grad_() for name, t in tensors.items() if t is not None}
        y = separable(
            **leaves,
            stride=call.window.stride,
            padding=call.window.padding,
            dilation=call.window.dilation,
            middle_activation=case.middle_activation,
            activation=case.activation,
            implementation=implementation,
        )
        grad = torch.cos(torch.arange(y.numel())).view(y.shape).to(y.dtype)
        results.append([y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad)])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) <= 1e-5


def test_packed_weights_run_on_many_inputs() -> None:
    call = cases.make(cases.Case(1, 24, 40, (9, 10), middle=True, middle_activation="relu", activation="relu6"))
    packed = PackedSeparable(
        call.depthwise,
        call.pointwise.flatten(1),
        call.bias,
        middle_scale=call.middle_scale,
        middle_bias=call.middle_bias,
        padding=1,
        middle_activation="relu",
        activation="relu6",
    )
    assert packed.bytes >= 4 * (24 * 9 + 24 * 40)
    for size in ((9, 10), (3, 4), (20, 31)):
        x = torch.randn(2, 24, *size)
        wide = torch.full((2, *size, 50), float("nan")).movedim(-1, 1)
        result = packed(x, out=wide[:, 5:45])
        values = {f.name: getattr(call, f.name) for f in fields(call)}
        expected = OP.reference(in_float64(type(call)(**{**values, "x": x})))
        assert relative_error(result, expected) <= 1e-5
        assert wide[:, :5].isnan().all()
        assert wide[:, 45:].isnan().all()


def test_wrong_arguments() -> None:
    x, depthwise, pointwise = torch.zeros(1, 6, 5, 5), torch.zeros(6, 1, 3, 3), torch.zeros(4, 6)
    for arguments, options, message in (
        ((x, depthwise[:, 0], pointwise), {}, r"depthwise has shape \(6, 3, 3\): pass \(M, 1, \*kernel\)"),
        ((x, depthwise, pointwise[:, :5]), {}, r"pointwise has shape \(4, 5\) .*: pass \(Cout, 6, 1, \.\.\.\)"),
        ((x[:, :4], depthwise, pointwise), {}, "C a divisor of 6"),
        ((x, depthwise, pointwise, torch.zeros(6)), {}, r"bias has shape \(6,\): pass \(4,\)"),
        ((x, depthwise, pointwise), {"middle_bias": torch.zeros(4)}, r"middle_bias has shape \(4,\): pass \(6,\)"),
        ((x, depthwise, pointwise), {"residual": x}, r"residual is \(1, 6, 5, 5\).*: pass \(1, 4, 3, 3\)"),
        ((x, depthwise, pointwise), {"dilation": 3}, "larger than the padded input"),
        ((x.double(), depthwise, pointwise), {}, "pass one floating-point dtype"),
    ):
        with pytest.raises(InputError, match=message):
            separable(*arguments, **options)
    with pytest.raises(InputError, match=r"cannot run: .*needs torch\.float32"):
        separable(x.double(), depthwise.double(), pointwise.double(), implementation="fused")


def test_torch_sees_an_operator() -> None:
    tensors = (torch.randn(1, 5, 6, 7), torch.randn(5, 1, 3, 3), torch.randn(4, 5), None, None, None, None)
    rest = ([1, 1], [1, 1, 1, 1], [1, 1], "relu", [], "none", [], "fused")
    torch.library.opcheck(torch.ops.fastnets.separable.default, (*tensors, *rest))
    leaves = [None if t is None else t.requires_grad_() for t in tensors]
    torch.library.opcheck(torch.ops.fastnets.separable.default, (*leaves, *rest))
