"""pool: what the common harness does not cover."""

import pytest
import torch
from cases import pool as cases
from harness import PLACEMENTS, check
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.pool import avg_pool, global_avg_pool, global_max_pool, max_pool


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 13), min_size=axes, max_size=axes)
    window = data.draw(st.integers(1, 5))
    kind = data.draw(st.sampled_from(["max", "avg"]))
    case = cases.Case(
        shape=(data.draw(st.integers(0, 2)), data.draw(st.integers(1, 70)), *data.draw(sizes)),
        kind=kind,
        window=window,
        stride=data.draw(st.integers(1, 6)),
        padding=data.draw(st.integers(0, window // 2)),
        dilation=data.draw(st.integers(1, 3)) if kind == "max" else 1,
        ceil_mode=data.draw(st.booleans()),
        count_include_pad=data.draw(st.booleans()),
        divisor=data.draw(st.sampled_from([0, 3])),
    )
    assume(kind == "max" or axes < 3 or min(case.shape[2:]) >= window)
    call = cases.make(case)
    assume(min(call.shape[2:]) >= 1 and cases.OP.reference(call).isfinite().all())
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


@pytest.mark.parametrize("channels", [1, 5, 64, 70])
@pytest.mark.parametrize("window", [2, 3, 8])
def test_maximum_keeps_nan_and_infinity(channels: int, window: int) -> None:
    x = torch.randn(2, channels, 8, 8)
    x[0, :, 3, 4], x[0, 0, 0, 0], x[1, :, 5, 5], x[1, :, :2, :2] = float("nan"), float("nan"), torch.inf, -torch.inf
    for values in (x, -x):
        actual = max_pool(values, window, stride=1, implementation="native")
        expected = max_pool(values, window, stride=1, implementation="torch")
        assert torch.equal(actual.nan_to_num(nan=1e9), expected.nan_to_num(nan=1e9))


def test_windows_that_hold_only_padding() -> None:
    x = torch.randn(1, 5, 2, 2)
    options = {"stride": 1, "padding": 1, "dilation": 3}
    actual = max_pool(x, 2, implementation="native", **options)
    assert torch.equal(actual, max_pool(x, 2, implementation="torch", **options))
    assert (actual == -torch.inf).any()


def test_global_average_of_many_pixels_is_exact() -> None:
    x = torch.randn(1, 3, 1100, 1000, generator=torch.Generator().manual_seed(0)) + 1000
    actual, expected = global_avg_pool(x, implementation="native"), x.double().mean((2, 3), keepdim=True)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(global_max_pool(x, implementation="native"), x.amax((2, 3), keepdim=True))


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 2, 3, 3, 4), (2, 3, 7)])
def test_gradient(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: max_pool(v, 3, stride=2, padding=1), x)
    assert torch.autograd.gradcheck(lambda v: avg_pool(v, 3, stride=2, padding=1, count_include_pad=False), x)
    fast = x.detach().float().requires_grad_()
    for function in (lambda v: max_pool(v, 2), lambda v: avg_pool(v, 2), global_avg_pool):
        (expected,) = torch.autograd.grad(function(x).sin().sum(), x)
        (actual,) = torch.autograd.grad(function(fast).sin().sum(), fast)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_named() -> None:
    x = torch.zeros(1, 2, 8, 8)
    for call, message in (
        (lambda: max_pool(x, (2, 2, 2)), r"pool: window is \(2, 2, 2\): pass one number, or 2, each 1 or more"),
        (lambda: max_pool(x, 2, padding=2), r"padding is \(2, 2\) with window \(2, 2\): pass at most half"),
        (lambda: max_pool(x, 9), "does not fit into x"),
        (lambda: max_pool(x, 2, stride=0), "stride is 0"),
        (lambda: max_pool(x[0, 0], 2), "1 to 3 spatial axes"),
        (lambda: max_pool(x.long(), 2), "floating-point"),
        (lambda: avg_pool(x, 2, divisor_override=0), "divisor_override is 0"),
        (lambda: max_pool(x.double(), 2, implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)
    geometry = [2, 2], [2, 2], [0, 0], [1, 1], False, True, 0, [], None
    torch.library.opcheck(torch.ops.fastnets.pool.default, (x, False, *geometry))
    torch.library.opcheck(torch.ops.fastnets.pool.default, (x.requires_grad_(), True, *geometry))
