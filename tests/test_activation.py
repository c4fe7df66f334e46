"""activation: what the common harness does not cover."""

import pytest
import torch
from cases import activation as cases
from harness import check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.activation import activation
from fastnets.ops.epilogue import ACTIVATIONS, activation_of


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(1, 40)), *sizes)
    terms = data.draw(st.booleans())
    case = cases.Case(shape, data.draw(st.sampled_from(ACTIVATIONS)), terms=terms, wide=data.draw(st.booleans()))
    # Slices without terms are refused where they are neither pixels nor dense.
    assert check(cases, case, "native", data.draw(st.sampled_from(["dense", "misaligned"]))) is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extreme_values(name: str) -> None:
    x = torch.tensor([-1e4, -100.0, -88.0, -20.0, -1e-4, -1e-30, 0.0, 1e-30, 1e-4, 20.0, 88.0, 100.0, 1e4])
    expected = activation_of("test", name)(x.double())
    actual = activation(x, name, implementation="native").double()
    # 1.5e-7 |v| for gelu; 2^-126 instead of 0 where exp saturates
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_near_zero_to_relative_accuracy(name: str) -> None:
    x = torch.linspace(-0.7, 0.7, 1001)
    expected = activation_of("test", name)(x.double())
    actual = activation(x, name, implementation="native").double()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays(name: str) -> None:
    assert activation(torch.full((19,), float("nan")), name, implementation="native").isnan().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient(name: str) -> None:
    x = torch.randn(40, dtype=torch.float64).requires_grad_()
    kind = activation_of("test", name)
    (expected,) = torch.autograd.grad(kind(x).sum(), x)
    (actual,) = torch.autograd.grad(activation(x, name).sum(), x)
    assert torch.equal(actual, expected)
    fast = x.detach().float().requires_grad_()
    (actual,) = torch.autograd.grad(activation(fast, name, implementation="native").sum(), fast)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


def test_refusals_and_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"'native' cannot run: .*float64"):
        activation(torch.zeros(3).double(), "relu", implementation="native")
    with pytest.raises(InputError, match="needs dense memory"):
        activation(torch.zeros(6)[::2], "relu", implementation="native")
    with pytest.raises(InputError, match="pass one of none, relu"):
        activation(torch.zeros(3), "square")
    with pytest.raises(InputError, match="came with 2 parameters: pass 1"):
        activation(torch.zeros(3), "leaky", parameters=(1, 2))


def test_torch_sees_an_operator() -> None:
    x = torch.randn(2, 5, 4, 3)
    torch.library.opcheck(torch.ops.fastnets.activation.default, (x, "relu", [], None))
    torch.library.opcheck(torch.ops.fastnets.activation.default, (x.requires_grad_(), "silu", [], None))
