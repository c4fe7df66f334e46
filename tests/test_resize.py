"""resize: what the common harness does not cover."""

import pytest
import torch
from cases import resize as cases
from harness import PLACEMENTS, check
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.resize import MODES, resize


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 23), min_size=axes, max_size=axes)
    mode = data.draw(st.sampled_from(MODES))
    case = cases.Case(
        shape=(data.draw(st.integers(0, 2)), data.draw(st.integers(1, 70)), *data.draw(sizes)),
        mode=mode,
        size=tuple(data.draw(sizes)),
        align_corners=mode == "linear" and data.draw(st.booleans()),
    )
    # Where the source lies between two pixels, torch's own choice differs between float32 and float64.
    pairs = list(zip(case.shape[2:], case.size, strict=True))
    assume(mode != "nearest-exact" or not any((2 * i + 1) * s % (2 * out) == 0 for s, out in pairs for i in range(out)))
    assume(
        mode != "nearest" or all(s % out == 0 or out % s == 0 or i * s % out for s, out in pairs for i in range(1, out))
    )
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


@pytest.mark.parametrize("mode", MODES)
def test_positions_are_those_of_torch(mode: str) -> None:
    for size in range(1, 40):
        x = torch.randn(1, 1, size)
        for out in range(1, 60):
            actual = resize(x, out, mode=mode, implementation="native")
            torch.testing.assert_close(actual, resize(x, out, mode=mode, implementation="torch"), rtol=0, atol=2e-5)
        for scale in (0.37, 0.5, 0.9, 1.3, 1.5, 2.6, 3.0):
            if size * scale >= 1:
                actual = resize(x, scale=scale, mode=mode, implementation="native")
                expected = resize(x, scale=scale, mode=mode, implementation="torch")
                torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


def test_nan_reaches_only_its_neighbours() -> None:
    x = torch.zeros(1, 2, 4, 4)
    x[:, :, 3, 3] = float("nan")
    assert resize(x, (4, 4), mode="linear", implementation="native").isnan().sum() == 2
    assert resize(x, (8, 8), mode="nearest", implementation="native").isnan().sum() == 8


@pytest.mark.parametrize(("shape", "mode"), [((1, 3, 4, 3), "bilinear"), ((1, 2, 2, 2, 3), "trilinear")])
def test_gradient(shape: tuple[int, ...], mode: str) -> None:
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: resize(v, scale=2, mode=mode), x)
    fast = x.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(resize(x, scale=2, mode=mode).sin().sum(), x)
    (actual,) = torch.autograd.grad(resize(fast, scale=2, mode=mode, implementation="native").sin().sum(), fast)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x = torch.zeros(1, 2, 8, 8)
    for call, message in (
        (lambda: resize(x, 4, mode="trilinear"), "mode is 'trilinear': pass one of nearest"),
        (lambda: resize(x, 4, align_corners=True), "align_corners came with mode 'nearest'"),
        (lambda: resize(x, 4, scale=2), "pass one of them"),
        (lambda: resize(x), "pass one of them"),
        (lambda: resize(x, (4, 4, 4)), r"size is \(4, 4, 4\): pass one number, or 2"),
        (lambda: resize(x, scale=-1.0), "scale is -1.0"),
        (lambda: resize(x, scale=0.01), "size is"),
        (lambda: resize(x.double(), 4, implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.fastnets.resize.default, (x, [16, 16], [2.0, 2.0], "nearest", False, None))
    torch.library.opcheck(torch.ops.fastnets.resize.default, (x.requires_grad_(), [5, 9], None, "linear", True, None))
