"""linear: what the common harness does not cover."""

import pytest
import torch
from cases import linear as cases
from harness import check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops.linear import PackedLinear, linear


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    rows = tuple(data.draw(st.lists(st.integers(0, 20), max_size=3)))
    sizes = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    case = cases.Case(rows, *sizes, data.draw(st.sampled_from(["none", "relu", "silu"])), data.draw(st.booleans()))
    assert check(cases, case, "native", data.draw(st.sampled_from(["dense", "misaligned", "slices"]))) is None


def test_packed_weights() -> None:
    x, weight, bias = torch.randn(9, 40), torch.randn(13, 40), torch.randn(13)
    expected = functional.linear(x, weight, bias).relu()
    torch.testing.assert_close(PackedLinear(weight.clone(), bias, activation="relu")(x), expected, rtol=1e-5, atol=1e-5)
    wide = torch.randn(9, 80)[:, ::2]
    torch.testing.assert_close(PackedLinear(weight)(wide), functional.linear(wide, weight), rtol=1e-5, atol=1e-5)


def test_gradient() -> None:
    values = [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((3, 4), (5, 4), (5,))]
    assert torch.autograd.gradcheck(lambda *v: linear(*v, activation="silu"), values)
    fast = [v.detach().float().requires_grad_() for v in values]
    expected, actual = (torch.autograd.grad(linear(*v).sin().sum(), v) for v in (values, fast))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, weight = torch.zeros(2, 4), torch.zeros(3, 4)
    for call, message in (
        (lambda: linear(x, weight[:, :2]), r"x has shape \(2, 4\) and weight \(3, 2\): pass"),
        (lambda: linear(x, weight, torch.zeros(4)), r"bias has shape \(4,\): pass \(3,\)"),
        (lambda: linear(x.long(), weight), "floating-point"),
        (lambda: PackedLinear(weight.double()), "cannot be packed"),
        (lambda: linear(x.double(), weight.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    operator = torch.ops.fastnets.linear.default
    torch.library.opcheck(operator, (x, weight, None, "none", [], None))
    torch.library.opcheck(operator, (x.requires_grad_(), weight.requires_grad_(), torch.ones(5), "relu", [], None))
