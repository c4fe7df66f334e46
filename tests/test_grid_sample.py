"""grid_sample: what the common harness does not cover."""

import pytest
import torch
from cases import grid_sample as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.grid_sample import PADDINGS, grid_sample


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(2, 3))
    sizes = st.lists(st.integers(1, 9), min_size=axes, max_size=axes)
    shape = (data.draw(st.integers(0, 2)), data.draw(st.integers(1, 70)), *data.draw(sizes))
    padding = data.draw(st.sampled_from(PADDINGS))
    case = cases.Case(shape, tuple(data.draw(sizes)), "linear", padding, data.draw(st.booleans()))
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_positions_without_a_pixel() -> None:
    x = torch.ones(1, 3, 4, 4)
    for value in (torch.nan, torch.inf, -torch.inf, 1e30):
        grid = torch.full((1, 2, 2, 2), value)
        assert not grid_sample(x, grid, implementation="native").any()
        for padding in ("border", "reflection"):
            assert grid_sample(x, grid, padding=padding, implementation="native").isfinite().all()


def test_gradient() -> None:
    call = cases.make(cases.Case((1, 2, 4, 3), (2, 3)))
    exact = [call.x.double().requires_grad_(), call.grid.movedim(1, -1).double().requires_grad_()]
    assert torch.autograd.gradcheck(grid_sample, exact)
    fast = [v.detach().float().requires_grad_() for v in exact]
    expected, actual = (torch.autograd.grad(grid_sample(*v).sin().sum(), v) for v in (exact, fast))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, grid = torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 3, 2)
    for call, message in (
        (lambda: grid_sample(x, grid[..., :1]), r"pass torch.float32 \(1, \*out, 2\)"),
        (lambda: grid_sample(x[0], grid), "2 or 3 spatial axes"),
        (lambda: grid_sample(x, grid, mode="cubic"), "mode is 'cubic'"),
        (lambda: grid_sample(x.double(), grid.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    call = cases.make(cases.Case((1, 2, 4, 3), (2, 3)))
    operator = torch.ops.fastnets.grid_sample.default
    torch.library.opcheck(operator, (call.x.requires_grad_(), call.grid, "linear", "zeros", True, None))
