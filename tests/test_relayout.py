"""relayout: exactness, gradients, slices and errors; values over cases are checked by tests/test_ops.py."""

import pytest
import torch

from fastnets.errors import InputError
from fastnets.ops.relayout import relayout, relayout_into


def test_rounds_as_torch_does() -> None:
    """Ties, the largest finite value, infinities and NaN; denormals may become 0."""
    special = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, float("inf"), -float("inf"), float("nan"), 0.0, -0.0]
    x = torch.tensor(special * 7).view(1, 2, 5, 7)
    expected = x.to(torch.bfloat16)
    actual = relayout(x, dtype=torch.bfloat16, implementation="native")
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual.nan_to_num(7), expected.nan_to_num(7))
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.equal(actual.signbit()[~x.isnan()], expected.signbit()[~x.isnan()])
    back = relayout(actual, dtype=torch.float32, channels_last=False, implementation="native")
    assert back.is_contiguous()
    assert torch.equal(back.nan_to_num(7), expected.float().nan_to_num(7))


def test_gradient_goes_back_in_the_dtype_of_x() -> None:
    x = torch.randn(1, 3, 5, 6, requires_grad=True)
    y = relayout(x, dtype=torch.bfloat16)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert grad.dtype == torch.float32
    assert torch.equal(grad, torch.ones_like(x))


def test_into_a_slice() -> None:
    x = torch.randn(2, 5, 6, 7)
    wide = torch.full((2, 6, 7, 9), float("nan"), dtype=torch.bfloat16).movedim(-1, 1)
    relayout_into(x, wide[:, 2:7])
    assert torch.equal(wide[:, 2:7], x.bfloat16())
    assert bool(wide[:, :2].isnan().all())
    assert bool(wide[:, 7:].isnan().all())


def test_wrong_arguments_are_named() -> None:
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"relayout: out has shape \(1, 3, 4\): pass \(1, 3, 4, 4\)"):
        relayout_into(x, x[..., 0])
    with pytest.raises(InputError, match=r"relayout: an argument is torch.float64"):
        relayout_into(x.double(), x)
    with pytest.raises(InputError, match=r"x has shape \(4,\)"):
        relayout(x[0, 0, 0])
