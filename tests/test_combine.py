"""combine: what the common harness does not cover."""

import pytest
import torch
from cases import combine as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops.combine import add, multiply, prelu
from fastnets.ops.epilogue import ACTIVATIONS


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    spatial = data.draw(st.lists(st.integers(1, 11), min_size=axes, max_size=axes))
    shape = (data.draw(st.integers(0, 2)), data.draw(st.integers(1, 70)), *spatial)
    other = tuple(data.draw(st.sampled_from([1, size])) for size in shape)
    case = cases.Case(shape, other, data.draw(st.sampled_from(cases.KINDS)), data.draw(st.sampled_from(ACTIVATIONS)))
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_prelu_equals_torch() -> None:
    x, weight = torch.randn(2, 21, 9, 8), torch.randn(21)
    assert torch.equal(prelu(x, weight, implementation="native"), functional.prelu(x, weight))
    assert torch.equal(prelu(x, weight[:1], implementation="native"), functional.prelu(x, weight[:1]))


def test_gradient() -> None:
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64).requires_grad_()
    other = torch.randn(2, 3, 1, 1, dtype=torch.float64).requires_grad_()
    for function in (add, multiply):
        assert torch.autograd.gradcheck(lambda *v, f=function: f(*v, activation="silu"), (x, other))
    assert torch.autograd.gradcheck(prelu, (x, other.detach()[0, :, 0, 0].requires_grad_()))
    exact, fast = [x, other], [v.detach().float().requires_grad_() for v in (x, other)]
    expected, actual = (torch.autograd.grad(multiply(*v).sin().sum(), v) for v in (exact, fast))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x = torch.zeros(2, 4, 8, 8)
    for call, message in (
        (lambda: add(x, x[0]), r"other is torch.float32 of shape \(4, 8, 8\): pass torch.float32 with, along"),
        (lambda: add(x, x[:, :2]), "or 1"),
        (lambda: add(x, x.double()), "other is torch.float64"),
        (lambda: prelu(x, x), "weight of prelu"),
        (lambda: multiply(x, x, activation="square"), "activation is 'square'"),
        (lambda: add(x.double(), x.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x = torch.randn(1, 4, 5, 3).to(memory_format=torch.channels_last)
    operator = torch.ops.fastnets.combine.default
    torch.library.opcheck(operator, (x, x[:, :, :1], "add", "none", [], None))
    torch.library.opcheck(operator, (x.requires_grad_(), torch.randn(1, 4, 1, 1), "multiply", "relu", [], None))
