"""norm: what the common harness does not cover."""

import pytest
import torch
from cases import norm as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops.epilogue import ACTIVATIONS
from fastnets.ops.norm import batch_norm, group_norm, instance_norm, moments


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes, size, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24)), data.draw(st.integers(1, 4))
    spatial = data.draw(st.lists(st.integers(2, 13), min_size=axes, max_size=axes))
    case = cases.Case(
        shape=(data.draw(st.integers(0, 2)), size * groups, *spatial),
        groups=groups,
        affine=data.draw(st.booleans()),
        given=data.draw(st.sampled_from(["", "image", "batch"])),
        residual=data.draw(st.booleans()),
        activation=data.draw(st.sampled_from(ACTIVATIONS)),
    )
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_same_values_as_torch() -> None:
    x, weight, bias = torch.randn(2, 12, 9, 8) * 3 + 1, torch.rand(12), torch.randn(12)
    for groups in (1, 3, 12):
        expected = functional.group_norm(x, groups, weight, bias, 1e-3)
        torch.testing.assert_close(group_norm(x, groups, weight, bias, eps=1e-3), expected, rtol=1e-5, atol=1e-5)
    expected = functional.instance_norm(x, weight=weight, bias=bias)
    torch.testing.assert_close(instance_norm(x, weight, bias), expected, rtol=1e-5, atol=1e-5)
    mean, variance = torch.randn(12), torch.rand(12)
    expected = functional.batch_norm(x, mean, variance, weight, bias)
    torch.testing.assert_close(batch_norm(x, mean, variance, weight, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(37, 41), (300, 250), (9, 50, 60)])
@pytest.mark.parametrize("mean", [0.0, 1e4, -1e6])
def test_moments_do_not_depend_on_the_mean(size: tuple[int, ...], mean: float) -> None:
    x = torch.randn(2, 21, *size, generator=torch.Generator().manual_seed(0)) + mean
    x[0, 3], x[0, 4, 0, 0] = mean, mean + 1000  # a constant channel; a first pixel far from the others
    flat = x.double().flatten(2)
    expected = torch.stack([flat.mean(-1), flat.var(-1, correction=0)], dim=-1)
    actual = moments(x)
    deviation = expected[..., 1].sqrt().clamp(min=1e-6 + 1e-9 * abs(mean))
    assert ((actual[..., 0] - expected[..., 0]).abs() / deviation).max() < 1e-6
    torch.testing.assert_close(actual[..., 1], expected[..., 1], rtol=1e-5, atol=0)
    torch.testing.assert_close(moments(x.double()), expected)


def test_moments_of_the_caller_change_nothing() -> None:
    x = torch.randn(2, 12, 9, 8) + 100
    for groups in (1, 4, 12):
        assert torch.equal(group_norm(x, groups, moments=moments(x)), group_norm(x, groups))


def test_nan_spoils_only_its_channel() -> None:
    x = torch.randn(2, 21, 9, 8)
    x[1, 3, 4, 4] = float("nan")
    y = instance_norm(x, activation="relu", implementation="native")
    assert y[1, 3].isnan().all()
    assert int(y.isnan().sum()) == 9 * 8


def test_gradient() -> None:
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64).requires_grad_()
    weight, bias = torch.rand(2, 4, dtype=torch.float64).requires_grad_()
    residual = torch.randn_like(x).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, b, r: group_norm(x, 2, w, b, residual=r, activation="silu"), (x, weight, bias, residual)
    )
    assert torch.autograd.gradgradcheck(lambda x, w: group_norm(x, 2, w, w * 2, activation="silu"), (x, weight))
    exact = [x, weight, bias, residual]
    fast = [v.detach().float().requires_grad_() for v in exact]
    gradients = []
    for values in (exact, fast):
        y = group_norm(*values[:1], 2, *values[1:3], residual=values[3], activation="silu")
        gradients.append(torch.autograd.grad(y.sin().sum(), values))
    for actual, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, vector = torch.zeros(2, 4, 8, 8), torch.zeros(4)
    for call, message in (
        (lambda: group_norm(x, 3), "groups is 3: pass a divisor of the channels, 4"),
        (lambda: instance_norm(x, vector[:3]), r"weight has shape \(3,\): pass \(4,\)"),
        (
            lambda: instance_norm(x, moments=torch.zeros(3, 4, 2)),
            r"moments has shape \(3, 4, 2\): pass \(2 or 1, 4, 2\)",
        ),
        (lambda: instance_norm(x, residual=x[:1]), "residual has shape"),
        (lambda: batch_norm(x, vector, vector[:1]), "variance"),
        (lambda: instance_norm(x, activation="square"), "activation is 'square'"),
        (lambda: instance_norm(x.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x = torch.randn(1, 4, 5, 3).to(memory_format=torch.channels_last)
    rest = None, None, None, 1e-5, "relu", [], None
    torch.library.opcheck(torch.ops.fastnets.norm.default, (x, 2, None, *rest))
    torch.library.opcheck(torch.ops.fastnets.norm.default, (x.requires_grad_(), 2, torch.ones(4), *rest))
