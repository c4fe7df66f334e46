"""channel_norm: what the common harness does not cover."""

import pytest
import torch
from cases import channel_norm as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops.channel_norm import layer_norm, local_response_norm, normalize, softmax

NUMBERS = {"layer": (1e-5,), "local_response": (5, 0.3, 0.75, 1.5), "softmax": (), "unit": (1e-12,)}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes, kind = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(list(NUMBERS)))
    spatial = data.draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes))
    numbers = NUMBERS[kind]
    if kind == "local_response":
        numbers = (data.draw(st.integers(1, 12)), *numbers[1:])
    shape = (data.draw(st.integers(0, 2)), data.draw(st.integers(2, 90)), *spatial)
    case = cases.Case(shape, kind, numbers, affine=kind == "layer" and data.draw(st.booleans()))
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_same_values_as_torch() -> None:
    x, weight, bias = torch.randn(2, 12, 9, 8) * 3 + 1, torch.rand(12), torch.randn(12)
    for size in range(1, 9):
        expected = functional.local_response_norm(x, size, 0.3, 0.7, 1.5)
        actual = local_response_norm(x, size, alpha=0.3, beta=0.7, k=1.5)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    last = x.movedim(1, -1)
    expected = functional.layer_norm(last, (12,), weight, bias, 1e-6).movedim(-1, 1)
    torch.testing.assert_close(layer_norm(x, weight, bias, eps=1e-6), expected, rtol=1e-5, atol=1e-5)


def test_softmax_of_extreme_values() -> None:
    x = torch.tensor([[1e4, 0.0, -1e4], [-torch.inf, 0.0, 1.0], [torch.nan, 0.0, 1.0], [88.0, 89.0, 90.0]])
    x = x.repeat(1, 7)[:, :, None]
    actual = softmax(x, implementation="native")
    torch.testing.assert_close(actual, x.softmax(1), rtol=1e-6, atol=1e-30, equal_nan=True)


def test_vectors_without_a_length() -> None:
    x = torch.randn(1, 24, 5)
    x[0, :, 1], x[0, 3, 2], x[0, 3, 3] = 0, torch.nan, torch.inf
    torch.testing.assert_close(normalize(x, implementation="native"), functional.normalize(x, dim=1), equal_nan=True)


def test_gradient() -> None:
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64).requires_grad_()
    weight, bias = torch.rand(2, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer_norm, (x, weight, bias))
    assert torch.autograd.gradcheck(softmax, x)
    assert torch.autograd.gradcheck(lambda v: local_response_norm(v, 3, alpha=0.5), x)
    fast = x.detach().float().requires_grad_()
    for function in (layer_norm, softmax, lambda v: local_response_norm(v, 3, alpha=0.5)):
        (expected,) = torch.autograd.grad(function(x).sin().sum(), x)
        (actual,) = torch.autograd.grad(function(fast).sin().sum(), fast)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x = torch.zeros(2, 4, 8, 8)
    for call, message in (
        (lambda: layer_norm(x, torch.zeros(3)), r"weight has shape \(3,\): pass \(4,\)"),
        (lambda: local_response_norm(x, 0), "size is 0: pass 1 or more"),
        (lambda: softmax(x[0, 0]), "1 to 3 spatial axes"),
        (lambda: layer_norm(x, activation="square"), "activation is 'square'"),
        (lambda: softmax(x.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x = torch.randn(1, 4, 5, 3).to(memory_format=torch.channels_last)
    operator = torch.ops.fastnets.channel_norm.default
    torch.library.opcheck(operator, (x, "softmax", [], None, None, "none", [], None))
    torch.library.opcheck(operator, (x.requires_grad_(), "layer", [1e-5], torch.ones(4), None, "relu", [], None))
